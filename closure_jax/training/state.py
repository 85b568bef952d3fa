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
      ema: exponential moving average of `params`, which is what validation and the trained closure use.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any

    @classmethod
    def create(cls, params: Any, optimiser: optax.GradientTransformation) -> "TrainState":
        """State before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, optimiser.init(params), jax.tree.map(jnp.copy, params))
