"""Statistics of the vorticity over a whole rollout, and how far a model's are from the truth's: what a long run is judged by.

Fields are (time, states, members, n, n), the start left out. Definitions follow what is usual for closures of 2D turbulence
(Ross et al., J. Adv. Model. Earth Syst. 15, 2023; Guan and Hassanzadeh, arXiv 2409.04985).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids

from closure_jax.data.batches import in_blocks
from closure_jax.physics import spectral

_BINS = 80
_RARE = 1e-4
"""Probability density [time] of the truth's vorticity at which tails are compared."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Means over all times and runs of an ensemble; nan where some field is not finite.

    Attributes:
      enstrophy: w^2 / 2 by shell of integer wavenumber, (n // 2 + 1,).
      flux: enstrophy that the resolved advection, cut by the 2/3 rule, takes from all shells up to each, per time, (n // 2 + 1,);
        so for a solver that keeps its smallest modes too, whose own flux differs in the last shells.
      edges: of bins of vorticity, over the truth's range.
      density: probability density of vorticity in each bin, of all values, those beyond the edges too.
      values: how many values the density is made of.
      decorrelation_time: first zero of the autocorrelation in time about the mean over times and runs, between recorded times by
        a straight line; nan where it has none within a quarter of the rollout: what is taken for the mean of a short one makes
        a zero of its own.
    """

    enstrophy: np.ndarray
    flux: np.ndarray
    edges: np.ndarray
    density: np.ndarray
    values: int
    decorrelation_time: float

    @classmethod
    def of(cls, fields: np.ndarray, grid: grids.Grid, interval: float, edges: np.ndarray | None = None) -> "Statistics":
        """Of the fields of one ensemble.

        Args:
          fields: (time, states, members, n, n), vorticity.
          grid: of the fields.
          interval: time between two of them.
          edges: of bins; None: over the range of these fields.
        """
        flat = fields.reshape(-1, *fields.shape[3:])
        if not np.isfinite(flat).all():
            gone = np.full(grid.shape[0] // 2 + 1, np.nan)
            edges = np.linspace(-1, 1, _BINS + 1) if edges is None else edges
            return cls(gone, gone, edges, np.full(len(edges) - 1, np.nan), 0, float("nan"))
        edges = np.linspace(flat.min(), flat.max(), _BINS + 1) if edges is None else edges
        spectra = in_blocks(functools.partial(_spectra, grid), flat)
        enstrophy, transfer = spectra.mean(axis=0, dtype=np.float64)
        counts, _ = np.histogram(flat, edges)
        density = counts / (flat.size * np.diff(edges))
        return cls(enstrophy, -np.cumsum(transfer), edges, density, flat.size, decorrelation_time(fields, interval))

    @property
    def inertial(self) -> slice:
        """Shells from 1 to a third of the points of a line: those that advection does not cut."""
        return slice(1, 2 * (len(self.enstrophy) - 1) // 3 + 1)


@functools.partial(jax.jit, static_argnums=0)
def _spectra(grid: grids.Grid, vorticity: jax.Array) -> jax.Array:
    """Enstrophy by shell and what resolved advection gives to each per time, (count, 2, n // 2 + 1)."""
    n = grid.shape[0]
    shell, weight = spectral.shells(n)
    w_hat = spectral.to_fourier(vorticity)
    products = jnp.stack(
        [0.5 * jnp.abs(w_hat) ** 2, jnp.real(jnp.conj(w_hat) * spectral.advection_hat(w_hat, grid))], axis=1
    )
    members = (shell[None] == np.arange(n // 2 + 1)[:, None, None]).astype(np.float32)
    return jnp.einsum("...xy,sxy->...s", products * (weight / n**4), members, precision="highest")


def decorrelation_time(fields: np.ndarray, interval: float) -> float:
    """See `Statistics`; fields are (time, ...), all axes behind the first two but the plane are runs."""
    departure = fields - fields.mean(axis=tuple(range(fields.ndim - 2)), dtype=np.float64)
    correlation = [
        float(np.mean(departure[: len(departure) - lag] * departure[lag:]))
        for lag in range(max(1, len(departure) // 4 + 1))
    ]
    for lag in range(1, len(correlation)):
        before, now = correlation[lag - 1], correlation[lag]
        if now <= 0 < before:
            return interval * (lag - 1 + before / (before - now))
    return float("nan")


def spectrum_error(model: Statistics, truth: Statistics) -> float:
    """Root mean square over shells from 1 to n / 3 of the log ratio of enstrophy."""
    shells = truth.inertial
    ratio = np.maximum(model.enstrophy[shells], 1e-30) / np.maximum(truth.enstrophy[shells], 1e-30)
    return float(np.sqrt(np.mean(np.log(ratio) ** 2)))


def enstrophy_flux_error(model: Statistics, truth: Statistics) -> float:
    """Largest difference of the fluxes over shells from 1 to n / 3, over the truth's largest one."""
    shells = truth.inertial
    largest = np.abs(truth.flux[shells]).max()
    return float(np.abs(model.flux[shells] - truth.flux[shells]).max() / largest) if largest > 0 else float("nan")


def tail_error(model: Statistics, truth: Statistics) -> float:
    """|log| of the ratio of densities where the truth's falls to 1e-4, the larger of both tails.

    A tail in which the model has no value at all is counted as half of one.
    """
    if not model.values:
        return float("nan")
    common = np.flatnonzero(truth.density >= _RARE)
    if not common.size:
        return float("nan")
    half = 0.5 / (model.values * np.diff(truth.edges))
    ends = common[[0, -1]]
    return float(np.abs(np.log(np.maximum(model.density, half)[ends] / truth.density[ends])).max())
