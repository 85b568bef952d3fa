"""Time stepping: (equation, dt) -> step, and rollouts of batches of members by `lax.scan`."""

from collections.abc import Callable

import jax
from jax_cfd.spectral import time_stepping

from closure_jax.physics.flow import KolmogorovFlow


def euler_maruyama(flow: KolmogorovFlow, dt: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The published step: explicit Euler for closure and forcing, Crank-Nicolson for diffusion.

        (1 - dt/2 nu lap) w' = (1 + dt/2 nu lap) w + dt (f + H)

    Returns:
      step(vorticity_hat, closure_hat) -> vorticity_hat; white noise in H is of order 1 / sqrt(dt), which makes this the
      semi-implicit Euler-Maruyama step. The flow's own `closure` is added to the given one if it has any.
    """

    def step(vorticity_hat: jax.Array, closure_hat: jax.Array) -> jax.Array:
        explicit = flow.explicit_terms(vorticity_hat) + closure_hat
        half = vorticity_hat + 0.5 * dt * flow.implicit_terms(vorticity_hat)
        return flow.implicit_solve(half + dt * explicit, 0.5 * dt)

    return step


def _semi_implicit_euler(flow: KolmogorovFlow, dt: float) -> time_stepping.TimeStepFn:
    step = euler_maruyama(flow, dt)
    return lambda vorticity_hat: step(vorticity_hat, 0 * vorticity_hat)


STEPPERS: dict[str, Callable[[KolmogorovFlow, float], time_stepping.TimeStepFn]] = {
    "semi_implicit_euler": _semi_implicit_euler,
    "backward_forward_euler": time_stepping.backward_forward_euler,
    "crank_nicolson_rk2": time_stepping.crank_nicolson_rk2,
    "crank_nicolson_rk3": time_stepping.crank_nicolson_rk3,
    "crank_nicolson_rk4": time_stepping.crank_nicolson_rk4,
    "imex_rk_sil3": time_stepping.imex_rk_sil3,
}
"""Steppers of the deterministic flow, by name; each is (flow, dt) -> step(vorticity_hat) -> vorticity_hat."""


def repeated(step: time_stepping.TimeStepFn, steps: int, remat: bool = False) -> time_stepping.TimeStepFn:
    """`step` applied `steps` times in one `lax.scan`; `remat` recomputes each step in the backward pass."""
    body = jax.checkpoint(step) if remat else step
    return lambda state: jax.lax.scan(lambda carry, _: (body(carry), None), state, None, length=steps)[0]
