"""Ensembles of coupled runs: many members, cut in chunks, split over devices, with their snapshots."""

import dataclasses
import functools
import math
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
from closure_jax.files import Kept, crc
from closure_jax.parallel import devices, progress

_FRAMES_PER_UNIT = 5
_WORTH_KEEPING = 5.0  # seconds; an ensemble that took less is run again where its work is taken up


@dataclasses.dataclass(frozen=True)
class Rollout:
    """An ensemble's run: `fields` (units + 1, states, members, n, n) at whole time units, 0 included; `frames` (F, n, n) of the
    first member of the first state; `seconds` of stepping, compilation apart. `fields` lie in a file where the run is kept."""

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
    kept: Kept | None = None,
) -> Rollout:
    """Runs an ensemble; member m of all states together has the key fold_in(key, m).

    About `chunk` members run at a time, split over this process' devices where they divide; the grouping changes nothing.
    Where members of a state influence each other, all run together on one device.

    Args:
      dynamics: what is integrated.
      vorticity: at time 0, physical units.
      key: of the ensemble.
      units: whole time units to run.
      label: of the progress bar, and of what is kept.
      chunk: members that run together.
      kept: where fields are written as they are made, and from where an ensemble that was stopped goes on, to the same numbers;
        None keeps them in memory. Its identity says what `dynamics` is.
    Raises:
      UserError: a time unit is not a whole number of the dynamics' periods.
    """
    (run,) = rollouts(dynamics, vorticity, {label: key}, units, chunk, kept)
    return run


def rollouts(
    dynamics: Dynamics,
    vorticity: Float[np.ndarray, "state member n n"],
    keys: Mapping[str, Key[Array, ""]],
    units: int,
    chunk: int = 128,
    kept: Kept | None = None,
) -> list[Rollout]:
    """Ensembles that differ by their keys from one program, see `rollout`.

    Args:
      dynamics: what is integrated.
      vorticity: at time 0, physical units.
      keys: of the ensembles, by label.
      units: whole time units to run.
      chunk: members that run together.
      kept: where fields are written as they are made.
    """
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
        begun = _Begun(kept, label, vorticity, key, units, [size, parts, segment, frames_per_unit])
        fields = begun.fields
        bar = progress.bar(len(starts) * units * frames_per_unit, label, "frame")
        bar.update(begun.chunk * units * frames_per_unit + begun.frame)
        for number in range(begun.chunk, len(starts)):
            first = starts[number]
            now = slice(first, first + size)
            each, initial = devices.split_members(
                (_member_keys(key, first, group), fields[0, now].reshape(*group, *grid)), parts
            )
            if compiled is None:  # from a state of its own: what is donated may be gone after lowering
                apart = begin(each, initial)
                compiled = run.lower(each, apart, 0).compile()
                jax.block_until_ready(look(apart))
                del apart
            state = begin(each, initial)
            if begun.leaves:
                state = devices.from_host(begun.leaves, state, parts)
            jax.block_until_ready(state)
            begun.starts()
            for index in range(begun.frame, units * frames_per_unit):
                state = compiled(each, state, index * segment)
                unit, within = divmod(index + 1, frames_per_unit)
                if first == 0 or within == 0:
                    seen = look(state)
                    if first == 0:
                        begun.frames.append(devices.first(seen)[0, 0].copy())
                    if within == 0:
                        fields[unit, now] = devices.join_members(seen).reshape(size, *grid)
                bar.update()
                if begun.is_due():
                    begun.keep(number, index + 1, devices.to_host(state), (first, size, unit + 1))
                interrupts.check()
            jax.block_until_ready(state)
            begun.ends()
        bar.close()
        if begun.seconds > _WORTH_KEEPING:
            begun.keep(len(starts), 0, [], (states * members, 0, 0))
        runs.append(Rollout(fields.reshape(units + 1, *vorticity.shape), np.stack(begun.frames), begun.seconds))
    return runs


class _Begun:
    """An ensemble as far as it has come: from nothing, or from where it was kept.

    Attributes:
      fields: (units + 1, states * members, n, n), whole up to where it has come.
      frames: of the first member of the first state.
      seconds: of stepping.
      chunk, frame: which of its chunks runs next, and from which frame of it.
      leaves: of that chunk's state; empty at frame 0.
    """

    def __init__(
        self,
        kept: Kept | None,
        label: str,
        vorticity: np.ndarray,
        key: Key[Array, ""],
        units: int,
        grouping: list[int],
    ):
        states, members, *grid = vorticity.shape
        shape = (units + 1, states * members, *grid)
        self._kept, self._name, self._since = kept, label, 0.0
        self._asked = functools.reduce(
            lambda before, one: crc(np.asarray(one), before),
            (vorticity, jax.random.key_data(key), [units, *grouping]),
            0,
        )
        self.fields = np.empty(shape, np.float32) if kept is None else kept.array(self._name, shape)
        self.frames, self.seconds, self.chunk, self.frame, self.leaves = [vorticity[0, 0]], 0.0, 0, 0, []
        found = kept.read(self._name) if kept is not None else {}
        if found and found["asked"] == self._asked and found["crc"] == self._crc_of(found["whole"]):
            self.frames, self.seconds = list(found["frames"]), float(found["seconds"])
            self.chunk, self.frame = int(found["chunk"]), int(found["frame"])
            self.leaves = [found[f"leaf{number}"] for number in range(int(found["leaves"]))]
        else:
            self.fields[0] = vorticity.reshape(shape[1:])

    def starts(self) -> None:
        """A chunk starts to step, or goes on."""
        self._since = time.perf_counter()

    def ends(self) -> None:
        """A chunk has ended."""
        self._count()
        self.frame, self.leaves = 0, []

    def is_due(self) -> bool:
        """Whether it should be kept now: after a while, and where the work is asked to end."""
        return self._kept is not None and (self._kept.is_due() or interrupts.asked() is not None)

    def keep(self, chunk: int, frame: int, leaves: list[np.ndarray], whole: tuple[int, int, int]) -> None:
        """Keeps how far it has come.

        Args:
          chunk, frame: what runs next.
          leaves: of the chunk's state.
          whole: which fields are: all of the first members, as many as the first number says, and of the next ones, as many as
            the second says, those of the first time units, as many as the third says.
        """
        if self._kept is None:
            return
        self._count()
        self._kept.write(
            self._name,
            {f"leaf{number}": leaf for number, leaf in enumerate(leaves)}
            | {"leaves": len(leaves), "chunk": chunk, "frame": frame, "seconds": self.seconds, "frames": self.frames}
            | {"asked": self._asked, "whole": np.asarray(whole), "crc": self._crc_of(whole)},
        )
        self.starts()

    def _count(self) -> None:
        self.seconds += time.perf_counter() - self._since

    def _crc_of(self, whole: Any) -> int:
        members, more, units = whole
        done = [fields[:members] for fields in self.fields]
        done += [fields[members : members + more] for fields in self.fields[:units]]
        return functools.reduce(lambda before, fields: crc(fields, before), done, 0)


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
    size = min(devices.rounded(-(-total // number)), total)
    return size, [min(i * size, total - size) for i in range(-(-total // size))]
