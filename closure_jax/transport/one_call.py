"""What transports of one network call a sample share: no transport times, and a mean by the network at z = 0."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from jaxtyping import Array, Float

from closure_jax.errors import check
from closure_jax.transport.base import Field, Steps


class OneCall:
    """x = g(condition, z): the part of a `Transport` that does not depend on how g is trained."""

    times: ClassVar[int] = 0

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """g(condition, 0): the mean of a generator that is odd in z about it."""
        return field(jnp.zeros_like(condition))

    def schedules(self) -> "dict[str, OneCall]":
        """There are no times to space."""
        return {"one call": self}

    def in_rollouts(self) -> "OneCall":
        """Itself."""
        return self

    def check_steps(self, steps: Steps) -> None:
        """Raises UserError where a number of steps is known and not 1; of a traced one `checkify` tells, where it is asked."""
        if isinstance(steps, jax.Array):
            message = "steps={steps}: a generator makes its sample in one call, expected 1"
            checkify.debug_check(jnp.all(steps == 1), message, steps=steps)
        else:
            check(steps == 1, f"steps={steps}: a generator makes its sample in one call, expected 1")
