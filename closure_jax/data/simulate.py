"""From a system to trajectories of (vorticity, closure)."""

from typing import Any

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


class Snapshots:
    """A batch of trajectories from random states, integrated from snapshot to snapshot; split over this process' devices.

    Args:
      system: what runs and is observed.
      keys: (batch,) one for each trajectory.
      every: steps between snapshots.

    Attributes:
      number: of the last snapshot, which `state` is; 0 before the first.
    """

    def __init__(self, system: System, keys: jax.Array, every: int):
        self._parts = devices.parts_of(len(keys))
        self._run: Any = devices.map_members(
            lambda keys, state, number: system.advance(keys, state, number, every), self._parts, (0, 0, None), donate=1
        )
        self._look = devices.map_members(system.observe, self._parts, (0, 0, None))
        self._every, self.number = every, 0
        self._keys, self._state = devices.split_members((keys, system.initial(keys)), self._parts)

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Vorticity and closure as the system is observed at the next snapshot, (batch, n, n) each.

        The closure is the one that the step from this state uses, so that the pair is a draw from p(H | w).
        """
        self._state = self._run(self._keys, self._state, self.number * self._every)
        self.number += 1
        vorticity, closure = self._look(self._keys, self._state, self.number * self._every)
        return devices.join_members(vorticity), devices.join_members(closure)

    def state(self) -> list[np.ndarray]:
        """The state's arrays, from which `go_on` goes on."""
        return devices.to_host(self._state)

    def go_on(self, number: int, state: list[np.ndarray]) -> None:
        """Goes on from snapshot `number` with the `state` that it had."""
        self.number, self._state = number, devices.from_host(state, self._state, self._parts)
