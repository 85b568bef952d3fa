"""Scales of a flow: how fast, how large and how turbulent it is, as a researcher asks first."""

import math

import numpy as np
from jax_cfd.base import grids

from closure_jax.physics import spectral


def of_flow(vorticity: np.ndarray, grid: grids.Grid, dt: float, viscosity: float | None) -> dict[str, float | None]:
    """Means over all fields, in the units of length and time of the domain and the viscosity.

    Args:
      vorticity: (count, n, n).
      grid: of the fields.
      dt: step of the solver that runs on it.
      viscosity: nu; None where the problem has none.
    Returns:
      By name: `rms_vorticity`; `rms_velocity` U, the root of the mean of |u|^2; `largest_velocity`, of |u|; `integral_length`
      L = 2 pi sum(E / k) / sum(E) over shells k of the energy E; `reynolds` U L / nu, None without viscosity; `cfl`, the largest
      |u| dt over the distance of two points; `turnover_time` 2 pi / rms(w).
    """
    u, v = (np.asarray(spectral.to_physical(part)) for part in spectral.velocity_hat(np.fft.rfft2(vorticity), grid))
    square = u.astype(np.float64) ** 2 + v.astype(np.float64) ** 2
    energy = np.asarray(spectral.energy_spectrum(vorticity, grid), np.float64).mean(axis=0)[1:]
    length, rms = grid.domain[0][1] - grid.domain[0][0], float(np.sqrt(np.mean(vorticity.astype(np.float64) ** 2)))
    shells = np.arange(1, len(energy) + 1)
    eddies = float(length * np.sum(energy / shells) / np.sum(energy)) if energy.any() else math.nan
    speed, fastest = float(np.sqrt(square.mean())), float(np.sqrt(square.max()))
    return {
        "rms_vorticity": rms,
        "rms_velocity": speed,
        "largest_velocity": fastest,
        "integral_length": eddies,
        "reynolds": speed * eddies / viscosity if viscosity else None,
        "cfl": fastest * dt * grid.shape[0] / length,
        "turnover_time": 2 * math.pi / rms if rms > 0 else math.nan,
    }
