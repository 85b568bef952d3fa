"""The rule for noise whose memory is longer at large scales than at small ones, and which adds no enstrophy of its own.

Each mode of the noise variable is a Matern process of smoothness 3/2, with a time for each shell of wavenumbers; a drag gives
back what such noise puts into the vorticity. docs/coupling.md derives both.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from closure_jax.coupling.base import BEGIN, Carry, StepNumber, Windows, draw_closure, draw_noise, keys_of_step
from closure_jax.coupling.draw import Draw
from closure_jax.coupling.residual import check_windows, residual, standard_error
from closure_jax.errors import check
from closure_jax.physics import spectral

_SURE = 3.0  # standard errors
_MOST = 0.25  # of the vorticity that the drag takes in a step, so that the explicit step stays stable
_HALVINGS = 60  # of an interval of times, down to double precision


@dataclasses.dataclass(frozen=True)
class Matern:
    """A draw each step, whose noise has the autocorrelation (1 + t / s) exp(-t / s) with a time s for each shell, and a drag.

    The closure is x(z) - drag w, shell by shell. Numbers are by shell of integer wavenumber of a field's own grid, from 0; the
    last one stands for all shells above.

    Attributes:
      memory_steps: s in solver steps; 0 is white noise; empty: fitted to the training windows.
      drag: rate [1/time] at which the closure takes the vorticity back; 0 for none; empty: that which balances the noise, from
        the training windows.
    """

    memory_steps: tuple[float, ...] = ()
    drag: tuple[float, ...] = ()

    crosses_members: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("memory_steps", "drag"):
            values = getattr(self, name)
            check(
                all(np.isfinite(value) and value >= 0 for value in values),
                f"{name}={','.join(f'{value:g}' for value in values)}: expected numbers that are finite and not negative, one"
                " for each shell of wavenumbers, or none to fit them to the training windows",
            )

    @property
    def period(self) -> int:
        """1."""
        return 1

    def fit(self, draw: Draw, windows: Windows) -> "Matern":
        """The rule with what is not given from the residual H - E[H | w] along the windows, see `memory` and `balance`.

        Raises:
          UserError: see `residual`.
        """
        if self.memory_steps and self.drag:
            return self
        found = residual(draw, windows, self._fitted)
        fluctuation, vorticity = np.fft.rfft2(found.values), np.fft.rfft2(np.asarray(found.vorticity, np.float64))
        interval, error = windows.interval / windows.dt, _of_shells(found.error_power)
        steps = np.asarray(self.memory_steps) if self.memory_steps else memory(fluctuation, vorticity, interval, error)
        drag = self.drag or _as_tuple(balance(fluctuation, vorticity, steps, interval, windows.dt, error))
        return Matern(self.memory_steps or _as_tuple(steps), drag)

    def stand_in(self) -> "Matern":
        """The rule with white noise and no drag where they are fitted: what it carries has the same shapes."""
        return Matern(self.memory_steps or (0.0,), self.drag or (0.0,))

    def check_windows(self, count: int, times: int) -> None:
        """Raises UserError where a number is fitted, and not by so few windows of so many fields."""
        if not (self.memory_steps and self.drag):
            check_windows(self._fitted, count, times)

    @property
    def _fitted(self) -> str:
        """The first field that is fitted, as a refusal names it."""
        return "drag=" if self.memory_steps else "memory_steps="

    def begin(self, draw: Draw, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Carry:
        """The noise of a fresh draw, and its rate of change in units of 1 / s.

        Raises:
          UserError: the rule has not been fitted; the noise is not made of fields.
        """
        check(
            bool(self.memory_steps and self.drag),
            "memory_steps=, drag=: expected the rule to be fitted to training windows before it is used; or give numbers of both",
        )
        noise, rate = (draw_noise(draw, own, vorticity) for own in _two(keys_of_step(keys, BEGIN)))
        for leaf in jax.tree.leaves(noise):
            own = leaf.shape[2:]  # more axes than these are the sampler steps of an SDE's noise, whatever their number
            check(
                len(own) in (2, 3) and own[0] == own[1] and own[0] % 2 == 0,
                f"kind=matern: noise of shape {own} for each member, expected square fields, (n, n) or (n, n, channels) with n"
                " even; use coupling.kind=ar1",
            )
        return noise, rate

    def closure(
        self,
        draw: Draw,
        carry: Carry,
        keys: Key[Array, "state member"],
        number: StepNumber,
        vorticity: Float[Array, "state member n n"],
    ) -> tuple[Float[Array, "state member n n"], Carry]:
        """See `Coupling`; the noise and its rate are carried."""
        fresh = [draw_noise(draw, own, vorticity) for own in _two(keys_of_step(keys, number))]
        leaves = [jax.tree.leaves(part) for part in (*carry, *fresh)]
        moved = [self._moved(*parts) for parts in zip(*leaves, strict=True)]
        tree = jax.tree.structure(carry[0])
        noise, rate = (jax.tree.unflatten(tree, [one[place] for one in moved]) for place in (0, 1))
        rates = _by_mode(self.drag, vorticity.shape[-1])
        taken = spectral.to_physical(rates * spectral.to_fourier(vorticity))
        return draw_closure(draw, noise, vorticity) - taken, (noise, rate)

    def _moved(self, noise: Array, rate: Array, one: Array, other: Array) -> tuple[Array, Array]:
        """Noise and rate a step later, from two fresh draws of white noise; the law of both is kept."""
        factors = process(_by_mode(self.memory_steps, noise.shape[2]))
        factors = [f.reshape(*f.shape, *([1] * (noise.ndim - 4))) for f in factors]
        a, b, c, d, p, q, r = (jnp.asarray(f, jnp.float32) for f in factors)
        z, y, u, v = (jnp.fft.rfft2(field, axes=(2, 3)) for field in (noise, rate, one, other))
        later = a * z + b * y + p * u, c * z + d * y + q * u + r * v
        moved = [jnp.fft.irfft2(field, s=noise.shape[2:4], axes=(2, 3)) for field in later]
        return moved[0], moved[1]


def _two(keys: Key[Array, "state member"]) -> tuple[Key[Array, "state member"], Key[Array, "state member"]]:
    """Two keys of each."""
    both = jax.vmap(jax.vmap(lambda key: jax.random.split(key, 2)))(keys)
    return both[..., 0], both[..., 1]


def _by_mode(values: Any, n: int) -> Float[np.ndarray, "n half"]:
    """The number of each mode's shell."""
    shell, _ = spectral.shells(n)
    return np.asarray(values, np.float64)[np.minimum(shell, len(values) - 1)]


def _as_tuple(values: Float[np.ndarray, " shell"]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def process(steps: Float[np.ndarray, "*shape"]) -> list[Float[np.ndarray, "*shape"]]:
    """(a, b, c, d, p, q, r) of a step of the Matern process, z' = a z + b y + p u, y' = c z + d y + q u + r v.

    z and y = s dz/dt have variance 1 and are uncorrelated at one time; u and v are standard normal. The step is exact, for the
    equation s^2 z'' + 2 s z' + z = white noise.

    Args:
      steps: s, in steps; 0 makes both white.
    """
    h = 1 / np.maximum(steps, 1e-3)
    decay = np.exp(-h)
    a, b, c, d = decay * (1 + h), decay * h, -decay * h, decay * (1 - h)
    # what is lost of the covariance is put back: its Cholesky factor
    p = np.sqrt(np.maximum(1 - a**2 - b**2, 1e-30))
    q = -(a * c + b * d) / p
    return [a, b, c, d, p, q, np.sqrt(np.maximum(1 - c**2 - d**2 - q**2, 0))]


# --- the fit ---------------------------------------------------------------------------------------------------------


def memory(
    fluctuation: np.ndarray, vorticity: np.ndarray, interval: float, error: np.ndarray | float = 0.0
) -> Float[np.ndarray, " shell"]:
    """s of each shell, in steps, from the residual's autocorrelation at one interval; 0 where it is not three standard errors
    above 0.

    Args:
      fluctuation, vorticity: transforms of the residual and of the vorticity, (window, time, n, n // 2 + 1).
      interval: between two times, in steps.
      error: power of the residual, by shell, that the estimate of its mean adds; of each time by itself.
    """
    lag_one, uncertain = _lag_one(fluctuation, error)
    kept = (lag_one > _SURE * uncertain) & (_power(vorticity).mean(axis=0) > 0)
    return np.where(kept, interval * _time(lag_one), 0.0)


def balance(
    fluctuation: np.ndarray,
    vorticity: np.ndarray,
    steps: Float[np.ndarray, " given"],
    interval: float,
    dt: float,
    error: np.ndarray | float = 0.0,
) -> Float[np.ndarray, " shell"]:
    """The drag of each shell, a rate [1/time]: T sigma^2 / E, at most a quarter in a step.

    sigma^2 and E are the variances of residual and vorticity, T the time for which they act together: the integral of the
    product of their autocorrelations, both taken for those of Matern processes.

    Args:
      fluctuation, vorticity, interval, error: as for `memory`.
      steps: the noise's time by shell; the last one stands for all shells above.
      dt: time of a step.
    """
    variance = np.maximum(_power(fluctuation).mean(axis=0) - error, 0.0)
    enstrophy = _power(vorticity).mean(axis=0)
    own = np.asarray(steps)[np.minimum(np.arange(len(variance)), len(steps) - 1)]
    lag_one, _ = _lag_one(vorticity)
    together = dt * overlap(own, interval * _time(lag_one))
    return np.minimum(together * variance / np.where(enstrophy > 0, enstrophy, np.inf), _MOST / dt)


def overlap(one: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The integral over t > 0 of the product of the autocorrelations of two Matern processes of these times; 0 where one is 0."""
    short, long = np.minimum(one, other), np.maximum(one, other)
    ratio = short / np.where(long > 0, long, 1.0)
    return 2 * short * (1 / (1 + ratio) + ratio / (1 + ratio) ** 3)


def _time(correlation: Float[np.ndarray, " shell"]) -> Float[np.ndarray, " shell"]:
    """s, in units of the lag, of the Matern process with this autocorrelation, (1 + 1/s) exp(-1/s); 0 unless it is in (0, 1)."""
    low, high = np.full(correlation.shape, 1e-6), np.full(correlation.shape, 50.0)  # of 1/s
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = (1 + middle) * np.exp(-middle) > correlation
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where((correlation > 0) & (correlation < 1), 1 / low, 0.0)


def _power(field_hat: np.ndarray, lag: int = 0) -> Float[np.ndarray, "window shell"]:
    """Mean over times and over a shell's modes of a field with itself `lag` times later, by window."""
    product = np.real(field_hat[:, lag:] * np.conj(field_hat[:, : field_hat.shape[1] - lag])).mean(axis=1)
    return np.stack([_of_shells(one) for one in product])


def _of_shells(power: Float[np.ndarray, "n half"]) -> Float[np.ndarray, " shell"]:
    """Mean over each shell's modes."""
    shell, weight = spectral.shells(power.shape[0])
    return np.bincount(shell.ravel(), (power * weight).ravel()) / np.bincount(shell.ravel(), weight.ravel())


def _lag_one(
    field_hat: np.ndarray, error: np.ndarray | float = 0.0
) -> tuple[Float[np.ndarray, " shell"], Float[np.ndarray, " shell"]]:
    """Autocorrelation at one interval by shell, and its standard error; 0 where there is no variance beside `error`."""
    later, power = _power(field_hat, 1), np.maximum(_power(field_hat) - error, 0.0)
    whole = np.where(power.mean(axis=0) > 0, power.mean(axis=0), np.inf)
    found = later.mean(axis=0) / whole
    return found, standard_error((later - found * power) / whole)
