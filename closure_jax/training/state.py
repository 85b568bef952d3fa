"""What training carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Attributes: step (scalar), params, opt_state, ema (exponential moving average of params, what is used later)."""

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any

    @classmethod
    def create(cls, params: Any, optimiser: optax.GradientTransformation) -> "TrainState":
        """State before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, optimiser.init(params), jax.tree.map(jnp.copy, params))
