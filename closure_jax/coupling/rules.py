"""Rules whose draws are independent of each other: held as they are, taken afresh each step, or held with their
noise scaled, also extrapolated.

The fields of a rule are the configuration. `autoregressive` has the rule for noise with a memory; docs/coupling.md derives both.
"""

import dataclasses
import functools
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.coupling.base import Between, Carry, StepNumber, Windows, draw_closure, draw_noise, keys_of_step
from closure_jax.coupling.draw import Draw
from closure_jax.coupling.scaling import check_has_mean, check_mean_by, scaled_closure
from closure_jax.errors import check, is_whole, not_negative

_PIXEL_NOISE = 7  # folded into the key of a draw for its white noise

Rule = TypeVar("Rule")


class _Independent:
    """A draw each period, independent of those before: nothing is carried or fitted, and members do not meet."""

    crosses_members: ClassVar[bool] = False

    def fit(self: Rule, draw: Draw, windows: Windows) -> Rule:
        """Itself: there is nothing to fit."""
        return self

    def stand_in(self: Rule) -> Rule:
        """Itself."""
        return self

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """Nothing is carried."""
        return ()


class _Drawn(_Independent):
    """An independent draw for each member."""

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """See `Coupling`."""
        drawn = draw_closure(draw, draw_noise(draw, keys_of_step(keys, number), vorticity), vorticity)
        return self.of_draws(drawn, keys, number), carry

    def of_draws(
        self, closure: Float[Array, "state member n n"], keys: Key[Array, "state member"], number: StepNumber
    ) -> Float[Array, "state member n n"]:
        """What the solver gets of the draws of a step: the draws."""
        del keys, number
        return closure


@dataclasses.dataclass(frozen=True)
class Held(_Drawn):
    """One draw, held for a period: the published coupling (arXiv 2602.17089).

    Holding multiplies the variance that the noise adds to the vorticity by the period.

    Attributes:
      period: solver steps for which a draw is held.
      white_noise: standard deviation of independent noise at each grid point, added to the held closure at each step but the
        first of a period, on top of what the steps before have added; published rollouts have 5e-5.
    """

    period: int = 5
    white_noise: float = 0.0

    def __post_init__(self) -> None:
        check_period(self.period)
        not_negative(self, "white_noise")

    def between(self) -> Between | None:
        """See `Coupling`: the white noise, if there is any."""
        return functools.partial(_with_white_noise, self.white_noise) if self.white_noise else None


@dataclasses.dataclass(frozen=True)
class EnsembleMean(Held):
    """One draw for each member, and every member of a state gets their mean, held for a period: the authors' script of published
    ensembles. Their spread is what the white noise adds; that of the closure is averaged away.
    """

    crosses_members: ClassVar[bool] = True

    def of_draws(
        self, closure: Float[Array, "state member n n"], keys: Key[Array, "state member"], number: StepNumber
    ) -> Float[Array, "state member n n"]:
        """The mean over the members of each state."""
        del keys, number
        return jnp.broadcast_to(jnp.mean(closure, axis=1, keepdims=True), closure.shape)


@dataclasses.dataclass(frozen=True)
class Fresh(_Drawn):
    """A new draw at each solver step: white in time, as the noise of the true system is.

    Attributes:
      white_noise: standard deviation of independent noise at each grid point, added to each draw.
    """

    white_noise: float = 0.0

    def __post_init__(self) -> None:
        not_negative(self, "white_noise")

    @property
    def period(self) -> int:
        """One step."""
        return 1

    def of_draws(
        self, closure: Float[Array, "state member n n"], keys: Key[Array, "state member"], number: StepNumber
    ) -> Float[Array, "state member n n"]:
        """With the white noise, if there is any."""
        return _with_white_noise(self.white_noise, closure, keys, number) if self.white_noise else closure


@dataclasses.dataclass(frozen=True)
class Scaled(_Independent):
    """One draw, its fluctuation divided by sqrt(period), held for a period: white noise of the right strength.

    The noise adds as much variance to the vorticity as one draw each step would, at 1 or 2 calls each period. What an antithetic
    pair takes for the mean contains the part of the draw that is even in its noise; that part is held unscaled, as by `Held`.

    Attributes:
      period: solver steps for which a draw is held.
      mean: where the conditional mean comes from: antithetic, half the sum of draws with noise z and -z; own, the draw's mean;
        linear, from nowhere, at one call: the noise of a draw that is linear in it is scaled.
    """

    period: int = 5
    mean: str = "antithetic"

    def __post_init__(self) -> None:
        check_period(self.period)
        check_mean_by(self.mean)

    @property
    def factor(self) -> float:
        """Of the fluctuation."""
        return self.period**-0.5

    @property
    def draws(self) -> int:
        """Calls of the draw in each period."""
        return 1 if self.period == 1 or self.mean == "linear" else 2

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """Nothing is carried.

        Raises:
          UserError: see `check_has_mean`.
        """
        check_has_mean(draw, vorticity, self.mean)
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
        noise = draw_noise(draw, keys_of_step(keys, number), vorticity)
        return scaled_closure(draw, noise, vorticity, self.factor, self.mean), carry


@dataclasses.dataclass(frozen=True)
class Extrapolated(Scaled):
    """The closure x of `Scaled`, extrapolated to the middle of the period: x + a (x - x'), x' that of the period before.

    A draw that is held acts late by half a period on average; a = (period - 1) / (2 period) is what a line through x' and x
    gains in that time, so that the error of holding is of second order. The noise of all draws together is that of `Scaled`, at
    the same calls. The first period has no x' and holds x.
    """

    @property
    def delay(self) -> float:
        """How late a held draw is on average, in periods."""
        return (self.period - 1) / (2 * self.period)

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """A closure before the first, and what it weighs: nothing.

        Raises:
          UserError: see `check_has_mean`.
        """
        super().begin(draw, keys, vorticity)
        return jnp.zeros_like(vorticity), jnp.zeros(vorticity.shape[:2])

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """See `Coupling`; the scaled closure is carried."""
        closure, _ = super().closure(draw, (), keys, number, vorticity)
        before, weight = carry
        return closure + weight[..., None, None] * (closure - before), (closure, jnp.full_like(weight, self.delay))


def check_period(period: int) -> None:
    """Raises UserError where no solver can hold a closure so long."""
    check(is_whole(period) and period > 0, f"period={period}: expected a whole number of solver steps above 0")


def _with_white_noise(
    deviation: float, closure: Float[Array, "state member n n"], keys: Key[Array, "state member"], number: StepNumber
) -> Float[Array, "state member n n"]:
    """The closure and noise that is independent at each point, for each member, and of other steps."""

    def pixels(key: Key[Array, ""]) -> Float[Array, "n n"]:
        return random.normal(jax.random.fold_in(key, _PIXEL_NOISE), closure.shape[2:])

    return closure + deviation * jax.vmap(pixels)(keys_of_step(keys, number).reshape(-1)).reshape(closure.shape)
