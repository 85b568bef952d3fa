"""Large-eddy simulation of forced 2D turbulence: the solver keeps what its grid resolves, the closure is the rest.

    dw/dt = -u.grad(w) + nu lap(w) - mu w + f          on [0, L]^2, by a direct numerical simulation (DNS)
    f = -A k cos(k y)                                  the curl of the force (A sin(k y), 0), k = 2 pi m / L
    closure = filter(-u.grad(w)) - (-U.grad(W))        with W = filter(w) on the coarse grid, and U its velocity

so that dW/dt = -U.grad(W) + nu lap(W) - mu W + filter(f) + closure. The coarse grid keeps the advection of all modes that it
holds, by products on a grid of 3/2 as many points. Cut by the 2/3 rule it would leave to the closure to carry the smallest of
them along, which is large and fast, and no part of what is unresolved. The law of the closure given W is unknown: fine scales
that a coarse field does not decide make part of it random.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from closure_jax.coupling.draw import Draw, NoClosure
from closure_jax.errors import UserError, check, grid_size, not_negative, one_of, positive
from closure_jax.physics import spectral
from closure_jax.problems import baselines
from closure_jax.problems.base import Pairs, Solver, class_name
from closure_jax.problems.filtered_dns import DraggedFlow, FilteredDNS, closed_step
from closure_jax.problems.probe import equation_digest

FILTERS = ("gaussian", "sharp")


@dataclasses.dataclass(frozen=True)
class LargeEddies:
    """The problem; fields are the configuration's section `problem`, but for `stored_resolution`.

    Attributes:
      stored_resolution: points on a side of the coarse grid, where the closure lives.
      resolution: points on a side of the DNS.
      domain_length: L of the square [0, L]^2.
      dt: time step of the DNS.
      solver_dt: time step of the closed solver.
      viscosity: nu [length^2 / time].
      drag: mu [1 / time].
      forcing_amplitude: A of the force [length / time^2].
      forcing_wavenumber: m, whole periods of the forcing in the domain.
      filter: gaussian, exp(-k^2 D^2 / 24) with D = 2 L / stored_resolution; or sharp, all modes that the coarse grid holds.
      initial_vorticity: root mean square of the state that trajectories start from [1 / time].
      settling_time: in which other fine scales settle where a rollout starts; the default leaves the closure's residual as large
        as it is in the data (docs/les.md).
    """

    stored_resolution: int = 64
    resolution: int = 256
    domain_length: float = 2 * np.pi
    dt: float = 5e-3
    solver_dt: float = 1e-2
    viscosity: float = 5e-4
    drag: float = 0.1
    forcing_amplitude: float = 1.0
    forcing_wavenumber: int = 4
    filter: str = "gaussian"
    initial_vorticity: float = 5.0
    settling_time: float = 0.2

    def __post_init__(self) -> None:
        grid_size(self, "stored_resolution", "resolution")
        positive(self, "domain_length", "viscosity", "initial_vorticity", most=1e6)
        positive(self, "dt", "solver_dt", most=1)
        not_negative(self, "drag", "settling_time")
        one_of(self, "filter", FILTERS)
        check(self.dt >= 1e-9, f"dt={self.dt}: expected a time step of at least 1e-9")
        for name, least in (("solver_dt", 1), ("settling_time", 0)):
            value = getattr(self, name)
            check(
                abs(value / self.dt - round(value / self.dt)) < 1e-6 and round(value / self.dt) >= least,
                f"{name}={value}: expected a whole number of steps of the DNS, dt = {self.dt}",
            )
        check(
            0 < 3 * self.forcing_wavenumber < self.stored_resolution,
            f"forcing_wavenumber={self.forcing_wavenumber}: expected a whole number from 1 to less than a third of the coarse"
            f" grid's {self.stored_resolution} points",
        )
        self._coarse()  # what it refuses

    def _flow(self, resolution: int, filter_width: float, padded: bool) -> DraggedFlow:
        return DraggedFlow(
            spectral.make_grid(resolution, self.domain_length),
            self.viscosity,
            self.forcing_amplitude,
            self.forcing_wavenumber,
            drag=self.drag,
            filter_width=filter_width,
            padded=padded,
        )

    def _simulated(self) -> DraggedFlow:
        return self._flow(self.resolution, 0.0, padded=False)

    def _coarse(self) -> DraggedFlow:
        return self._flow(self.stored_resolution, self.width, padded=True)

    @property
    def width(self) -> float:
        """D of the Gaussian filter; 0 for the sharp one, whose transfer is 1."""
        return 2 * self.domain_length / self.stored_resolution if self.filter == "gaussian" else 0.0

    def reference(self) -> FilteredDNS:
        """The filtered DNS.

        Raises:
          UserError: the DNS resolves no more than the coarse grid.
        """
        check(
            2 * self.stored_resolution <= self.resolution,
            f"resolution={self.resolution}: expected at least twice data.resolution = {self.stored_resolution}, so that there is"
            " a subgrid term",
        )
        return FilteredDNS(
            self._simulated(),
            self._coarse(),
            self.dt,
            self.width,
            self.initial_vorticity,
            round(self.settling_time / self.dt),
        )

    def truth(self) -> FilteredDNS:
        """The filtered DNS again, from states whose fine scales are drawn anew."""
        return self.reference()

    def solver(self) -> Solver:
        """Advection of what is resolved, diffusion, drag and forcing on the coarse grid."""
        flow = self._coarse()
        return Solver(closed_step(flow, self.solver_dt), self.solver_dt, flow.grid, instantaneous=True)

    def law(self, vorticity: Float[np.ndarray, "states n n"]) -> None:
        """Nobody knows it."""
        return

    def baselines(self, pairs: Pairs) -> dict[str, Draw]:
        """The solver alone, and the classical closures, for which the filter's width is twice the grid's spacing."""
        grid = spectral.make_grid(self.stored_resolution, self.domain_length)
        width = 2 * self.domain_length / self.stored_resolution
        return {"none": NoClosure(), **baselines.classical(grid, width, pairs)}

    def regime(self, pairs: Pairs) -> dict[str, float]:
        """Mean enstrophy that the closure and that diffusion give to the resolved field, per unit of time.

        Raises:
          UserError: the closure takes less than diffusion does, so that the grid resolves the flow.
        """
        vorticity, closure = (pairs.fields(name, "train").astype(np.float64) for name in ("vorticity", "closure"))
        grid = spectral.make_grid(self.stored_resolution, self.domain_length)
        n, (_, weight) = self.stored_resolution, spectral.shells(self.stored_resolution)
        power = np.mean([np.abs(np.fft.rfft2(field)) ** 2 for field in vorticity], axis=0) * weight / n**4
        found = {
            "subgrid_enstrophy_transfer": float(np.mean(vorticity * closure)),
            "viscous_enstrophy_transfer": float(self.viscosity * np.sum(spectral.laplacian(grid) * power)),
        }
        subgrid, viscous = found.values()
        if abs(subgrid) < abs(viscous):
            raise UserError(
                f"--config.problem.viscosity={self.viscosity:g}: diffusion takes enstrophy at a rate of {-viscous:.3g}, the"
                f" subgrid term at one of {-subgrid:.3g}, which is no large-eddy simulation: expected a coarser"
                f" --config.data.resolution than {self.stored_resolution}, or a smaller viscosity"
            )
        return found

    def identity(self) -> dict[str, Any]:
        """All fields that make the data, and what the equation computes on both grids; neither the step of the closed solver nor
        how a rollout's truth begins is among them."""
        own = dataclasses.asdict(self)
        fine, stored = own.pop("resolution"), own.pop("stored_resolution")
        del own["solver_dt"], own["settling_time"]
        return {
            "problem": class_name(self),
            "solver_resolution": fine,
            "resolution": stored,
            **own,
            "equation": equation_digest(self._coarse()),
            "solver_equation": equation_digest(self._simulated()),
        }

    def physics(self) -> dict[str, Any]:
        """Without what made the data and does not enter rollouts."""
        left_out = ("solver_resolution", "resolution", "initial_vorticity", "solver_equation", "dt")
        return {name: value for name, value in self.identity().items() if name not in left_out}
