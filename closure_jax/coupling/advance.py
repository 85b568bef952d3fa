"""The coupled step: a solver that draws its closure, holds it, and steps."""

import functools
from collections.abc import Callable

import jax

from closure_jax.physics.flow import ClosureSampler, KolmogorovFlow
from closure_jax.physics.stepper import euler_maruyama, repeated


def advance(
    flow: KolmogorovFlow, closure: ClosureSampler, dt: float, hold: int = 1, remat: bool = False
) -> Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]:
    """Coupled stepping of a batch: the closure is sampled each `hold` steps and held between.

    Args:
      flow: diffusion and forcing (its own closure term should be None).
      closure: sampler of H; see `ClosureSampler`.
      dt: time step [time].
      hold: steps for which one sample is kept.
      remat: recompute inside the backward pass, so that a long rollout can be differentiated in bounded memory.

    Returns:
      run(keys, vorticity_hat, start, steps) -> vorticity_hat: `keys` (batch,) one per member, `vorticity_hat`
      (batch, n, n // 2 + 1), `start` the number of the first step, `steps` a multiple of `hold`. The draw of a step depends
      on the member's key and the step's number only, so a rollout may be cut anywhere.
    """
    step = euler_maruyama(flow, dt)

    def held(keys, vorticity_hat, number):
        closure_hat = closure(jax.vmap(lambda key: jax.random.fold_in(key, number))(keys), vorticity_hat)
        return repeated(lambda w_hat: step(w_hat, closure_hat), hold)(vorticity_hat)

    body = jax.checkpoint(held) if remat else held

    def run(keys: jax.Array, vorticity_hat: jax.Array, start: jax.Array | int, steps: int) -> jax.Array:
        if steps % hold:
            raise ValueError(f"steps = {steps} is not a multiple of hold = {hold}")

        def scan_body(carry, index):
            return body(keys, carry, start + hold * index), None

        return jax.lax.scan(scan_body, vorticity_hat, jax.numpy.arange(steps // hold))[0]

    return run


def jitted_advance(*args, **kwargs) -> Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]:
    """`advance`, compiled, with the state's buffer reused; the number of steps is static."""
    return functools.partial(jax.jit, static_argnums=3, donate_argnums=1)(advance(*args, **kwargs))
