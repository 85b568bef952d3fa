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
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Key

from closure_jax import random
from closure_jax.coupling.advance import Independent, StepNumber, by_period
from closure_jax.coupling.draw import Draw, NoClosure
from closure_jax.errors import UserError, check, not_negative, one_of, positive
from closure_jax.physics import spectral, stepper
from closure_jax.physics.flow import KolmogorovFlow
from closure_jax.problems import baselines
from closure_jax.problems.base import Pairs, Solver, class_name
from closure_jax.problems.probe import equation_digest

FILTERS = ("gaussian", "sharp")
_INITIAL, _FINE = 2**31 - 1, 2**31 - 2  # folded into a key for the initial state, and for other fine scales


@dataclasses.dataclass(frozen=True)
class DraggedFlow(KolmogorovFlow):
    """Forced along x, with linear drag.

    Attributes:
      drag: mu [1 / time].
      filter_width: D of the Gaussian filter through which the force is seen; 0: none.
      padded: whether advection is that of all modes below half of the points, formed on a grid of 3/2 as many; else it is cut by
        the 2/3 rule.
    """

    drag: float = 0.1
    filter_width: float = 0.0
    padded: bool = False

    def advection_hat(self, state: Complex[Array, "*batch n half"]) -> Complex[Array, "*batch n n//2+1"]:
        """-u.grad(w)."""
        if not self.padded:
            return spectral.advection_hat(state, self.grid)
        n, length = self.grid.shape[0], self.grid.domain[0][1]
        finer = spectral.make_grid(2 * math.ceil(3 * n / 4), length)
        return on_grid(spectral.advection_hat(on_grid(state, finer.shape[0]), finer), n)

    def with_advection(self) -> "DraggedFlow":
        """The same flow, closed by its own advection."""
        return dataclasses.replace(self, closure=self.advection_hat)

    def forcing(self) -> np.ndarray:
        """f on the grid, (n, n); `forcing_amplitude` is A [length / time^2]."""
        n, length = self.grid.shape[0], self.grid.domain[0][1]
        wavenumber = 2 * np.pi * self.forcing_wavenumber / length
        seen = self.forcing_amplitude * np.exp(-((wavenumber * self.filter_width) ** 2) / 24)
        line = -seen * wavenumber * np.cos(2 * np.pi * self.forcing_wavenumber * np.arange(n) / n)
        return np.broadcast_to(line[None, :], (n, n))

    def implicit_terms(self, state: jax.Array) -> jax.Array:
        """(nu lap - mu) w."""
        return cast(jax.Array, (self.viscosity * spectral.laplacian(self.grid) - self.drag) * state)

    def implicit_solve(self, state: jax.Array, step_size: float) -> jax.Array:
        """Solves y - step_size (nu lap - mu) y = state for y."""
        return state / (1 - step_size * (self.viscosity * spectral.laplacian(self.grid) - self.drag))


def _step(flow: DraggedFlow, dt: float) -> stepper.Step:
    """Advection and closure by Runge-Kutta of fourth order, diffusion and drag by Crank-Nicolson; the closure stays, without what
    it has at half of the grid's points."""

    def step(vorticity_hat: spectral.FieldHat, closure_hat: spectral.FieldHat) -> Complex[Array, "*batch n n//2+1"]:
        held = jnp.asarray(closure_hat) * spectral.below_nyquist(flow.grid)

        def explicit(state: jax.Array) -> jax.Array:
            return flow.advection_hat(state) + held

        closed = dataclasses.replace(flow, closure=explicit)
        return stepper.STEPPERS["crank_nicolson_rk4"](closed, dt)(jnp.asarray(vorticity_hat))

    return step


def on_grid(field_hat: Complex[Array, "*batch n n//2+1"], size: int) -> Complex[Array, "*batch m m//2+1"]:
    """The transform on a grid of size^2 points: modes below half of the coarser grid's points are kept, others are 0."""
    n = field_hat.shape[-2]
    kept = min(n, size) // 2
    rows = jnp.concatenate([field_hat[..., :kept, :kept], field_hat[..., n - kept + 1 :, :kept]], axis=-2)
    padded = jnp.zeros((*field_hat.shape[:-2], size, size // 2 + 1), field_hat.dtype)
    padded = padded.at[..., :kept, :kept].set(rows[..., :kept, :])
    return padded.at[..., size - kept + 1 :, :kept].set(rows[..., kept:, :]) * (size / n) ** 2


@dataclasses.dataclass(frozen=True)
class FilteredDNS(Independent):
    """The DNS, seen through the filter: the `System` of the data and the `Dynamics` of the truth.

    States are vorticity_hat (*batch, N, N // 2 + 1) of the DNS.

    Attributes:
      flow, coarse: the equation on the grid of the DNS and on that of the closed solver.
      dt: time of one step.
      width: of the filter [length]; 0: the sharp one.
      initial_vorticity: root mean square of the state that trajectories start from.
      settling: steps in which other fine scales settle under resolved ones that are held.
    """

    flow: DraggedFlow
    coarse: DraggedFlow
    dt: float
    width: float
    initial_vorticity: float
    settling: int

    def _filtered(self, field_hat: Complex[Array, "*batch n half"]) -> Complex[Array, "*batch m m//2+1"]:
        grid = self.coarse.grid
        return on_grid(field_hat, grid.shape[0]) * baselines.gaussian(grid, self.width)

    def _random_hat(self, keys: Key[Array, "*batch"], part: int, most: float) -> Complex[Array, "*batch n n//2+1"]:
        """Random phases on modes up to `most`, of variance 1."""
        n = self.flow.grid.shape[0]
        index = np.hypot(np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None])
        mask = ((index > 0) & (index <= most)) * spectral.dealias_mask(self.flow.grid)

        def one(key: Key[Array, ""]) -> Array:
            field = spectral.to_physical(
                spectral.to_fourier(random.normal(jax.random.fold_in(key, part), (n, n))) * mask
            )
            return spectral.to_fourier(field / jnp.std(field))

        return jax.vmap(one)(keys.reshape(-1)).reshape(*keys.shape, n, n // 2 + 1)

    def initial(self, keys: Key[Array, " batch"]) -> Complex[Array, "batch n half"]:
        """Large random eddies, of wavenumbers up to twice that of the forcing."""
        return self.initial_vorticity * self._random_hat(keys, _INITIAL, 2 * self.flow.forcing_wavenumber)

    def advance(
        self, keys: Key[Array, "*batch"], state: Complex[Array, "*batch n half"], start: StepNumber, steps: int
    ) -> Complex[Array, "*batch n half"]:
        """The state `steps` (static) later; nothing is random but where it starts."""
        step = _step(self.flow, self.dt)
        return by_period(lambda now, _: step(now, jnp.zeros_like(now)), state, start, steps, 1)

    def vorticity(self, state: Complex[Array, "*batch n half"]) -> Float[Array, "*batch m m"]:
        """Filtered, on the coarse grid."""
        return spectral.to_physical(self._filtered(state))

    def observe(
        self, keys: Key[Array, " batch"], state: Complex[Array, "batch n half"], number: StepNumber
    ) -> tuple[Float[Array, "batch m m"], Float[Array, "batch m m"]]:
        """Filtered vorticity and the subgrid term."""
        filtered = self._filtered(state)
        subgrid = self._filtered(spectral.advection_hat(state, self.flow.grid))
        subgrid = subgrid - self.coarse.advection_hat(filtered)
        return spectral.to_physical(filtered), spectral.to_physical(subgrid)

    def begin(
        self, keys: Key[Array, "*batch"], vorticity: Float[Array, "*batch m m"]
    ) -> Complex[Array, "*batch n n//2+1"]:
        """A state of the DNS with this filtered vorticity, and fine scales of each key's own.

        They start as small random numbers and are let grow by the DNS for `settling` steps, after each of which the resolved
        modes are set back: they come to what the resolved field drives, but do not remember where it came from.
        """
        n, coarse = self.flow.grid.shape[0], self.coarse.grid
        unfiltered = spectral.to_fourier(vorticity) / baselines.gaussian(coarse, self.width)
        resolved = on_grid(unfiltered, n)
        is_resolved = on_grid(jnp.ones_like(unfiltered), n) != 0
        size = 0.1 * jnp.sqrt(jnp.mean(vorticity**2, axis=(-2, -1)))[..., None, None]
        fine = size * self._random_hat(keys, _FINE, n)
        step = _step(self.flow, self.dt)

        def settled(state: Array, _: StepNumber) -> Array:
            return jnp.where(is_resolved, resolved, step(state, jnp.zeros_like(state)))

        return by_period(settled, jnp.where(is_resolved, resolved, fine), 0, self.settling, 1)

    def alternatives(
        self, keys: Key[Array, " batch"], state: Complex[Array, "batch n half"]
    ) -> Complex[Array, "batch n n//2+1"]:
        """The same filtered field with other fine scales, see `begin`."""
        return self.begin(keys, self.vorticity(state))


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
      settling_time: in which other fine scales settle where a rollout starts.
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
    settling_time: float = 1.0

    def __post_init__(self) -> None:
        for name in ("stored_resolution", "resolution"):
            n = getattr(self, name)
            check(8 <= n <= 4096 and n % 2 == 0, f"{name}={n}: expected an even whole number from 8 to 4096")
        positive(self, "domain_length", "viscosity", "initial_vorticity", most=1e6)
        positive(self, "dt", "solver_dt", most=1)
        not_negative(self, "drag", "settling_time")
        one_of(self, "filter", FILTERS)
        check(self.dt >= 1e-9, f"dt={self.dt}: expected a time step of at least 1e-9")
        ratio = self.solver_dt / self.dt
        check(
            abs(ratio - round(ratio)) < 1e-6 and round(ratio) > 0,
            f"solver_dt={self.solver_dt}: expected a whole number of steps of the DNS, dt = {self.dt}",
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
        return Solver(_step(flow, self.solver_dt), self.solver_dt, flow.grid, instantaneous=True)

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
        """All fields that make the data, and what the equation computes on both grids; the step of the closed solver is not among
        them."""
        own = dataclasses.asdict(self)
        fine, stored = own.pop("resolution"), own.pop("stored_resolution")
        del own["solver_dt"]
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
        left_out = ("solver_resolution", "resolution", "initial_vorticity", "solver_equation", "dt", "settling_time")
        return {name: value for name, value in self.identity().items() if name not in left_out}
