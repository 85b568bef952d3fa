"""A direct numerical simulation of forced 2D turbulence, seen through a filter on a coarse grid; see `les`."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Key

from closure_jax import random
from closure_jax.coupling.advance import Independent, StepNumber, by_period
from closure_jax.physics import spectral, stepper
from closure_jax.physics.flow import KolmogorovFlow
from closure_jax.problems import baselines

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
        finer = spectral.padded(self.grid)
        fine_hat = spectral.advection_hat(spectral.on_grid(state, finer.shape[0]), finer)
        return spectral.on_grid(fine_hat, self.grid.shape[0])

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


def closed_step(flow: DraggedFlow, dt: float) -> stepper.Step:
    """Advection and closure by Runge-Kutta of fourth order, diffusion and drag by Crank-Nicolson; the closure stays, without what
    it has at half of the grid's points."""

    def step(vorticity_hat: spectral.FieldHat, closure_hat: spectral.FieldHat) -> Complex[Array, "*batch n n//2+1"]:
        held = jnp.asarray(closure_hat) * spectral.below_nyquist(flow.grid)

        def explicit(state: jax.Array) -> jax.Array:
            return flow.advection_hat(state) + held

        closed = dataclasses.replace(flow, closure=explicit)
        return stepper.STEPPERS["crank_nicolson_rk4"](closed, dt)(jnp.asarray(vorticity_hat))

    return step


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
        return spectral.on_grid(field_hat, grid.shape[0]) * baselines.gaussian(grid, self.width)

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
        step = closed_step(self.flow, self.dt)
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
        resolved = spectral.on_grid(unfiltered, n)
        is_resolved = spectral.on_grid(jnp.ones_like(unfiltered), n) != 0
        size = 0.1 * jnp.sqrt(jnp.mean(vorticity**2, axis=(-2, -1)))[..., None, None]
        fine = size * self._random_hat(keys, _FINE, n)
        step = closed_step(self.flow, self.dt)

        def settled(state: Array, _: StepNumber) -> Array:
            return jnp.where(is_resolved, resolved, step(state, jnp.zeros_like(state)))

        return by_period(settled, jnp.where(is_resolved, resolved, fine), 0, self.settling, 1)
