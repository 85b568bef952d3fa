"""Fourier-space kinematics of doubly periodic fields.

Convention: a field of shape (..., n, n) is sampled at x_i = i L / n, first axis x, second axis y. Its transform
`field_hat = jnp.fft.rfft2(field)` has shape (..., n, n // 2 + 1) and is not normalised.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids


def make_grid(resolution: int, domain_length: float) -> grids.Grid:
    """A square periodic `jax_cfd` grid of `resolution`^2 points on [0, domain_length]^2."""
    return grids.Grid((resolution, resolution), domain=((0.0, domain_length), (0.0, domain_length)))


@functools.lru_cache(maxsize=32)
def wavenumbers(grid: grids.Grid) -> tuple[np.ndarray, np.ndarray]:
    """Angular wavenumbers (kx, ky) [rad / length], shapes (n, 1) and (1, n // 2 + 1)."""
    n = grid.shape[0]
    length = grid.domain[0][1] - grid.domain[0][0]
    kx = 2 * np.pi * np.fft.fftfreq(n, length / n)[:, None]
    ky = 2 * np.pi * np.fft.rfftfreq(n, length / n)[None, :]
    return kx, ky


@functools.lru_cache(maxsize=32)
def laplacian(grid: grids.Grid) -> np.ndarray:
    """Symbol of the Laplacian, -(kx^2 + ky^2), shape (n, n // 2 + 1)."""
    kx, ky = wavenumbers(grid)
    return -(kx**2 + ky**2)


@functools.lru_cache(maxsize=32)
def dealias_mask(grid: grids.Grid) -> np.ndarray:
    """The 2/3 rule: 1 on the modes with |index| < n / 3 in both directions, 0 elsewhere."""
    n = grid.shape[0]
    ix = np.abs(np.fft.fftfreq(n, 1 / n))[:, None]
    iy = np.abs(np.fft.rfftfreq(n, 1 / n))[None, :]
    return ((ix < n / 3) & (iy < n / 3)).astype(np.float64)


def to_fourier(field: jax.Array) -> jax.Array:
    """(..., n, n) real -> (..., n, n // 2 + 1) complex."""
    return jnp.fft.rfft2(field)


def to_physical(field_hat: jax.Array) -> jax.Array:
    """(..., n, n // 2 + 1) complex -> (..., n, n) real."""
    return jnp.fft.irfft2(field_hat)


def velocity_hat(vorticity_hat: jax.Array, grid: grids.Grid) -> tuple[jax.Array, jax.Array]:
    """Velocity (u, v) of zero mean with dv/dx - du/dy = vorticity, through the stream function psi = -lap^-1 w.

    u = d psi / dy, v = -d psi / dx. The mean vorticity has no velocity on a torus and is dropped.
    """
    kx, ky = wavenumbers(grid)
    lap = laplacian(grid)
    inverse = np.divide(-1.0, lap, out=np.zeros_like(lap), where=lap != 0)
    psi_hat = inverse * vorticity_hat
    return 1j * ky * psi_hat, -1j * kx * psi_hat


@functools.lru_cache(maxsize=32)
def _complex_velocity_symbol(grid: grids.Grid) -> np.ndarray:
    """From vorticity to U = u + i v on the full plane of modes: (kx + i ky) / k^2, dealiased, (n, n)."""
    n = grid.shape[0]
    kx = wavenumbers(grid)[0]
    lap = -(kx**2 + kx.T**2)
    inverse = np.divide(-1.0, lap, out=np.zeros_like(lap), where=lap != 0)
    kept = np.abs(np.fft.fftfreq(n, 1 / n)) < n / 3
    return (kx + 1j * kx.T) * inverse * (kept[:, None] & kept[None])


def _opposite(field_hat: jax.Array) -> jax.Array:
    """The value at -k on the full plane, (..., n, n)."""
    return jnp.roll(jnp.flip(field_hat, (-2, -1)), 1, (-2, -1))


def advection_hat(vorticity_hat: jax.Array, grid: grids.Grid) -> jax.Array:
    """-u.grad(w) in Fourier space, dealiased by the 2/3 rule; shape as `vorticity_hat`.

    Written as the curl of the momentum flux, -[(dxx - dyy)(u v) + dxy(v^2 - u^2)], which for a divergence-free u is the same
    Galerkin term. With the complex velocity U = u + i v it is -1/2 Im (dx - i dy)^2 U^2: two complex transforms in all.
    """
    n = grid.shape[0]
    half, rest = n // 2 + 1, n - n // 2 - 1
    kx, ky = wavenumbers(grid)
    conjugate = jnp.conj(jnp.roll(jnp.flip(vorticity_hat[..., 1 : rest + 1], (-2, -1)), 1, -2))
    full = jnp.concatenate([vorticity_hat, conjugate], axis=-1)
    velocity = jnp.fft.ifft2(full * _complex_velocity_symbol(grid).astype(full.dtype))
    flux = jnp.fft.fft2(velocity * velocity)
    here, there = flux[..., :half], jnp.conj(_opposite(flux)[..., :half])
    quarter = -0.25 * dealias_mask(grid)
    return 1j * (quarter * (kx**2 - ky**2)) * (here - there) + (quarter * 2 * kx * ky) * (here + there)


def advection(vorticity: jax.Array, grid: grids.Grid) -> jax.Array:
    """-u.grad(w) of physical fields (..., n, n): the mean of the closure H given w (units of vorticity / time)."""
    return to_physical(advection_hat(to_fourier(vorticity), grid))


@functools.lru_cache(maxsize=32)
def _shells(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Shell index of each half-plane mode, and how often it counts in the full plane."""
    ix = np.fft.fftfreq(n, 1 / n)[:, None]
    iy = np.fft.rfftfreq(n, 1 / n)[None, :]
    shell = np.rint(np.hypot(ix, iy)).astype(int)
    weight = np.where((iy == 0) | (iy == n // 2), 1.0, 2.0) * np.ones_like(ix)
    return shell, weight


def power_spectrum(field: jax.Array) -> jax.Array:
    """Variance of a real field by shell of integer wavenumber |k| L / (2 pi).

    Args:
      field: (..., n, n).
    Returns:
      (..., n // 2 + 1); shells beyond n / 2 (the corners) are left out. The sum over all shells is mean(field^2).
    """
    n = field.shape[-1]
    shell, weight = _shells(n)
    power = jnp.abs(to_fourier(field)) ** 2 * (weight / n**4)
    members = (shell[None] == np.arange(n // 2 + 1)[:, None, None]).astype(np.float32)
    return jnp.einsum("...xy,sxy->...s", power, members)


def energy_spectrum(vorticity: jax.Array, grid: grids.Grid) -> jax.Array:
    """Kinetic energy (u^2 + v^2) / 2 by shell, (..., n, n) -> (..., n // 2 + 1)."""
    u_hat, v_hat = velocity_hat(to_fourier(vorticity), grid)
    return 0.5 * (power_spectrum(to_physical(u_hat)) + power_spectrum(to_physical(v_hat)))


def enstrophy_spectrum(vorticity: jax.Array) -> jax.Array:
    """Enstrophy w^2 / 2 by shell, (..., n, n) -> (..., n // 2 + 1)."""
    return 0.5 * power_spectrum(vorticity)


def subsample(field: jax.Array, resolution: int) -> jax.Array:
    """Every (n / resolution)-th point of (..., n, n); `resolution` divides n."""
    stride = field.shape[-1] // resolution
    return field[..., ::stride, ::stride]
