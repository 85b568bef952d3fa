"""The rule for noise with a memory: the noise variable is carried from draw to draw as an autoregression of order one.

After the AR(1) noise of pyqg_generative (Perezhogin, Zanna, Fernandez-Granda 2023), whose correlation is that of the residual
H - E[H | w] along true trajectories. docs/coupling.md derives the factor and says how the fit decides.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from closure_jax.coupling.base import BEGIN, Carry, StepNumber, Windows, draw_noise, keys_of_step
from closure_jax.coupling.draw import Draw
from closure_jax.coupling.residual import check_windows, residual, standard_error
from closure_jax.coupling.rules import check_period
from closure_jax.coupling.scaling import check_has_mean, check_mean_by, scaled_closure
from closure_jax.errors import check, finite

FITTED = -1.0
"""Stands for a correlation time that `fit` takes from the training windows."""

_SURE = 3.0  # standard errors


@dataclasses.dataclass(frozen=True)
class AR1:
    """One draw a period, whose noise remembers the one before: z' = a z + sqrt(1 - a^2) xi, xi fresh, a = exp(-period / T).

    The fluctuation is scaled so that, over times long beside T, the noise adds as much variance to the vorticity as one that
    has this correlation time and is drawn each step. For T far above the period that factor is 1; for T = 0 the rule is `Scaled`.

    Attributes:
      period: solver steps for which a draw is held.
      correlation_steps: T, solver steps in which the noise's autocorrelation falls to 1/e; 0: white noise; -1: fitted to the
        training windows.
      mean: where the conditional mean comes from, as of `Scaled`.
    """

    period: int = 5
    correlation_steps: float = FITTED
    mean: str = "antithetic"

    crosses_members: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_period(self.period)
        finite(self, "correlation_steps")
        check(
            self.correlation_steps >= 0 or self.correlation_steps == FITTED,
            f"correlation_steps={self.correlation_steps}: expected a number of solver steps that is not negative, or -1 to fit it"
            " to the training windows",
        )
        check_mean_by(self.mean)

    @property
    def correlation(self) -> float:
        """a, between the noise of two draws in turn."""
        steps = self._known_steps()
        return math.exp(-self.period / steps) if steps > 0 else 0.0

    @property
    def factor(self) -> float:
        """Of the fluctuation: its square is tanh(period / 2T) / (period tanh(1 / 2T))."""
        steps = self._known_steps()
        if steps == 0:
            return self.period**-0.5
        return math.sqrt(math.tanh(self.period / (2 * steps)) / (self.period * math.tanh(1 / (2 * steps))))

    @property
    def draws(self) -> int:
        """Calls of the draw in each period."""
        return 1 if self.period == 1 or self.mean == "linear" else 2

    def _known_steps(self) -> float:
        check(
            self.correlation_steps != FITTED,
            "correlation_steps=-1: expected the rule to be fitted to training windows before it is used; or give a number of"
            " solver steps, 0 for white noise",
        )
        return self.correlation_steps

    def fit(self, draw: Draw, windows: Windows) -> "AR1":
        """The rule with T from the residual's autocorrelation at the windows' interval; itself where T was given.

        Raises:
          UserError: see `residual_autocorrelation`; or the residual does not change over an interval.
        """
        if self.correlation_steps != FITTED:
            return self
        correlation = residual_autocorrelation(draw, windows)
        if correlation == 0:
            return dataclasses.replace(self, correlation_steps=0.0)
        check(
            correlation < 1,
            f"correlation_steps=-1: the residual's autocorrelation at the interval of the windows, {windows.interval:g}, is"
            f" {correlation:.4f}, expected less than 1; give a number of solver steps",
        )
        return dataclasses.replace(self, correlation_steps=-windows.interval / windows.dt / math.log(correlation))

    def stand_in(self) -> "AR1":
        """The rule with white noise where T is fitted: what it carries has the same shapes."""
        return dataclasses.replace(self, correlation_steps=0.0) if self.correlation_steps == FITTED else self

    def check_windows(self, count: int, times: int) -> None:
        """Raises UserError where T is fitted, and not by so few windows of so many fields."""
        if self.correlation_steps == FITTED:
            check_windows("correlation_steps=-1", count, times)

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """The noise of a fresh draw.

        Raises:
          UserError: the rule has not been fitted; see `check_has_mean`.
        """
        self._known_steps()
        check_has_mean(draw, vorticity, self.mean)
        return draw_noise(draw, keys_of_step(keys, BEGIN), vorticity)

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """See `Coupling`; the noise is carried."""
        fresh = draw_noise(draw, keys_of_step(keys, number), vorticity)
        old, new = self.correlation, math.sqrt(1 - self.correlation**2)
        noise = jax.tree.map(lambda z, xi: old * z + new * xi, carry, fresh)
        return scaled_closure(draw, noise, vorticity, self.factor, self.mean), noise


# --- the fit ---------------------------------------------------------------------------------------------------------


def residual_autocorrelation(draw: Draw, windows: Windows) -> float:
    """Autocorrelation of r = H - E[H | w] between two fields in turn, as that of AR(1) noise; 0 where r passes for white.

    It passes for white unless two things hold by three standard errors: the autocorrelation is above 0, and, as lag two tells,
    more than half of r's variance is correlated. A small error of the draw's mean lasts as long as the vorticity and would
    else be taken for noise with a memory.

    Raises:
      UserError: see `residual`.
    """
    found = residual(draw, windows, "correlation_steps=-1")
    values = found.values
    variance = np.mean(values**2, axis=(1, 2, 3)) - found.error
    if not variance.mean() > 0:
        return 0.0
    lag_one, noise_one = _autocorrelation(values, variance, 1)
    lag_two, noise_two = _autocorrelation(values, variance, 2)
    # of r = white + correlated, the latter a share q: lag one q a, lag two q a^2, so that q > 1/2 is margin > 0
    margin, noise = 2 * lag_one**2 - lag_two, 4 * lag_one * noise_one - noise_two
    shown = lag_one > _SURE * standard_error(noise_one) and margin > _SURE * standard_error(noise)
    return lag_one if shown else 0.0


def _autocorrelation(
    values: Float[np.ndarray, "window time n n"], variance: Float[np.ndarray, " window"], lag: int
) -> tuple[float, Float[np.ndarray, " window"]]:
    """Autocorrelation at a lag, and what each window contributes to its error (first order)."""
    products = np.mean(values[:, lag:] * values[:, :-lag], axis=(1, 2, 3))
    found = float(products.mean() / variance.mean())
    return found, (products - found * variance) / variance.mean()
