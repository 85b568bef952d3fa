"""Stochastic Kolmogorov flow, closed by all of its advection and noise (arXiv 2602.17089, section 2).

    dw/dt = H + nu lap(w) + f,        H | w ~ Normal(-u.grad(w), covariance of sigma dW/dt)

The solver owns diffusion and forcing. Data come from a finer grid; rollouts are compared to the same equation on the closed
solver's grid.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import numpy as np
from jax_cfd.base import grids
from jaxtyping import Array, Complex, Float, Key

from closure_jax.coupling.advance import Independent, StepNumber, by_period
from closure_jax.coupling.draw import Draw, NoClosure
from closure_jax.errors import UserError, check, grid_size
from closure_jax.physics import spectral, stepper
from closure_jax.physics.flow import FLOWS, KolmogorovFlow, exact_closure
from closure_jax.physics.noise import GaussianRandomField, QWienerNoise
from closure_jax.problems.base import Law, Pairs, Solver, class_name
from closure_jax.problems.probe import equation_digest

_INITIAL = 2**31 - 1  # folded into a trajectory's key for its initial state
_BUILT = ("grid", "closure")  # fields of a flow that are not configuration
_NOISE_OFF = 0.01  # of its deviation, by which the noise of data may differ from the law's


@dataclasses.dataclass(frozen=True)
class ExactLaw:
    """The true closure as a draw: -u.grad(w), and sigma dW/dt from the standard normal numbers of its modes.

    Attributes:
      grid: of the fields.
      process: the noise; None leaves it out, which gives the exact mean.
    """

    grid: grids.Grid
    process: QWienerNoise | None

    linear_in_noise: ClassVar[bool] = True

    def noise(self, keys: Key[Array, " batch"], vorticity: Float[Array, "batch n n"]) -> Any:
        """(batch, 2, modes x, modes y) standard normal; () without noise."""
        if self.process is None:
            return ()
        process = self.process
        return jax.vmap(lambda key: process.normals(key, vorticity.dtype))(keys)

    def draw(self, noise: Any, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure that the noise stands for."""
        closure_hat = spectral.advection_hat(spectral.to_fourier(vorticity), self.grid)
        if self.process is not None:
            closure_hat = closure_hat + jax.vmap(self.process.field_hat)(noise)
        return spectral.to_physical(closure_hat)

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """-u.grad(w)."""
        return spectral.advection(vorticity, self.grid)


@dataclasses.dataclass(frozen=True)
class StochasticFlow(Independent):
    """The flow with its exact closure, a fresh draw each step: the `System` of the data and the `Dynamics` of the truth.

    States are vorticity_hat (*batch, n, n // 2 + 1): batch is one axis of a system, (state, member) of dynamics.

    Attributes:
      flow: diffusion and forcing.
      process: noise of the closure; its dt is that of the steps.
      field: initial vorticity.
      stored_resolution: grid on which the system is observed.
    """

    flow: KolmogorovFlow
    process: QWienerNoise
    field: GaussianRandomField
    stored_resolution: int

    @property
    def dt(self) -> float:
        """Time of one step."""
        return self.process.dt

    def initial(self, keys: Key[Array, " batch"]) -> Complex[Array, "batch n half"]:
        """Gaussian random fields, band-limited as the solver is."""
        mask = spectral.dealias_mask(self.flow.grid).astype(np.float32)
        return jax.vmap(lambda key: self.field.sample_hat(jax.random.fold_in(key, _INITIAL)))(keys) * mask

    def begin(
        self, keys: Key[Array, "*batch"], vorticity: Float[Array, "*batch n n"]
    ) -> Complex[Array, "*batch n half"]:
        """The state of a vorticity."""
        return spectral.to_fourier(vorticity)

    def advance(
        self, keys: Key[Array, "*batch"], state: Complex[Array, "*batch n half"], start: StepNumber, steps: int
    ) -> Complex[Array, "*batch n half"]:
        """The state `steps` (static) later; the draw of a step is that of fold_in(key, number of the step)."""
        step = stepper.euler_maruyama(self.flow, self.dt)
        flat = keys.reshape(-1)

        def body(vorticity_hat: Array, number: StepNumber) -> Array:
            closure_hat = self._closure_hat(flat, vorticity_hat, number)
            # as `Coupled` steps, so that XLA rounds alike: fused into one loop, the last digit differs
            return stepper.repeated(lambda vorticity_hat: step(vorticity_hat, closure_hat), 1)(vorticity_hat)

        return by_period(body, state.reshape(-1, *state.shape[-2:]), start, steps, 1).reshape(state.shape)

    def _closure_hat(
        self, keys: Key[Array, " batch"], vorticity_hat: Complex[Array, "batch n half"], number: StepNumber
    ) -> Complex[Array, "batch n half"]:
        now = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        return exact_closure(self.flow.grid, self.process)(now, vorticity_hat)

    def vorticity(self, state: Complex[Array, "*batch n half"]) -> Float[Array, "*batch n n"]:
        """On the solver's grid."""
        return spectral.to_physical(state)

    def observe(
        self, keys: Key[Array, " batch"], state: Complex[Array, "batch n half"], number: StepNumber
    ) -> tuple[Float[Array, "batch r r"], Float[Array, "batch r r"]]:
        """Vorticity and closure at every (n / r)-th point: a draw from p(H | w) with the noise of one step."""
        fields = spectral.to_physical(state), spectral.to_physical(self._closure_hat(keys, state, number))
        vorticity, closure = (spectral.subsample(field, self.stored_resolution) for field in fields)
        return vorticity, closure


@dataclasses.dataclass(frozen=True)
class Kolmogorov:
    """The problem; fields are the configuration's section `problem`, but for `flow`, a piece of its own, and `stored_resolution`.

    Attributes:
      flow: equation of diffusion and forcing; its grid is set here.
      stored_resolution: points on a side where data are stored, the closure lives and rollouts run.
      resolution: points on a side of the solver that makes the data.
      domain_length: L of the square [0, L]^2.
      dt: time step of every solver.
      noise_sigma, noise_kappa, noise_alpha: amplitude, variance, smoothing [length^2] of the noise; see `QWienerNoise`.
      initial_alpha, initial_tau: spectrum of the initial vorticity; see `GaussianRandomField`.
    """

    flow: KolmogorovFlow = dataclasses.field(
        default=KolmogorovFlow(),
        metadata={"table": FLOWS, "default": "kolmogorov", "sets": _BUILT, "interface": KolmogorovFlow},
    )
    stored_resolution: int = 64
    resolution: int = 256
    domain_length: float = 1.0
    dt: float = 1e-3
    noise_sigma: float = 5e-5
    noise_kappa: float = 10.0
    noise_alpha: float = 0.005
    initial_alpha: float = 2.5
    initial_tau: float = 7.0

    def __post_init__(self) -> None:
        grid_size(self, "stored_resolution", "resolution")
        for name in ("domain_length", "noise_kappa", "noise_alpha", "initial_alpha", "initial_tau"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"{name}={value}: expected a number above 0")
        check(1e-9 <= self.dt < math.inf, f"dt={self.dt}: expected a time step of at least 1e-9")
        sigma, wavenumber = self.noise_sigma, self.flow.forcing_wavenumber
        check(0 <= sigma < math.inf, f"noise_sigma={sigma}: expected a number that is not negative")
        check(
            3 * wavenumber < min(self.resolution, self.stored_resolution),
            f"resolution={self.resolution}: expected it and the stored resolution, {self.stored_resolution}, to be more than"
            f" three times the forcing's wavenumber, {wavenumber}: other modes are cut",
        )
        twice = {f.name for f in dataclasses.fields(self)} & {f.name for f in dataclasses.fields(self.flow)}
        if twice:
            raise UserError(
                f"{class_name(self.flow)} has a field {min(twice)}: expected a name that the problem has not"
            )
        object.__setattr__(self, "flow", self._flow_on(self.stored_resolution))

    def _flow_on(self, resolution: int) -> KolmogorovFlow:
        return dataclasses.replace(self.flow, grid=spectral.make_grid(resolution, self.domain_length))

    def _process(self, grid: grids.Grid) -> QWienerNoise:
        return QWienerNoise(grid, self.noise_sigma, self.noise_kappa, self.noise_alpha, self.dt)

    def _system(self, resolution: int) -> StochasticFlow:
        flow = self._flow_on(resolution)
        field = GaussianRandomField(flow.grid, self.initial_alpha, self.initial_tau)
        return StochasticFlow(flow, self._process(flow.grid), field, self.stored_resolution)

    def reference(self) -> StochasticFlow:
        """The flow on the fine grid.

        Raises:
          UserError: the stored grid's points are not all among those of the fine grid, or its modes don't hold the noise.
        """
        fine, stored = self.resolution, self.stored_resolution
        check(
            fine % stored == 0,
            f"resolution={fine}: expected a multiple of data.resolution = {stored}, since every n-th point is stored",
        )
        system = self._system(fine)
        self._check_noise(system.process)
        return system

    def _check_noise(self, fine: QWienerNoise) -> None:
        """Raises UserError where the noise of the fine grid, at the points that are stored, is not that of the law.

        Modes that both grids hold are alike; those that the fine grid alone holds appear among them.
        """
        if self.resolution == self.stored_resolution:
            return
        drawn, law = fine.standard_deviation(), self._process(self.flow.grid).standard_deviation()
        check(
            abs(drawn - law) <= _NOISE_OFF * drawn,
            f"noise_alpha={self.noise_alpha}: the noise at a point has a deviation of {drawn:.4g} on the grid of the data,"
            f" resolution = {self.resolution}, and {law:.4g} by the law on that of the closure, data.resolution ="
            f" {self.stored_resolution}: expected the same within 1 %; smoother noise, or a finer data.resolution",
        )

    def truth(self) -> StochasticFlow:
        """The flow with its exact closure on the stored grid."""
        return self._system(self.stored_resolution)

    def solver(self) -> Solver:
        """Diffusion and forcing on the stored grid, by the published step."""
        return Solver(stepper.euler_maruyama(self.flow, self.dt), self.dt, self.flow.grid)

    def law(self, vorticity: Float[np.ndarray, "states n n"]) -> Law:
        """Normal, with -u.grad(w) as mean and the same noise at every state."""
        process = self._process(self.flow.grid)
        mean = np.asarray(jax.jit(spectral.advection, static_argnums=1)(vorticity, self.flow.grid))
        return Law(mean, process.standard_deviation(), process.shell_spectrum())

    def exact(self) -> ExactLaw:
        """The true closure on the stored grid, as a solver takes it."""
        return ExactLaw(self.flow.grid, self._process(self.flow.grid))

    def baselines(self, pairs: Pairs) -> dict[str, Draw]:
        """The solver alone, and closed by the exact mean without noise."""
        return {"none": NoClosure(), "exact_mean": ExactLaw(self.flow.grid, None)}

    def identity(self) -> dict[str, Any]:
        """All fields of the problem and of the flow, their classes, and what the equation computes on both grids."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "flow"}
        of_flow = {f.name: getattr(self.flow, f.name) for f in dataclasses.fields(self.flow) if f.name not in _BUILT}
        fine, stored = own.pop("resolution"), own.pop("stored_resolution")
        return {
            "problem": class_name(self),
            "flow_class": class_name(self.flow),
            "solver_resolution": fine,
            "resolution": stored,
            **own,
            **of_flow,
            "equation": equation_digest(self.flow),
            "solver_equation": equation_digest(self._flow_on(fine)),
        }

    def physics(self) -> dict[str, Any]:
        """Without the solver that made the data and how its trajectories began."""
        left_out = ("solver_resolution", "resolution", "initial_alpha", "initial_tau", "solver_equation")
        return {name: value for name, value in self.identity().items() if name not in left_out}
