"""Ensembles of coupled runs: many members, cut in chunks, split over devices, with their snapshots."""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from closure_jax import devices
from closure_jax.coupling import advance as advance_lib
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import spectral

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
    flow: flow_lib.KolmogorovFlow,
    closure: flow_lib.ClosureSampler,
    vorticity: np.ndarray,
    key: jax.Array,
    dt: float,
    hold: int,
    units: int,
    label: str,
    chunk: int = 128,
    scratch: pathlib.Path | None = None,
) -> Rollout:
    """Runs (states, members, n, n) for `units` time units; member m of all states together has the key fold_in(key, m).

    About `chunk` members run at a time, split over this process' devices where they divide; the grouping changes nothing.
    Snapshots beyond 1 GiB are written to a file in the folder `scratch` as they are made, if there is one.
    """
    states, members, *grid = vorticity.shape
    per_unit = round(1 / dt)
    frames_per_unit = _FRAMES_PER_UNIT if per_unit % (_FRAMES_PER_UNIT * hold) == 0 else 1
    segment = per_unit // frames_per_unit
    size, starts = _chunks(states * members, chunk)
    parts = devices.parts_of(size)
    advance = advance_lib.advance(flow, closure, dt, hold)
    run = devices.map_members(lambda *arguments: advance(*arguments, segment), parts, (0, 0, None), donate=1)
    to_physical = devices.map_members(spectral.to_physical, parts)
    fields = _storage((units + 1, states * members, *grid), label, scratch)
    fields[0] = vorticity.reshape(states * members, *grid)
    frames, seconds, compiled = [vorticity[0, 0]], 0.0, None
    bar = tqdm(total=len(starts) * units * frames_per_unit, desc=label, unit="frame", disable=None)
    for begin in starts:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(begin, begin + size))
        state = spectral.to_fourier(jnp.asarray(fields[0, begin : begin + size]))
        if compiled is None:  # from arrays of its own: what is donated may be gone after lowering
            compiled = run.lower(*devices.split_members((keys, state), parts), 0).compile()
        keys, state = devices.split_members((keys, state), parts)
        start = time.perf_counter()
        for index in range(units * frames_per_unit):
            state = compiled(keys, state, index * segment)
            whole = (index + 1) % frames_per_unit == 0
            if whole:
                fields[(index + 1) // frames_per_unit, begin : begin + size] = devices.join_members(to_physical(state))
            if begin == 0:
                frames.append(np.asarray(spectral.to_physical(state[0, 0])))
            bar.update()
        jax.block_until_ready(state)
        seconds += time.perf_counter() - start
    bar.close()
    return Rollout(fields.reshape(units + 1, *vorticity.shape), np.stack(frames), seconds)


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
