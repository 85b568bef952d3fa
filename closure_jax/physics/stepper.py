"""Time stepping: (equation, dt) -> step, and rollouts of batches of members by `lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax_cfd.spectral import time_stepping
from jaxtyping import Array, Complex

from closure_jax.physics import spectral
from closure_jax.physics.flow import KolmogorovFlow

Step = Callable[[spectral.FieldHat, spectral.FieldHat], Complex[Array, "*batch n n//2+1"]]
"""(vorticity_hat, closure_hat) -> vorticity_hat after one time step."""


StateStep = Callable[[Any], Any]
"""state -> state after one time step; a state is an array or a pytree."""


def euler_maruyama(flow: KolmogorovFlow, dt: float) -> Step:
    """The published step: explicit Euler for closure and forcing, Crank-Nicolson for diffusion.

        (1 - dt/2 nu lap) w' = (1 + dt/2 nu lap) w + dt (f + H)

    Returns:
      step(vorticity_hat, closure_hat) -> vorticity_hat; white noise in H is of order 1 / sqrt(dt), which makes this the
      semi-implicit Euler-Maruyama step. The flow's own `closure` is added to the given one if it has any.
    """

    def step(vorticity_hat: spectral.FieldHat, closure_hat: spectral.FieldHat) -> Complex[Array, "*batch n n//2+1"]:
        now = jnp.asarray(vorticity_hat)
        explicit = flow.explicit_terms(now) + closure_hat
        half = now + 0.5 * dt * flow.implicit_terms(now)
        return flow.implicit_solve(half + dt * explicit, 0.5 * dt)

    return step


def _semi_implicit_euler(flow: KolmogorovFlow, dt: float) -> StateStep:
    step = euler_maruyama(flow, dt)
    return lambda vorticity_hat: step(vorticity_hat, 0 * vorticity_hat)


STEPPERS: dict[str, Callable[[KolmogorovFlow, float], StateStep]] = {
    "semi_implicit_euler": _semi_implicit_euler,
    "backward_forward_euler": time_stepping.backward_forward_euler,
    "crank_nicolson_rk2": time_stepping.crank_nicolson_rk2,
    "crank_nicolson_rk3": time_stepping.crank_nicolson_rk3,
    "crank_nicolson_rk4": time_stepping.crank_nicolson_rk4,
    "imex_rk_sil3": time_stepping.imex_rk_sil3,
}
"""Steppers of the deterministic flow, by name; each is (flow, dt) -> step(vorticity_hat) -> vorticity_hat."""


def repeated(step: StateStep, steps: int, remat: bool = False) -> StateStep:
    """`step` applied `steps` times in one `lax.scan`; `remat` recomputes each step in the backward pass."""
    body = jax.checkpoint(step) if remat else step
    return lambda state: jax.lax.scan(lambda carry, _: (body(carry), None), state, None, length=steps)[0]
