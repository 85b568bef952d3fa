"""Classical closures of the subgrid term of 2D turbulence, as draws without noise, and with noise that is fitted.

With w the filtered vorticity, u its velocity, S its rate of strain (S11 = du/dx = -S22, S12 = (du/dy + dv/dx) / 2),
|S|^2 = 2 S:S, h the grid's spacing and D the filter's width, the closures that complete dw/dt = -u.grad(w) + ... are

    Smagorinsky (Mon. Weather Rev. 91, 1963)           curl div (2 c^2 h^2 |S| S)       c = 0.17 (Lilly 1967)
    Leith (Physica D 98, 1996)                         div (c^3 h^3 |grad w| grad w)    c = 1 / pi
    gradient (Clark et al., J. Fluid Mech. 91, 1979)   -div (c D^2 (grad u) . grad w)   c = 1 / 12

    backscatter (Jansen and Held, Ocean Model. 80, 2014)   D - b lap(w), D = -lap(c^2 h^4 |S| lap(w))   c = 0.08

The last one takes by D the enstrophy, and by b returns 0.99 of the energy that D takes: b = 0.99 <psi D> / <w^2>, with psi the
stream function, lap psi = w, and means over the plane. Its constants are those of pyqg (Ross et al., J. Adv. Model. Earth Syst.
15, 2023).
(Leith's constant by Fox-Kemper and Menemenlis, in Ocean Modeling in an Eddying Regime, 2008.)

The coefficient that multiplies h^2, h^3 or D^2 is one number, published or fitted to pairs, or, where it is dynamic (Germano et
al., Phys. Fluids A 3, 1991; Lilly, Phys. Fluids A 4, 1992), one for each state from the same closure at twice the width.

Those that are fitted or dynamic stand there with noise too: what they miss on the training pairs, as a Gaussian field of the same
spectrum whose memory is that of an autoregression, after the AR(1) noise of pyqg_generative (Perezhogin, Zanna and
Fernandez-Granda, J. Adv. Model. Earth Syst. 15, 2023).
"""

import dataclasses
from collections.abc import Callable, Iterator
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
from closure_jax.problems.base import Pairs

Fields = Float[Array, "*batch n n"]
Components = tuple[Fields, Fields]


def _derivatives(field: Fields, grid: grids.Grid) -> Components:
    """(d/dx, d/dy), of the modes that the solver advects."""
    field_hat = spectral.to_fourier(field) * spectral.below_nyquist(grid)
    kx, ky = spectral.wavenumbers(grid)
    return spectral.to_physical(1j * kx * field_hat), spectral.to_physical(1j * ky * field_hat)


def _velocity(vorticity: Fields, grid: grids.Grid) -> Components:
    u_hat, v_hat = spectral.velocity_hat(spectral.to_fourier(vorticity), grid)
    return spectral.to_physical(u_hat), spectral.to_physical(v_hat)


def strain(vorticity: Fields, grid: grids.Grid) -> Components:
    """(S11, S12) of the velocity of a vorticity."""
    u, v = _velocity(vorticity, grid)
    (u_x, u_y), (v_x, _) = _derivatives(u, grid), _derivatives(v, grid)
    return u_x, 0.5 * (u_y + v_x)


def curl_of_divergence(tensor: Components, grid: grids.Grid) -> Fields:
    """curl div of a symmetric tensor without trace, (T11, T12): what a stress does to the vorticity."""
    first, second = (spectral.to_fourier(component) for component in tensor)
    kx, ky = spectral.wavenumbers(grid)
    return spectral.to_physical(((ky**2 - kx**2) * second + 2 * kx * ky * first) * spectral.below_nyquist(grid))


def divergence(flux: Components, grid: grids.Grid) -> Fields:
    """div of a vector field."""
    kx, ky = spectral.wavenumbers(grid)
    first, second = (spectral.to_fourier(component) for component in flux)
    return spectral.to_physical((1j * kx * first + 1j * ky * second) * spectral.below_nyquist(grid))


@dataclasses.dataclass(frozen=True)
class Form:
    """What a closure is made of, but for its coefficient.

    Attributes:
      flux: (vorticity, grid, width) -> stress or flux of coefficient 1, two components; its sign is that of what is added to the
        momentum or to the vorticity.
      tendency: (flux, grid) -> what it does to the vorticity.
      resolved: (vorticity, grid, filter) -> that part of what `flux` stands for which the filter makes unresolved.
      published: coefficient of the power of the width.
    """

    flux: Callable[[Fields, grids.Grid, float], Components]
    tendency: Callable[[Components, grids.Grid], Fields]
    resolved: Callable[[Fields, grids.Grid, Callable[[Fields], Fields]], Components]
    published: float


def _smagorinsky(vorticity: Fields, grid: grids.Grid, width: float) -> Components:
    s11, s12 = strain(vorticity, grid)
    viscosity = width**2 * 2 * jnp.sqrt(s11**2 + s12**2)
    return 2 * viscosity * s11, 2 * viscosity * s12


def _leith(vorticity: Fields, grid: grids.Grid, width: float) -> Components:
    w_x, w_y = _derivatives(vorticity, grid)
    viscosity = width**3 * jnp.hypot(w_x, w_y)
    return viscosity * w_x, viscosity * w_y


def _gradient(vorticity: Fields, grid: grids.Grid, width: float) -> Components:
    w_x, w_y = _derivatives(vorticity, grid)
    (u_x, u_y), (v_x, v_y) = (_derivatives(one, grid) for one in _velocity(vorticity, grid))
    return -(width**2) * (u_x * w_x + u_y * w_y), -(width**2) * (v_x * w_x + v_y * w_y)


def _resolved_stress(vorticity: Fields, grid: grids.Grid, filtered: Callable[[Fields], Fields]) -> Components:
    """Minus the part without trace of filter(u u) - filter(u) filter(u)."""
    u, v = _velocity(vorticity, grid)
    low_u, low_v = filtered(u), filtered(v)
    first = 0.5 * (filtered(u * u - v * v) - low_u**2 + low_v**2)
    return -first, low_u * low_v - filtered(u * v)


def _resolved_flux(vorticity: Fields, grid: grids.Grid, filtered: Callable[[Fields], Fields]) -> Components:
    """Minus filter(u w) - filter(u) filter(w)."""
    low = filtered(vorticity)
    first, second = (filtered(one) * low - filtered(one * vorticity) for one in _velocity(vorticity, grid))
    return first, second


FORMS: dict[str, Form] = {
    "smagorinsky": Form(_smagorinsky, curl_of_divergence, _resolved_stress, 0.17**2),
    "leith": Form(_leith, divergence, _resolved_flux, np.pi**-3),
    "gradient": Form(_gradient, divergence, _resolved_flux, 1 / 12),
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
        return self.coefficient * self.form.tendency(self.form.flux(vorticity, self.grid, self.width), self.grid)


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

    def coefficient(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, " batch"]:
        """c of each field."""
        lower = gaussian(self.grid, 3**0.5 * self.filter_width)

        def filtered(field: Fields) -> Fields:
            return spectral.to_physical(spectral.to_fourier(field) * lower)

        low = self.form.flux(filtered(vorticity), self.grid, 2 * self.width)
        here = self.form.flux(vorticity, self.grid, self.width)
        model = [there - filtered(one) for there, one in zip(low, here, strict=True)]
        seen = self.form.resolved(vorticity, self.grid, filtered)
        plane = (-2, -1)
        product = sum(jnp.mean(a * b, axis=plane) for a, b in zip(seen, model, strict=True))
        square = sum(jnp.mean(b * b, axis=plane) for b in model)
        return jnp.maximum(product, 0) / jnp.maximum(square, jnp.finfo(vorticity.dtype).tiny)

    def mean(self, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """The closure, physical units."""
        tendency = self.form.tendency(self.form.flux(vorticity, self.grid, self.width), self.grid)
        return self.coefficient(vorticity)[:, None, None] * tendency


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
        laplacian = spectral.laplacian(self.grid) * spectral.below_nyquist(self.grid)

        def lap(field: Fields) -> Fields:
            return spectral.to_physical(laplacian * spectral.to_fourier(field))

        inverse = np.divide(1.0, laplacian, out=np.zeros_like(laplacian), where=laplacian != 0)
        psi = spectral.to_physical(inverse * spectral.to_fourier(vorticity))
        s11, s12 = strain(vorticity, self.grid)
        viscosity = self.coefficient * self.width**4 * 2 * jnp.sqrt(s11**2 + s12**2)
        taken = -lap(viscosity * lap(vorticity))
        plane = (-2, -1)
        energy = jnp.maximum(jnp.mean(psi * taken, axis=plane), 0)
        size = jnp.maximum(jnp.mean(vorticity**2, axis=plane), jnp.finfo(vorticity.dtype).tiny)
        return taken - (self.returned * energy / size)[:, None, None] * lap(vorticity)


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
