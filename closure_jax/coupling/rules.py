"""The rules for the closure's noise in time that ship with the package; their fields are the configuration."""

import dataclasses
from typing import ClassVar, TypeVar

import jax
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.coupling.base import Carry, StepNumber, Windows, draw_closure, draw_noise, keys_of_step
from closure_jax.coupling.draw import Draw
from closure_jax.errors import check

_PIXEL_NOISE = 7  # folded into the key of a draw for its white noise

Rule = TypeVar("Rule")


class _Independent:
    """A draw each period, independent of those before: nothing is carried or fitted, and members do not meet."""

    crosses_members: ClassVar[bool] = False
    white_noise: float

    def fit(self: Rule, draw: Draw, windows: Windows) -> Rule:
        """Itself: there is nothing to fit."""
        return self

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """Nothing is carried."""
        return ()

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """See `Coupling`."""
        return _new_draw(draw, keys, number, vorticity, self.white_noise), carry


@dataclasses.dataclass(frozen=True)
class Held(_Independent):
    """One draw, held for a period: the published coupling (arXiv 2602.17089).

    Holding multiplies the variance that the noise adds to the vorticity by the period.

    Attributes:
      period: solver steps for which a draw is held.
      white_noise: standard deviation of independent noise at each grid point, added to each draw; published rollouts have 5e-5.
    """

    period: int = 5
    white_noise: float = 0.0

    def __post_init__(self) -> None:
        check(self.period > 0, f"period={self.period}: expected a whole number of solver steps above 0")
        _check_white_noise(self.white_noise)


@dataclasses.dataclass(frozen=True)
class Fresh(_Independent):
    """A new draw at each solver step: white in time, as the noise of the true system is.

    Attributes:
      white_noise: as of `Held`.
    """

    white_noise: float = 0.0

    def __post_init__(self) -> None:
        _check_white_noise(self.white_noise)

    @property
    def period(self) -> int:
        """One step."""
        return 1


def _check_white_noise(deviation: float) -> None:
    check(0 <= deviation < float("inf"), f"white_noise={deviation}: expected a number that is not negative")


def _new_draw(
    draw: Draw,
    keys: Key[Array, "state member"],
    number: StepNumber,
    vorticity: Float[Array, "state member n n"],
    white_noise: float,
) -> Float[Array, "state member n n"]:
    """An independent draw for each member, with white noise of that standard deviation on it."""
    now = keys_of_step(keys, number)
    closure = draw_closure(draw, draw_noise(draw, now, vorticity), vorticity)
    if not white_noise:
        return closure

    def pixels(key: Key[Array, ""]) -> Float[Array, "n n"]:
        return random.normal(jax.random.fold_in(key, _PIXEL_NOISE), vorticity.shape[2:])

    return closure + white_noise * jax.vmap(pixels)(now.reshape(-1)).reshape(vorticity.shape)
