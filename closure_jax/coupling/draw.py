"""What a solver takes as its closure: a learned one, none, or any other random or deterministic field."""

import abc
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax.closure import StochasticClosure


@runtime_checkable
class Draw(Protocol):
    """A closure H as a random field given the vorticity; noise is an argument, so that a rule may carry or correlate it.

    A draw that is linear in its noise about its mean says so by an attribute `linear_in_noise` = True.
    """

    def noise(self, keys: Key[Array, " batch"], vorticity: Float[Array, "batch n n"]) -> Any:
        """What `draw` turns into closures: a pytree of standard normal arrays with the leading axis batch, one key each.

        A closure without randomness has no leaves, ().
        """
        ...

    def draw(self, noise: Any, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure that the noise stands for, physical units."""
        ...

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"] | None:
        """The conditional mean E[H | vorticity], where it has one at a known price."""
        ...


def is_random(draw: Draw, n: int) -> bool:
    """Whether the closure of fields (n, n) has any noise; nothing is computed."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    field = jax.ShapeDtypeStruct((1, n, n), jnp.float32)
    return bool(jax.tree.leaves(jax.eval_shape(draw.noise, keys, field)))


@flax.struct.dataclass
class FixedSteps:
    """A learned closure with its number of sampler steps: a pytree, so that it passes through jit as an argument.

    Attributes:
      model: the closure.
      steps: sampler steps of each draw.
    """

    model: StochasticClosure
    steps: int = flax.struct.field(pytree_node=False)

    @property
    def linear_in_noise(self) -> bool:
        """Of the closure."""
        return self.model.linear_in_noise

    def noise(self, keys: Key[Array, " batch"], vorticity: Float[Array, "batch n n"]) -> Any:
        """See `Draw`."""
        return self.model.noise(keys, vorticity, self.steps)

    def draw(self, noise: Any, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """See `Draw`."""
        return self.model.draw(noise, vorticity, self.steps)

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"] | None:
        """See `Draw`."""
        return self.model.mean(vorticity)


class Deterministic(abc.ABC):
    """A draw without noise: what a subclass gives by `mean`."""

    def noise(self, keys: Key[Array, " batch"], vorticity: Float[Array, "batch n n"]) -> tuple[()]:
        """Nothing is drawn."""
        return ()

    def draw(self, noise: tuple[()], vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The mean."""
        return self.mean(vorticity)

    @abc.abstractmethod
    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""


class NoClosure(Deterministic):
    """Zero: what the solver does alone."""

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """Zeros."""
        return jnp.zeros_like(vorticity)
