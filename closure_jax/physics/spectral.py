"""Fourier-space kinematics of doubly periodic fields.

Convention: a field of shape (..., n, n) is sampled at x_i = i L / n, first axis x, second axis y. Its transform
`field_hat = jnp.fft.rfft2(field)` has shape (..., n, n // 2 + 1) and is not normalised.
"""

import functools
import math
from typing import overload

import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids
from jaxtyping import Array, Complex, Float, Int

Field = Float[Array | np.ndarray, "*batch n n"]
"""Real fields, of JAX or of NumPy."""

FieldHat = Complex[Array | np.ndarray, "*batch n n//2+1"]
"""Their transforms, not normalised."""


def make_grid(resolution: int, domain_length: float) -> grids.Grid:
    """A square periodic `jax_cfd` grid of `resolution`^2 points on [0, domain_length]^2."""
    return grids.Grid((resolution, resolution), domain=((0.0, domain_length), (0.0, domain_length)))


@functools.lru_cache(maxsize=32)
def wavenumbers(grid: grids.Grid) -> tuple[Float[np.ndarray, "n 1"], Float[np.ndarray, "1 half"]]:
    """Angular wavenumbers (kx, ky) [rad / length], shapes (n, 1) and (1, n // 2 + 1)."""
    n = grid.shape[0]
    length = grid.domain[0][1] - grid.domain[0][0]
    kx = 2 * np.pi * np.fft.fftfreq(n, length / n)[:, None]
    ky = 2 * np.pi * np.fft.rfftfreq(n, length / n)[None, :]
    return kx, ky


@functools.lru_cache(maxsize=32)
def laplacian(grid: grids.Grid) -> Float[np.ndarray, "n n//2+1"]:
    """Symbol of the Laplacian, -(kx^2 + ky^2), shape (n, n // 2 + 1)."""
    kx, ky = wavenumbers(grid)
    return -(kx**2 + ky**2)


@functools.lru_cache(maxsize=32)
def dealias_mask(grid: grids.Grid) -> Float[np.ndarray, "n n//2+1"]:
    """The 2/3 rule: 1 on the modes with |index| < n / 3 in both directions, 0 elsewhere."""
    return _below(grid.shape[0], grid.shape[0] / 3)


@functools.lru_cache(maxsize=32)
def below_nyquist(grid: grids.Grid) -> Float[np.ndarray, "n n//2+1"]:
    """1 on the modes with |index| < n / 2 in both directions, 0 elsewhere: those that have a conjugate of their own."""
    return _below(grid.shape[0], grid.shape[0] / 2)


def _below(n: int, limit: float) -> Float[np.ndarray, "{n} {n}//2+1"]:
    """1 on the modes with |index| < limit in both directions, 0 elsewhere."""
    ix = np.abs(np.fft.fftfreq(n, 1 / n))[:, None]
    iy = np.abs(np.fft.rfftfreq(n, 1 / n))[None, :]
    return ((ix < limit) & (iy < limit)).astype(np.float64)


def to_fourier(field: Field) -> Complex[Array, "*batch n n//2+1"]:
    """The transform of real fields; not normalised."""
    return jnp.fft.rfft2(field)


def to_physical(field_hat: FieldHat) -> Float[Array, "*batch n n"]:
    """The real fields of which this is the transform; n is even."""
    return jnp.fft.irfft2(field_hat)


def padded(grid: grids.Grid) -> grids.Grid:
    """A grid of 3/2 as many points on a side, on which a product of two fields of the grid does not alias into it."""
    return make_grid(2 * math.ceil(3 * grid.shape[0] / 4), grid.domain[0][1])


def on_grid(field_hat: FieldHat, size: int) -> Complex[Array, "*batch m m//2+1"]:
    """The transform on a grid of size^2 points: modes below half of the coarser grid's points are kept, others are 0."""
    n = field_hat.shape[-2]
    kept = min(n, size) // 2
    rows = jnp.concatenate([field_hat[..., :kept, :kept], field_hat[..., n - kept + 1 :, :kept]], axis=-2)
    padded = jnp.zeros((*field_hat.shape[:-2], size, size // 2 + 1), field_hat.dtype)
    padded = padded.at[..., :kept, :kept].set(rows[..., :kept, :])
    return padded.at[..., size - kept + 1 :, :kept].set(rows[..., kept:, :]) * (size / n) ** 2


def velocity_hat(
    vorticity_hat: FieldHat, grid: grids.Grid
) -> tuple[Complex[Array, "*batch n n//2+1"], Complex[Array, "*batch n n//2+1"]]:
    """Velocity (u, v) of zero mean with dv/dx - du/dy = vorticity, through the stream function psi = -lap^-1 w.

    u = d psi / dy, v = -d psi / dx. The mean vorticity has no velocity on a torus and is dropped.
    """
    kx, ky = wavenumbers(grid)
    lap = laplacian(grid)
    inverse = np.divide(-1.0, lap, out=np.zeros_like(lap), where=lap != 0)
    psi_hat = jnp.asarray(vorticity_hat) * inverse
    return psi_hat * (1j * ky), psi_hat * (-1j * kx)


@functools.lru_cache(maxsize=32)
def _complex_velocity_symbol(grid: grids.Grid) -> Complex[np.ndarray, "n n"]:
    """From vorticity to U = u + i v on the full plane of modes: (kx + i ky) / k^2, dealiased, (n, n)."""
    n = grid.shape[0]
    kx = wavenumbers(grid)[0]
    lap = -(kx**2 + kx.T**2)
    inverse = np.divide(-1.0, lap, out=np.zeros_like(lap), where=lap != 0)
    kept = np.abs(np.fft.fftfreq(n, 1 / n)) < n / 3
    return (kx + 1j * kx.T) * inverse * (kept[:, None] & kept[None])


def _opposite(field_hat: Complex[Array, "*batch n n"]) -> Complex[Array, "*batch n n"]:
    """The value at -k on the full plane."""
    return jnp.roll(jnp.flip(field_hat, (-2, -1)), 1, (-2, -1))


def advection_hat(vorticity_hat: FieldHat, grid: grids.Grid) -> Complex[Array, "*batch n n//2+1"]:
    """-u.grad(w) in Fourier space, dealiased by the 2/3 rule.

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
    return (here - there) * (1j * (quarter * (kx**2 - ky**2))) + (here + there) * (quarter * 2 * kx * ky)


def advection(vorticity: Field, grid: grids.Grid) -> Float[Array, "*batch n n"]:
    """-u.grad(w) of physical fields: the mean of the closure H given w (units of vorticity / time)."""
    return to_physical(advection_hat(to_fourier(vorticity), grid))


@functools.lru_cache(maxsize=32)
def shells(n: int) -> tuple[Int[np.ndarray, "{n} {n}//2+1"], Float[np.ndarray, "{n} {n}//2+1"]]:
    """Shell index of each half-plane mode, and how often it counts in the full plane."""
    ix = np.fft.fftfreq(n, 1 / n)[:, None]
    iy = np.fft.rfftfreq(n, 1 / n)[None, :]
    shell = np.rint(np.hypot(ix, iy)).astype(int)
    weight = np.where((iy == 0) | (iy == n // 2), 1.0, 2.0) * np.ones_like(ix)
    return shell, weight


def power_spectrum(field: Field) -> Float[Array, "*batch n//2+1"]:
    """Variance of a real field by shell of integer wavenumber |k| L / (2 pi), from 0 to n / 2.

    The sum over all shells is mean(field^2); those beyond n / 2 (the corners) are left out.
    """
    n = field.shape[-1]
    shell, weight = shells(n)
    power = jnp.abs(to_fourier(field)) ** 2 * (weight / n**4)
    members = (shell[None] == np.arange(n // 2 + 1)[:, None, None]).astype(np.float32)
    return jnp.einsum("...xy,sxy->...s", power, members, precision="highest")


def energy_spectrum(vorticity: Field, grid: grids.Grid) -> Float[Array, "*batch n//2+1"]:
    """Kinetic energy (u^2 + v^2) / 2 by shell."""
    u_hat, v_hat = velocity_hat(to_fourier(vorticity), grid)
    return 0.5 * (power_spectrum(to_physical(u_hat)) + power_spectrum(to_physical(v_hat)))


def enstrophy_spectrum(vorticity: Field) -> Float[Array, "*batch n//2+1"]:
    """Enstrophy w^2 / 2 by shell."""
    return 0.5 * power_spectrum(vorticity)


@overload
def subsample(
    field: Float[Array, "*batch n n"], resolution: int
) -> Float[Array, "*batch {resolution} {resolution}"]: ...
@overload
def subsample(
    field: Float[np.ndarray, "*batch n n"], resolution: int
) -> Float[np.ndarray, "*batch {resolution} {resolution}"]: ...
def subsample(field: Field, resolution: int) -> Float[Array | np.ndarray, "*batch {resolution} {resolution}"]:
    """Every (n / resolution)-th point; `resolution` divides n."""
    stride = field.shape[-1] // resolution
    return field[..., ::stride, ::stride]
