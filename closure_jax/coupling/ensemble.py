"""Ensembles of coupled runs: many members, cut in chunks, split over devices, with their snapshots."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from closure_jax import interrupts
from closure_jax.coupling.advance import Dynamics, StepNumber
from closure_jax.errors import check
from closure_jax.parallel import devices, progress

_FRAMES_PER_UNIT = 5
_IN_MEMORY = 2**30  # bytes; snapshots of a larger ensemble go to a file


@dataclasses.dataclass(frozen=True)
class Rollout:
    """An ensemble's run: `fields` (units + 1, states, members, n, n) at whole time units, 0 included; `frames` (F, n, n) of the
    first member of the first state; `seconds` of stepping, compilation apart. `fields` of a large ensemble lie in a file."""

    fields: np.ndarray
    frames: np.ndarray
    seconds: float


def rollout(
    dynamics: Dynamics,
    vorticity: Float[np.ndarray, "state member n n"],
    key: Key[Array, ""],
    units: int,
    label: str,
    chunk: int = 128,
    scratch: pathlib.Path | None = None,
) -> Rollout:
    """Runs an ensemble; member m of all states together has the key fold_in(key, m).

    About `chunk` members run at a time, split over this process' devices where they divide; the grouping changes nothing.
    Where members of a state influence each other, all run together on one device.

    Args:
      dynamics: what is integrated.
      vorticity: at time 0, physical units.
      key: of the ensemble.
      units: whole time units to run.
      label: of the progress bar, and of the file of a large ensemble.
      chunk: members that run together.
      scratch: folder for snapshots beyond 1 GiB, which are written as they are made; None keeps them in memory.
    Raises:
      UserError: a time unit is not a whole number of the dynamics' periods.
    """
    (run,) = rollouts(dynamics, vorticity, {label: key}, units, chunk, scratch)
    return run


def rollouts(
    dynamics: Dynamics,
    vorticity: Float[np.ndarray, "state member n n"],
    keys: Mapping[str, Key[Array, ""]],
    units: int,
    chunk: int = 128,
    scratch: pathlib.Path | None = None,
) -> list[Rollout]:
    """Ensembles that differ by their keys, given by label, from one program; see `rollout`."""
    states, members, *grid = vorticity.shape
    frames_per_unit, segment = _segments(dynamics)
    size, starts = (states * members, [0]) if dynamics.crosses_members else _chunks(states * members, chunk)
    group = (states, members) if dynamics.crosses_members else (size, 1)
    parts = 1 if dynamics.crosses_members else devices.parts_of(size)
    begin = devices.map_members(dynamics.begin, parts)
    run: Any = devices.map_members(
        lambda keys, state, number: dynamics.advance(keys, state, number, segment), parts, (0, 0, None), donate=1
    )
    look = devices.map_members(dynamics.vorticity, parts)
    runs, compiled = [], None
    for label, key in keys.items():
        fields = _storage((units + 1, states * members, *grid), label, scratch)
        fields[0] = vorticity.reshape(states * members, *grid)
        frames, seconds = [vorticity[0, 0]], 0.0
        bar = progress.bar(len(starts) * units * frames_per_unit, label, "frame")
        for first in starts:
            now = slice(first, first + size)
            each, initial = devices.split_members(
                (_member_keys(key, first, group), fields[0, now].reshape(*group, *grid)), parts
            )
            if compiled is None:  # from a state of its own: what is donated may be gone after lowering
                compiled = run.lower(each, begin(each, initial), 0).compile()
            state = begin(each, initial)
            start = time.perf_counter()
            for index in range(units * frames_per_unit):
                state = compiled(each, state, index * segment)
                unit, within = divmod(index + 1, frames_per_unit)
                if first == 0 or within == 0:
                    seen = look(state)
                    if first == 0:
                        frames.append(devices.first(seen)[0, 0].copy())
                    if within == 0:
                        fields[unit, now] = devices.join_members(seen).reshape(size, *grid)
                bar.update()
                interrupts.check()
            jax.block_until_ready(state)
            seconds += time.perf_counter() - start
        bar.close()
        runs.append(Rollout(fields.reshape(units + 1, *vorticity.shape), np.stack(frames), seconds))
    return runs


def _segments(dynamics: Dynamics) -> tuple[int, int]:
    """Frames in a time unit, and solver steps between two."""
    per_unit = round(1 / dynamics.dt)
    check(
        per_unit % dynamics.period == 0,
        f"period={dynamics.period}: expected a divisor of the steps in one time unit, 1 / dt = {1 / dynamics.dt:g}",
    )
    frames = _FRAMES_PER_UNIT if per_unit % (_FRAMES_PER_UNIT * dynamics.period) == 0 else 1
    return frames, per_unit // frames


@functools.partial(jax.jit, static_argnums=2)
def _member_keys(key: Key[Array, ""], first: StepNumber, group: tuple[int, int]) -> Key[Array, "rows columns"]:
    """Keys of the members from number `first` on, in the shape of their group."""
    numbers = first + jnp.arange(math.prod(group))
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers).reshape(group)


def _chunks(total: int, chunk: int) -> tuple[int, list[int]]:
    """Size and first members of equal chunks, so that one program serves all: (size, starts).

    The size is rounded up to a multiple of this process' devices; the last chunk then repeats a few members of the one before.
    """
    number = -(-total // chunk)
    count = jax.local_device_count()
    size = -(-total // (number * count)) * count
    size = size if size <= total else total
    return size, [min(i * size, total - size) for i in range(-(-total // size))]


def _storage(shape: tuple[int, ...], label: str, scratch: pathlib.Path | None) -> np.ndarray:
    if scratch is None or 4 * np.prod(shape) < _IN_MEMORY:
        return np.empty(shape, np.float32)
    scratch.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(scratch / f"{label.replace(' ', '_')}.npy", "w+", np.float32, shape)
