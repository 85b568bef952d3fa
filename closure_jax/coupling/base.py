"""What a rule for the closure's noise in time is, and the helpers that rules share.

A solver of step dt asks its rule for the closure once in a period of steps and holds the field that it gets. Arrays of an
ensemble have the leading axes (state, member): a rule may carry something for each member, or look at all members of a state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from closure_jax.coupling.draw import Draw

Carry: TypeAlias = Any
"""A pytree of arrays whose leading axes are (state, member); () where a rule carries nothing."""

StepNumber: TypeAlias = int | Int[Array, ""] | Int[np.ndarray, ""]

Between: TypeAlias = Callable[
    [Float[Array, "state member n n"], Key[Array, "state member"], StepNumber], Float[Array, "state member n n"]
]
"""between(closure, keys, number) -> the closure of the step `number` from that of the step before, in the same period."""

BEGIN = 2**31 - 1
"""Stands for the number of a step in the draw of a rule's `begin`; no run is so long."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """Pieces of true trajectories, from which a rule is fitted.

    Attributes:
      vorticity, closure: (window, time, n, n), physical units; the closure is the one that the step from its state uses.
      interval: time between two fields of a window.
      dt: time of one solver step, the unit in which rules count.
    """

    vorticity: Float[np.ndarray, "window time n n"]
    closure: Float[np.ndarray, "window time n n"]
    interval: float
    dt: float


@runtime_checkable
class Coupling(Protocol):
    """A rule for the closure's noise in time; its dataclass fields are the configuration.

    One that changes the closure while it is held has a method `between()`, which returns a `Between`, or None. One with a method
    `stand_in()` is tried before anything is trained: it returns the rule with numbers in place of those that `fit` would find,
    itself where it has none. One that is fitted may say by `check_windows(count, times)`, which raises UserError, that so few
    windows of so many fields don't serve.

    Attributes:
      period: solver steps between two calls of `closure`.
      crosses_members: whether the rule looks at several members of a state together. An ensemble is then not cut.
    """

    crosses_members: ClassVar[bool]

    @property
    def period(self) -> int: ...

    def fit(self, draw: Draw, windows: Windows) -> "Coupling":
        """The rule with its numbers taken from data; a rule that has none to fit returns itself."""
        ...

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """What is carried into the first period."""
        ...

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """The closure of one period, and what is carried into the next.

        Args:
          draw: where closures come from.
          carry: what `begin` or the period before returned.
          keys: one for each member, the same for a whole run; randomness of this period comes from `keys_of_step`.
          number: of the period's first step in the run.
          vorticity: at that step, physical units.
        """
        ...


def keys_of_step(keys: Key[Array, "state member"], number: StepNumber) -> Key[Array, "state member"]:
    """The members' keys for one step: fold_in(key, number)."""
    return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, number)))(keys)


def draw_noise(draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Any:
    """The noise of one closure for each member; its leaves have the leading axes (state, member)."""
    states, members, *grid = vorticity.shape
    noise = draw.noise(keys.reshape(-1), vorticity.reshape(-1, *grid))
    return jax.tree.map(lambda leaf: leaf.reshape(states, members, *leaf.shape[1:]), noise)


def draw_closure(
    draw: Draw, noise: Any, vorticity: Float[Array, "state member n n"]
) -> Float[Array, "state member n n"]:
    """The closure of each member from its noise, as `draw_noise` gives it."""
    grid = vorticity.shape[2:]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), noise)
    return jnp.reshape(draw.draw(flat, vorticity.reshape(-1, *grid)), vorticity.shape)


def draw_mean(draw: Draw, vorticity: Float[Array, "state member n n"]) -> Float[Array, "state member n n"] | None:
    """The conditional mean of each member's closure; None where the draw has none."""
    mean = draw.mean(vorticity.reshape(-1, *vorticity.shape[2:]))
    return None if mean is None else jnp.reshape(mean, vorticity.shape)
