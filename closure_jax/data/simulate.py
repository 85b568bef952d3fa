"""From the flow to trajectories of (vorticity, closure)."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import devices
from closure_jax.coupling import advance as advance_lib
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral


def trajectory_keys(seed: int, indices: np.ndarray) -> jax.Array:
    """One key for each trajectory, from the seed and its number: independent of how they are grouped."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.asarray(indices))


def initial_vorticity_hat(keys: jax.Array, field: noise_lib.GaussianRandomField) -> jax.Array:
    """Initial states (batch, n, n // 2 + 1): Gaussian random fields, band-limited as the solver is."""
    mask = spectral.dealias_mask(field.grid).astype(np.float32)
    return jax.vmap(lambda key: field.sample_hat(jax.random.fold_in(key, 2**31 - 1)))(keys) * mask


def snapshots(
    flow: flow_lib.KolmogorovFlow,
    noise: noise_lib.QWienerNoise,
    initial: noise_lib.GaussianRandomField,
    keys: jax.Array,
    resolution: int,
    every: int,
    count: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Integrates a batch of trajectories and yields every `every` steps; they are split over this process' devices.

    Args:
      flow, noise, initial: the system; its closure is exact.
      keys: (batch,) one per trajectory.
      resolution: fields are stored on this many points a side, every (n / resolution)-th of the solver's.
      every: steps between snapshots.
      count: number of snapshots.

    Yields:
      vorticity and closure, (batch, resolution, resolution) float32 each: the closure is the one that the step from this
      state uses, so that the pair is a draw from p(H | w) with the noise of one step.
    """
    closure = flow_lib.exact_closure(flow.grid, noise)
    advance = advance_lib.advance(flow, closure, noise.dt)

    def observe(keys, vorticity_hat, number):
        closure_hat = closure(jax.vmap(lambda key: jax.random.fold_in(key, number))(keys), vorticity_hat)
        fields = spectral.to_physical(vorticity_hat), spectral.to_physical(closure_hat)
        return tuple(spectral.subsample(field, resolution) for field in fields)

    parts = devices.parts_of(len(keys))
    run = devices.map_members(lambda *arguments: advance(*arguments, every), parts, (0, 0, None), donate=1)
    look = devices.map_members(observe, parts, (0, 0, None))
    keys, vorticity_hat = devices.split_members((keys, initial_vorticity_hat(keys, initial)), parts)
    for index in range(1, count + 1):
        vorticity_hat = run(keys, vorticity_hat, (index - 1) * every)
        yield tuple(devices.join_members(field) for field in look(keys, vorticity_hat, index * every))
