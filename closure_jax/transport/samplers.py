"""From source to target: Euler for the ODE, Euler-Maruyama for the SDE, as one loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from closure_jax import random
from closure_jax.transport.losses import Drift
from closure_jax.transport.paths import Path


def sample(path: Path, drift: Drift, keys: jax.Array, condition: jax.Array, steps: int | jax.Array) -> jax.Array:
    """Draws from the model, one sample for each key.

    Args:
      path: the process, which gives the times and the diffusion coefficient.
      drift: network as a function of state and time, the condition bound.
      keys: (batch,).
      condition: (batch, ...), shape of a sample.
      steps: how many; an SDE adds no noise in the last. A Python number can be differentiated through, a traced one lets
        one program serve all numbers.
    Returns:
      (batch, ...).
    """
    start, euler = _euler(path, drift, keys, condition, steps)
    return jax.lax.fori_loop(0, steps, euler, start)


def trajectory(path: Path, drift: Drift, keys: jax.Array, condition: jax.Array, steps: int) -> jax.Array:
    """The same draws with every state on the way, source first: (steps + 1, batch, ...)."""
    start, euler = _euler(path, drift, keys, condition, steps)

    def body(x, index):
        x = euler(index, x)
        return x, x

    return jnp.concatenate([start[None], jax.lax.scan(body, start, jnp.arange(steps))[1]])


def _euler(
    path: Path, drift: Drift, keys: jax.Array, condition: jax.Array, steps: int | jax.Array
) -> tuple[jax.Array, Callable[[jax.Array, jax.Array], jax.Array]]:
    """The sources, and the step (index, x) -> x."""
    split = jax.vmap(jax.random.split)(keys)

    def step(index, x):
        tau = path.time(index, steps)
        size = path.time(index + 1, steps) - tau
        batch_tau = jnp.full(len(keys), tau, x.dtype)
        x = x + size * path.velocity(drift(x, batch_tau), batch_tau)
        if path.stochastic:
            normal = jax.vmap(lambda key, one: random.normal(jax.random.fold_in(key, index), one.shape, one.dtype))
            scale = jnp.where(index < steps - 1, path.gamma(tau) * jnp.sqrt(jnp.abs(size)), 0.0)
            x = x + scale * normal(split[:, 1], x)
        return x

    return jax.vmap(path.source)(split[:, 0], condition), step
