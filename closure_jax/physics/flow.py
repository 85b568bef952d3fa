"""2D stochastic Kolmogorov flow in vorticity form, with the closure as one term of the right-hand side.

    dw/dt = H(w) + nu lap(w) + f,        H(w) = -u.grad(w) + sigma dW/dt
    f = A (sin 2 pi m (x + y) / L + cos 2 pi m (x + y) / L)

The solver owns diffusion and forcing; H is exact, a model's, or none (arXiv 2602.17089, section 2).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jax_cfd.base import grids
from jax_cfd.spectral.time_stepping import ImplicitExplicitODE

from closure_jax.errors import check
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral

ClosureTerm = Callable[[jax.Array], jax.Array]
"""vorticity_hat (..., n, n // 2 + 1) -> closure_hat of the same shape."""

ClosureSampler = Callable[[jax.Array, jax.Array], jax.Array]
"""(keys (batch,), vorticity_hat (batch, n, n // 2 + 1)) -> closure_hat: one random closure for each member."""


@dataclasses.dataclass(frozen=True)
class KolmogorovFlow(ImplicitExplicitODE):
    """The equation as `jax_cfd` steppers want it: explicit closure and forcing, implicit diffusion.

    A fork subclasses it, adds fields with defaults (a linear drag, say) and overrides `forcing`, `implicit_terms` and
    `implicit_solve`; `FLOWS` finds it by name. All fields but `grid` and `closure` are configuration.

    Attributes:
      grid: square periodic grid, see `spectral.make_grid`; a problem sets its own in place of the published one.
      viscosity: nu [length^2 / time].
      forcing_amplitude: A [1 / time^2].
      forcing_wavenumber: m, whole periods of the forcing in the domain.
      closure: deterministic closure term; None leaves it out. `with_advection` gives the exact mean.
    Raises:
      UserError: a number that the equation cannot have; numbers that jax traces are not looked at.
    """

    grid: grids.Grid = spectral.make_grid(64, 1.0)
    viscosity: float = 1e-3
    forcing_amplitude: float = 0.1
    forcing_wavenumber: int = 1
    closure: ClosureTerm | None = None

    def __post_init__(self) -> None:
        nu, amplitude, wavenumber = self.viscosity, self.forcing_amplitude, self.forcing_wavenumber
        if _is_known(nu):
            check(math.isfinite(nu) and nu >= 0, f"viscosity={nu}: expected a number that is not negative")
        if _is_known(amplitude):
            check(math.isfinite(amplitude), f"forcing_amplitude={amplitude}: expected a finite number")
        check(wavenumber > 0, f"forcing_wavenumber={wavenumber}: expected a whole number above 0")

    def with_advection(self) -> "KolmogorovFlow":
        """The same flow, closed by -u.grad(w): the deterministic Navier-Stokes equation."""
        return dataclasses.replace(self, closure=lambda w_hat: spectral.advection_hat(w_hat, self.grid))

    def forcing(self) -> np.ndarray:
        """f on the grid, (n, n)."""
        n = self.grid.shape[0]
        phase = 2 * np.pi * self.forcing_wavenumber * (np.arange(2 * n - 1) / n)  # depends on x + y alone
        line = self.forcing_amplitude * (np.sin(phase) + np.cos(phase))
        return np.lib.stride_tricks.sliding_window_view(line, n)

    def forcing_hat(self) -> np.ndarray:
        """Transform of f, (n, n // 2 + 1): its one mode, with the rounding in the others removed."""
        forcing_hat = np.fft.rfft2(self.forcing())
        size = np.abs(forcing_hat)
        return np.where(size > 1e-6 * size.max(), forcing_hat, 0)

    def explicit_terms(self, state: jax.Array) -> jax.Array:
        """forcing + closure, (..., n, n // 2 + 1)."""
        forcing_hat = self.forcing_hat().astype(state.dtype)
        closure_hat = 0 * state if self.closure is None else self.closure(state)
        return cast(jax.Array, forcing_hat + closure_hat)  # NumPy's types don't say that the sum is of jax

    def implicit_terms(self, state: jax.Array) -> jax.Array:
        """nu lap(w), (..., n, n // 2 + 1)."""
        # NumPy's types don't say that an array of jax makes the product one of jax
        return cast(jax.Array, (self.viscosity * spectral.laplacian(self.grid)) * state)

    def implicit_solve(self, state: jax.Array, step_size: float) -> jax.Array:
        """Solves y - step_size nu lap(y) = state for y."""
        return state / (1 - step_size * self.viscosity * spectral.laplacian(self.grid))


def _is_known(number: Any) -> bool:
    """Whether it is a Python number, not one that jax traces."""
    return isinstance(number, int | float)


def exact_closure(grid: grids.Grid, noise: noise_lib.QWienerNoise | None) -> ClosureSampler:
    """The true law p(H | w) = Normal(-u.grad(w), noise covariance) as a sampler; None leaves the noise out."""

    def sample(keys: jax.Array, vorticity_hat: jax.Array) -> jax.Array:
        mean_hat = spectral.advection_hat(vorticity_hat, grid)
        if noise is None:
            return mean_hat
        draw = noise.sample_hat
        return mean_hat + jax.vmap(lambda key: draw(key, mean_hat.real.dtype))(keys)

    return sample


FLOWS: dict[str, type[KolmogorovFlow]] = {"kolmogorov": KolmogorovFlow}
"""Flows by the name that the configuration gives (`flow.kind`)."""
