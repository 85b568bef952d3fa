"""What the transport network regresses on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from closure_jax.transport.paths import Path

Drift = Callable[[jax.Array, jax.Array], jax.Array]
"""(x_tau (batch, ...), tau (batch,)) -> the path's expected target, shape of x_tau."""


def transport_loss(path: Path, drift: Drift, keys: jax.Array, condition: jax.Array, x: jax.Array) -> jax.Array:
    """Weighted mean squared error of the drift against the path's target, tau uniform in the path's training range.

    Args:
      path: the process.
      drift: network as a function of state and time, the condition bound.
      keys: (batch,) one for each example.
      condition, x: (batch, ...) pairs.
    Returns:
      scalar.
    """

    def draw(key, c, target):
        time_key, source_key, noise_key = jax.random.split(key, 3)
        tau = jax.random.uniform(time_key, (), x.dtype, *path.training_range)
        return tau, *path.in_transit(noise_key, path.source(source_key, c), target, tau)

    tau, x_tau, target = jax.vmap(draw)(keys, condition, x)
    errors = jnp.mean((drift(x_tau, tau) - target) ** 2, axis=tuple(range(1, x.ndim)))
    return jnp.mean(path.weight(tau) * errors)
