"""Classical closures of the subgrid term of 2D turbulence, as draws without noise, and with noise that is fitted.

With w the filtered vorticity, u its velocity, S its rate of strain (S11 = du/dx = -S22, S12 = (du/dy + dv/dx) / 2),
|S|^2 = 2 S:S, h the grid's spacing and D the filter's width, the closures that complete dw/dt = -u.grad(w) + ... are

    Smagorinsky (Mon. Weather Rev. 91, 1963)           div (c^2 h^2 |S| grad w)         c = 0.17 (Lilly 1967)
    Leith (Physica D 98, 1996)                         div (c^3 h^3 |grad w| grad w)    c = 1 / pi
    gradient (Clark et al., J. Fluid Mech. 91, 1979)   -div (c D^2 (grad u) . grad w)   c = 1 / 12

    backscatter (Jansen and Held, Ocean Model. 80, 2014)   D - b lap(w), D = -lap(c^2 h^4 |S| lap(w))   c = 0.08

The last one takes by D the enstrophy, and by b returns 0.99 of the energy that D takes: b = 0.99 <psi D> / <w^2>, with psi the
stream function, lap psi = w, and means over the plane. Its constants are those of pyqg (Ross et al., J. Adv. Model. Earth Syst.
15, 2023).
(Leith's constant by Fox-Kemper and Menemenlis, in Ocean Modeling in an Eddying Regime, 2008.)

Smagorinsky's eddy viscosity stands in the equation of vorticity, as is usual in 2D (Maulik and San, J. Fluid Mech. 831, 2017).
Products are formed on a grid of 3/2 as many points, as the solver forms its advection, and cut back: the gradient closure, of two
factors, does not alias; those with a modulus alias little.

The coefficient that multiplies h^2, h^3 or D^2 is one number, published or fitted to pairs, or, where it is dynamic (Germano et
al., Phys. Fluids A 3, 1991; Lilly, Phys. Fluids A 4, 1992), one for each state from the same closure at twice the width.

Those that are fitted or dynamic stand there with noise too: what they miss on the training pairs, as a Gaussian field of the same
spectrum whose memory is that of an autoregression, after the AR(1) noise of pyqg_generative (Perezhogin, Zanna and
Fernandez-Granda, J. Adv. Model. Earth Syst. 15, 2023).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.coupling.autoregressive import AR1
from closure_jax.coupling.draw import Deterministic, Draw
from closure_jax.physics import spectral
from closure_jax.physics.spectral import FieldHat
from closure_jax.problems.base import Pairs

Fields = Float[Array, "*batch n n"]
Components = tuple[FieldHat, FieldHat]


def _points(field_hat: FieldHat, grid: grids.Grid) -> Float[Array, "*batch m m"]:
    """The field at the points where products are formed: 3/2 as many on a side as the grid has."""
    return spectral.to_physical(spectral.on_grid(field_hat, spectral.padded(grid).shape[0]))


def _cut(product: Float[Array, "*batch m m"], grid: grids.Grid) -> FieldHat:
    """The transform on the grid of what was formed at these points; of two factors without aliasing."""
    return spectral.on_grid(spectral.to_fourier(product), grid.shape[0])


def _derivatives(field_hat: FieldHat, grid: grids.Grid) -> Components:
    """(d/dx, d/dy)."""
    kx, ky = spectral.wavenumbers(grid)
    return 1j * kx * field_hat, 1j * ky * field_hat


def divergence(flux_hat: Components, grid: grids.Grid) -> FieldHat:
    """div of a vector field."""
    return _derivatives(flux_hat[0], grid)[0] + _derivatives(flux_hat[1], grid)[1]


def _strain_rate(vorticity_hat: FieldHat, grid: grids.Grid) -> Float[Array, "*batch m m"]:
    """|S| where products are formed [1 / time]."""
    u_hat, v_hat = spectral.velocity_hat(vorticity_hat, grid)
    (u_x, u_y), (v_x, _) = _derivatives(u_hat, grid), _derivatives(v_hat, grid)
    return jnp.hypot(2 * _points(u_x, grid), _points(u_y + v_x, grid))


def _down_gradient(viscosity: Float[Array, "*batch m m"], vorticity_hat: FieldHat, grid: grids.Grid) -> Components:
    w_x, w_y = _derivatives(vorticity_hat, grid)
    return _cut(viscosity * _points(w_x, grid), grid), _cut(viscosity * _points(w_y, grid), grid)


def _smagorinsky(vorticity_hat: FieldHat, grid: grids.Grid, width: float) -> Components:
    return _down_gradient(width**2 * _strain_rate(vorticity_hat, grid), vorticity_hat, grid)


def _leith(vorticity_hat: FieldHat, grid: grids.Grid, width: float) -> Components:
    steepness = jnp.hypot(*(_points(one, grid) for one in _derivatives(vorticity_hat, grid)))
    return _down_gradient(width**3 * steepness, vorticity_hat, grid)


def _gradient(vorticity_hat: FieldHat, grid: grids.Grid, width: float) -> Components:
    w_x, w_y = (_points(one, grid) for one in _derivatives(vorticity_hat, grid))

    def component(velocity_hat: FieldHat) -> FieldHat:
        x, y = (_points(one, grid) for one in _derivatives(velocity_hat, grid))
        return _cut(-(width**2) * (x * w_x + y * w_y), grid)

    u_hat, v_hat = spectral.velocity_hat(vorticity_hat, grid)
    return component(u_hat), component(v_hat)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a closure is made of, but for its coefficient.

    Attributes:
      flux: (vorticity_hat, grid, width) -> minus the flux of vorticity that the closure stands for, two components, with the
        coefficient 1.
      published: coefficient of the power of the width.
    """

    flux: Callable[[FieldHat, grids.Grid, float], Components]
    published: float


def _transport(vorticity_hat: FieldHat, grid: grids.Grid) -> Components:
    """(u w, v w)."""
    u, v = (_points(one, grid) for one in spectral.velocity_hat(vorticity_hat, grid))
    w = _points(vorticity_hat, grid)
    return _cut(u * w, grid), _cut(v * w, grid)


def _inner(one: Sequence[FieldHat], other: Sequence[FieldHat]) -> Float[Array, "*batch"]:
    """Mean over the plane of the scalar product of two vector fields."""
    x, y = (jnp.stack([spectral.to_physical(part) for part in field]) for field in (one, other))
    return jnp.mean(jnp.sum(x * y, axis=0), axis=(-2, -1))


FORMS: dict[str, Form] = {
    "smagorinsky": Form(_smagorinsky, 0.17**2),
    "leith": Form(_leith, np.pi**-3),
    "gradient": Form(_gradient, 1 / 12),
}
"""Forms by name."""


@dataclasses.dataclass(frozen=True)
class Static(Deterministic):
    """A closure with one coefficient.

    Attributes:
      form: of FORMS.
      grid: of the fields.
      width: h or D [length].
      coefficient: of its power.
    """

    form: Form
    grid: grids.Grid
    width: float
    coefficient: float

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""
        flux = self.form.flux(spectral.to_fourier(vorticity), self.grid, self.width)
        return self.coefficient * spectral.to_physical(divergence(flux, self.grid))


@dataclasses.dataclass(frozen=True)
class Dynamic(Deterministic):
    """A closure whose coefficient comes from the state, one for each field, and is not negative.

    A test filter ^, which with the first one makes a Gaussian of width 2 D, shows part of the unresolved flux: ^u ^w - ^(u w).
    The closure says that it is c (flux of ^w at 2 h - ^(flux of w at h)); c is the least-squares solution over the plane.

    Attributes:
      form: of FORMS.
      grid: of the fields.
      width: h [length].
      filter_width: D [length].
    """

    form: Form
    grid: grids.Grid
    width: float
    filter_width: float

    def unlimited(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, " batch"]:
        """c of each field, which may be negative."""
        grid, lower = self.grid, gaussian(self.grid, 3**0.5 * self.filter_width)
        here = spectral.to_fourier(vorticity) * spectral.below_nyquist(grid)
        wide = self.form.flux(lower * here, grid, 2 * self.width)
        model = [there - lower * one for there, one in zip(wide, self.form.flux(here, grid, self.width), strict=True)]
        whole, wide_part = _transport(here, grid), _transport(lower * here, grid)
        seen = [resolved - lower * one for resolved, one in zip(wide_part, whole, strict=True)]
        return _inner(seen, model) / jnp.maximum(_inner(model, model), jnp.finfo(vorticity.dtype).tiny)

    def coefficient(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, " batch"]:
        """c of each field, 0 where the best one is negative."""
        return jnp.maximum(self.unlimited(vorticity), 0)

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""
        unit = Static(self.form, self.grid, self.width, 1.0)
        return self.coefficient(vorticity)[:, None, None] * unit.mean(vorticity)


@dataclasses.dataclass(frozen=True)
class Backscatter(Deterministic):
    """Biharmonic viscosity by the strain, which takes enstrophy, and a negative one that returns the energy taken with it.

    Attributes:
      grid: of the fields.
      width: h [length].
      coefficient: c^2 of its fourth power.
      returned: share of the energy.
    """

    grid: grids.Grid
    width: float
    coefficient: float = 0.08**2
    returned: float = 0.99

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""
        grid, laplacian = self.grid, spectral.laplacian(self.grid)
        vorticity_hat = spectral.to_fourier(vorticity) * spectral.below_nyquist(grid)
        inverse = np.divide(1.0, laplacian, out=np.zeros_like(laplacian), where=laplacian != 0)
        psi, curvature = (spectral.to_physical(symbol * vorticity_hat) for symbol in (inverse, laplacian))
        viscosity = self.coefficient * self.width**4 * _strain_rate(vorticity_hat, grid)
        taken = spectral.to_physical(-laplacian * _cut(viscosity * _points(laplacian * vorticity_hat, grid), grid))
        plane = (-2, -1)
        energy = jnp.maximum(jnp.mean(psi * taken, axis=plane), 0)
        size = jnp.maximum(jnp.mean(vorticity**2, axis=plane), jnp.finfo(vorticity.dtype).tiny)
        return taken - (self.returned * energy / size)[:, None, None] * curvature


@dataclasses.dataclass(frozen=True, eq=False)
class WithResidual:
    """A closure without noise, and a Gaussian field with the spectrum of what it misses, the same at all states.

    Attributes:
      closure: without noise.
      amplitude: (n, n // 2 + 1), deviation of the residual's modes over that of white noise.
      coupling: how the noise hangs together in time.
    """

    closure: Deterministic
    amplitude: Float[np.ndarray, "n n//2+1"]
    coupling: AR1 = AR1(period=1)

    linear_in_noise: ClassVar[bool] = True

    def noise(self, keys: Key[Array, " batch"], vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """White in space."""
        return jax.vmap(lambda key: random.normal(key, vorticity.shape[1:]))(keys)

    def draw(self, noise: Float[Array, "batch n n"], vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""
        return self.mean(vorticity) + spectral.to_physical(self.amplitude * spectral.to_fourier(noise))

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """That of the closure without noise."""
        return self.closure.mean(vorticity)


Linear = TypeVar("Linear", Static, Backscatter)
"""Closures that are linear in their coefficient."""


def gaussian(grid: grids.Grid, width: float) -> Float[np.ndarray, "n n//2+1"]:
    """The transfer function exp(-k^2 D^2 / 24) of a Gaussian filter (Pope, Turbulent Flows, 2000, table 13.2)."""
    return np.exp(spectral.laplacian(grid) * width**2 / 24)


_BLOCK = 256  # fields at a time


def fitted(published: Linear, pairs: Pairs) -> Linear:
    """The closure with the coefficient that fits the training pairs best in the mean square, not negative."""
    unit = dataclasses.replace(published, coefficient=1.0)
    product = square = 0.0
    for made, closure in _beside(unit, pairs):
        product += float(np.sum(made * closure))
        square += float(np.sum(made * made))
    return dataclasses.replace(unit, coefficient=max(0.0, product / square))


def with_residual(closure: Deterministic, pairs: Pairs) -> WithResidual:
    """The closure with noise of the spectrum of what it misses on the training pairs."""
    count, n, _ = pairs.fields("closure", "train").shape
    power = sum(np.sum(np.abs(np.fft.rfft2(true - made)) ** 2, axis=0) for made, true in _beside(closure, pairs))
    return WithResidual(closure, np.sqrt(power / count) / n)  # modes of white noise have the variance n^2


def _beside(closure: Deterministic, pairs: Pairs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a closure gives at the training states, and the truth, a block of fields at a time, in double precision."""
    mean = jax.jit(closure.mean)
    vorticity, true = (pairs.fields(name, "train") for name in ("vorticity", "closure"))
    for start in range(0, len(vorticity), _BLOCK):
        block = slice(start, start + _BLOCK)
        yield np.asarray(mean(vorticity[block]), np.float64), np.asarray(true[block], np.float64)


def classical(grid: grids.Grid, filter_width: float, pairs: Pairs) -> dict[str, Draw]:
    """All closures of this module by name: each form as published, fitted and dynamic, and the latter two with noise too, `_ar1`.

    Args:
      grid: of the fields.
      filter_width: D [length].
      pairs: that coefficients are fitted to.
    """
    found: dict[str, Deterministic] = {}
    for name, form in FORMS.items():
        is_viscous = name != "gradient"  # whose coefficient is that of the filter
        width = float(grid.step[0]) if is_viscous else filter_width
        published = Static(form, grid, width, form.published)
        found |= {name: published, f"{name}_fitted": fitted(published, pairs)}
        if is_viscous:
            found[f"dynamic_{name}"] = Dynamic(form, grid, width, filter_width)
    returning = Backscatter(grid, float(grid.step[0]))
    found |= {"backscatter": returning, "backscatter_fitted": fitted(returning, pairs)}
    seen = {name: closure for name, closure in found.items() if "fitted" in name or "dynamic" in name}
    return {**found, **{f"{name}_ar1": with_residual(closure, pairs) for name, closure in seen.items()}}
