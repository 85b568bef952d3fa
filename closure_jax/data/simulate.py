"""From a system to trajectories of (vorticity, closure)."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import random
from closure_jax.parallel import devices
from closure_jax.problems.base import System


def trajectory_keys(seed: int, indices: np.ndarray) -> jax.Array:
    """One key for each trajectory, from the seed and its number: independent of how they are grouped."""
    key = random.stream(seed, random.TRAJECTORY)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))


def snapshots(system: System, keys: jax.Array, every: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Integrates a batch of trajectories from random states; they are split over this process' devices.

    Args:
      system: what runs and is observed.
      keys: (batch,) one for each trajectory.
      every: steps between snapshots.
      count: number of snapshots.

    Yields:
      vorticity and closure as the system is observed, (batch, n, n) each: the closure is the one that the step from this
      state uses, so that the pair is a draw from p(H | w).
    """
    parts = devices.parts_of(len(keys))
    run = devices.map_members(
        lambda keys, state, number: system.advance(keys, state, number, every), parts, (0, 0, None), donate=1
    )
    look = devices.map_members(system.observe, parts, (0, 0, None))
    keys, state = devices.split_members((keys, system.initial(keys)), parts)
    for index in range(1, count + 1):
        state = run(keys, state, (index - 1) * every)
        vorticity, closure = look(keys, state, index * every)
        yield devices.join_members(vorticity), devices.join_members(closure)
