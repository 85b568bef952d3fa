"""Random fields with a prescribed spectrum, drawn in Fourier space with their exact law.

A field Re sum_k a_k (xi_k) e^{i k.x}, with both parts of xi_k Normal(0, kappa) and a_k depending on |k| only, has
half-plane coefficients whose parts are Normal(0, kappa a_k^2 / 2), and a real k = 0 coefficient of variance kappa a_0^2.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jax_cfd.base import grids
from jaxtyping import Array, Complex, Float, Key

from closure_jax import random
from closure_jax.physics import spectral

_NEGLIGIBLE = 1e-8  # amplitude, relative to k = 0, below which float32 would not see a mode


@functools.lru_cache(maxsize=16)
def _amplitude(noise: "QWienerNoise | GaussianRandomField") -> tuple[int, Float[np.ndarray, "rows columns"]]:
    """Highest index K that carries any amplitude, and a_k on the modes |ix| <= K, 0 <= iy <= K."""
    n = noise.grid.shape[0]
    length = noise.grid.domain[0][1]
    full = noise.spectrum(2 * np.pi * np.arange(n // 2) / length)
    carried = np.nonzero(full > _NEGLIGIBLE * full.max())[0]
    top = min(int(carried.max()), n // 2 - 1)
    ix = np.fft.fftfreq(2 * top + 1, 1 / (2 * top + 1))[:, None]
    iy = np.arange(top + 1)[None, :]
    return top, noise.spectrum(2 * np.pi / length * np.hypot(ix, iy))


def _normals(
    key: Key[Array, ""], noise: "QWienerNoise | GaussianRandomField", dtype: DTypeLike
) -> Float[Array, "2 rows columns"]:
    """The standard normal numbers of one field, (2, 2 K + 1, K + 1): only modes that carry amplitude are drawn."""
    top, _ = _amplitude(noise)
    return random.normal(key, (2, 2 * top + 1, top + 1), dtype)


def _field_hat(
    normals: Float[Array, "2 rows columns"], noise: "QWienerNoise | GaussianRandomField"
) -> Complex[Array, "n n//2+1"]:
    """The field that `_normals` stand for, (n, n // 2 + 1) complex, of unit kappa."""
    n = noise.grid.shape[0]
    top, amplitude = _amplitude(noise)
    real, imaginary = normals
    xi = jax.lax.complex(real, imaginary) * np.asarray(amplitude * n**2 / np.sqrt(2), normals.dtype)
    line = xi[:, 0]  # on ky = 0 the modes k and -k both stand in the array: they must be conjugate
    mirrored = jnp.conj(jnp.roll(line[::-1], 1))
    xi = xi.at[:, 0].set((line + mirrored) / np.asarray(np.sqrt(2), normals.dtype))
    middle = jnp.zeros((n - 2 * top - 1, top + 1), xi.dtype)
    rows = jnp.concatenate([xi[: top + 1], middle, xi[top + 1 :]], axis=0)
    return jnp.pad(rows, ((0, 0), (0, n // 2 - top)))


def _draw_hat(
    key: Key[Array, ""], noise: "QWienerNoise | GaussianRandomField", dtype: DTypeLike
) -> Complex[Array, "n n//2+1"]:
    """One field, (n, n // 2 + 1) complex, of unit kappa."""
    return _field_hat(_normals(key, noise, dtype), noise)


@dataclasses.dataclass(frozen=True)
class QWienerNoise:
    """sigma dW/dt of a Q-Wiener process, white in time at the step dt (Lord, Powell, Shardlow 2014, Alg. 10.6).

    dW/dt = Re sum_k exp(-alpha (2 pi |k|)^2 / 2) xi_k e^{2 pi i k.x} / sqrt(dt), both parts of xi_k Normal(0, kappa).

    Attributes:
      grid: where the field lives.
      sigma: amplitude [1 / time^(3/2)], so that sigma dW/dt is in units of vorticity / time.
      kappa: variance of each part of xi_k [1].
      alpha: smoothing [length^2].
      dt: time step [time].
    """

    grid: grids.Grid
    sigma: float
    kappa: float
    alpha: float
    dt: float

    def spectrum(self, wavenumber: Float[np.ndarray, "*modes"]) -> Float[np.ndarray, "*modes"]:
        """Amplitude a_k at an angular wavenumber [rad / length]."""
        return np.exp(-self.alpha * wavenumber**2 / 2)

    @property
    def scale(self) -> float:
        """Factor from a draw of unit kappa to sigma dW/dt."""
        return self.sigma * float(np.sqrt(self.kappa / self.dt))

    def sample_hat(self, key: Key[Array, ""], dtype: DTypeLike = jnp.float32) -> Complex[Array, "n n//2+1"]:
        """One draw in Fourier space, (n, n // 2 + 1) complex."""
        return self.field_hat(self.normals(key, dtype))

    def normals(self, key: Key[Array, ""], dtype: DTypeLike = jnp.float32) -> Float[Array, "2 rows columns"]:
        """The independent standard normal numbers that make one draw, (2, 2 K + 1, K + 1), K the highest mode carried."""
        return _normals(key, self, dtype)

    def field_hat(self, normals: Float[Array, "2 rows columns"]) -> Complex[Array, "n n//2+1"]:
        """The draw that `normals` stand for, (n, n // 2 + 1) complex; linear in them."""
        return self.scale * _field_hat(normals, self)

    def shell_spectrum(self) -> Float[np.ndarray, " shells"]:
        """Expected `power_spectrum` of a draw, (n // 2 + 1,)."""
        n = self.grid.shape[0]
        power = self.scale**2 * self._mode_power()
        shell, weight = spectral.shells(n)
        return np.bincount(shell.ravel(), (power * weight).ravel())[: n // 2 + 1]

    def standard_deviation(self) -> float:
        """Pointwise standard deviation, sqrt of the sum over modes; sigma sqrt(kappa / (4 pi alpha dt)) L if resolved."""
        _, weight = spectral.shells(self.grid.shape[0])
        return float(self.scale * np.sqrt(np.sum(self._mode_power() * weight)))

    def _mode_power(self) -> Float[np.ndarray, "n n//2+1"]:
        """a_k^2 on the half plane, zero where nothing is drawn."""
        n = self.grid.shape[0]
        top, amplitude = _amplitude(self)
        power = np.zeros((n, n // 2 + 1))
        power[np.arange(-top, top + 1)[:, None], np.arange(top + 1)[None, :]] = np.fft.fftshift(amplitude, axes=0) ** 2
        return power


@dataclasses.dataclass(frozen=True)
class GaussianRandomField:
    """Initial vorticity: zero-mean Gaussian field with spectrum sqrt(2) tau^(alpha-1) (|k|^2 + tau^2)^(-alpha/2).

    |k| is the angular wavenumber of a unit domain, 2 pi times the integer index; on a domain of length L the index
    spectrum is kept, so that the field is the same pattern, stretched.

    Attributes:
      grid: where the field lives.
      alpha: decay of the amplitude at large wavenumbers [1].
      tau: wavenumber on a unit domain where the decay begins [rad]; no transport time.
    """

    grid: grids.Grid
    alpha: float
    tau: float

    def spectrum(self, wavenumber: Float[np.ndarray, "*modes"]) -> Float[np.ndarray, "*modes"]:
        """Amplitude at an angular wavenumber [rad / length]; zero at k = 0."""
        scaled = wavenumber * self.grid.domain[0][1]
        amplitude = np.sqrt(2) * self.tau ** (self.alpha - 1) * (scaled**2 + self.tau**2) ** (-self.alpha / 2)
        return np.where(wavenumber > 0, amplitude, 0.0)

    def sample_hat(self, key: Key[Array, ""], dtype: DTypeLike = jnp.float32) -> Complex[Array, "n n//2+1"]:
        """One draw in Fourier space; `dtype` is that of the real and imaginary parts."""
        return _draw_hat(key, self, dtype)
