"""The exact law as a network that has nothing to learn: the line that no model can cross, judged by the same code as they are."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from closure_jax.coupling.draw import Draw
from closure_jax.errors import UserError, check


def exact_law(problem: Any) -> Draw | None:
    """The exact law of a problem's closure; None where nobody knows it."""
    exact = getattr(problem, "exact", None)
    return None if exact is None else exact()


class Oracle(nn.Module):
    """A generator of one call in physical space and physical units, without parameters: a draw from the problem's law.

    The interface is that of `models.velocity_field`; the condition is the vorticity, x is white noise, of whose numbers the law
    takes as many as it needs.

    Attributes:
      problem: what knows the law.
      channels: 1.
      times: 0.
    """

    problem: Any = None
    channels: int = 1
    times: int = 0

    linear_in_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.times == 0, "kind=oracle: the exact law is one call, expected transport.process = score")
        if self.problem is not None:
            self._law()

    def _law(self) -> Draw:
        law = exact_law(self.problem)
        if law is None:
            raise UserError("kind=oracle: nobody knows the law of this problem, expected another network")
        return law

    def encode_condition(self, condition: Float[Array, "batch n n 1"]) -> Float[Array, "batch n n"]:
        """The vorticity."""
        return condition[..., 0]

    def velocity(
        self, x: Float[Array, "batch n n 1"], features: Float[Array, "batch n n"]
    ) -> Float[Array, "batch n n 1"]:
        """The closure that white noise x stands for."""
        law, numbers = self._law(), x.reshape(len(x), -1)
        noise = jax.eval_shape(law.noise, jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(x))), features)
        check(
            noise.size <= numbers.size,
            f"kind=oracle: the law needs {noise.size // len(x)} numbers a field, expected at most its {numbers.shape[1]} points",
        )
        drawn = numbers[:, : noise.size // len(x)].reshape(noise.shape)
        return law.draw(drawn, features)[..., None]

    def __call__(
        self, x: Float[Array, "batch n n 1"], condition: Float[Array, "batch n n 1"]
    ) -> Float[Array, "batch n n 1"]:
        return self.velocity(x, self.encode_condition(condition))
