"""The state of training, carried from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """All that a step of training needs of the steps before.

    Attributes:
      step: number of steps done, a scalar.
      params: of the networks.
      opt_state: of the optimiser.
      ema: exponential moving average of `params`, which is what validation and the trained closure use; with
        `keep = best` the parameters of the checkpoint that validated best so far.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any

    @classmethod
    def create(cls, params: Any, optimiser: optax.GradientTransformation) -> "TrainState":
        """State before the first step."""

        @jax.jit  # one program, not one for each leaf
        def made(params: Any) -> tuple[jax.Array, Any, Any]:
            return jnp.zeros((), jnp.int32), optimiser.init(params), jax.tree.map(jnp.copy, params)

        step, opt_state, ema = made(params)
        return cls(step, params, opt_state, ema)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: getattr(self, name) for name in ("step", "params", "opt_state", "ema")}
