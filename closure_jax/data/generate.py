"""Simulates trajectories and writes them to the HDF5 file that `dataset` reads."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

import closure_jax
from closure_jax import files, interrupts
from closure_jax.data import dataset, hdf5, simulate
from closure_jax.errors import UserError
from closure_jax.parallel import devices, processes, progress
from closure_jax.problems.base import Problem, System, class_name

_BUFFER = 2**28  # bytes of snapshots in memory before they are written
_KEPT = "simulation"  # name of what is kept of one that runs


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What determines a simulated file: a problem, and which snapshots of its reference are kept.

    Attributes:
      problem: makes the data.
      seed: of the initial states and of the noise.
      trajectories, test_trajectories: how many in all, and how many of them, the last ones, test.
      burn_in, end: times between which snapshots are kept; the first comes one interval after `burn_in`.
      every: solver steps between snapshots.
      chunk: trajectories that run together; changes no number.
    """

    problem: Problem
    seed: int
    trajectories: int
    test_trajectories: int
    burn_in: float
    end: float
    every: int
    chunk: int

    def system(self) -> System:
        """The problem's reference.

        Raises:
          UserError: the problem has none.
        """
        system = self.problem.reference()
        if system is None:
            raise UserError(
                f"problem {class_name(self.problem)} cannot make data: expected a file of data in --config.data.path"
            )
        return system

    @property
    def resolution(self) -> int:
        """Points on a side of the stored fields."""
        return self.problem.stored_resolution

    def interval(self) -> float:
        """Time between two snapshots."""
        return self.every * self.problem.dt

    def parameters(self) -> dict[str, Any]:
        """Everything that the fields depend on, by name; the grouping in chunks is not among it."""
        return {
            **{name: _attribute(value) for name, value in self.problem.identity().items()},
            "seed": self.seed,
            "trajectories": self.trajectories,
            "test_trajectories": self.test_trajectories,
            "burn_in": self.burn_in,
            "end": self.end,
            "snapshot_every": self.every,
        }

    def together(self) -> int:
        """Trajectories that run at a time: `chunk` of them, or as many more as this process' devices take."""
        return min(devices.rounded(self.chunk), self.trajectories)

    def physics(self) -> dict[str, Any]:
        """Those parameters that enter the law of the closure and the rollouts."""
        return {name: _attribute(value) for name, value in self.problem.physics().items()}

    def snapshot_times(self) -> np.ndarray:
        """Times of the stored snapshots: after burn-in, each `every` steps, up to `end`."""
        interval = self.interval()
        first, last = round(self.burn_in / interval) + 1, round(self.end / interval)
        return np.arange(first, last + 1) * interval

    def file_name(self) -> str:
        """Content address: the same parameters give the same name."""
        digest = hashlib.sha256(json.dumps([dataset.SCHEMA, self.parameters()], sort_keys=True).encode()).hexdigest()
        return f"{type(self.problem).__name__.lower()}-{self.resolution}-{digest[:12]}.h5"


def _attribute(value: Any) -> Any:
    """A value as an attribute of the file keeps it: numbers and texts as they are, others as JSON."""
    return value if isinstance(value, str | bool | int | float) else json.dumps(value, sort_keys=True)


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock file beside `path` while a file is made, so that a second run waits and then finds it.

    Process 0 holds it for all processes of a run.
    """
    if not processes.is_main():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".lock")
    with files.lock(beside, waiting=f"another process is making {path}: waiting for it"):
        yield


def write(simulation: Simulation, path: pathlib.Path) -> None:
    """Simulates and writes `path`, aside and renamed: a killed run leaves no half file under that name.

    Fields are written as they are made, so memory holds a chunk's states and some 256 MB of snapshots, whatever the grid. A
    simulation that was stopped, or found the disk full, goes on in its middle, to the same bytes.
    """
    total, times, n = simulation.trajectories, simulation.snapshot_times(), simulation.resolution
    trains = total - simulation.test_trajectories
    grouping = [simulation.together(), devices.parts_of(simulation.together())]
    kept = files.Kept(path.with_name(path.name + ".begun"), [dataset.SCHEMA, simulation.parameters(), grouping])
    so_far = _so_far(kept, path, trains)
    if not so_far:
        kept.drop(_KEPT)  # of no use without the file that it was kept of
    size = 8 * total * len(times) * n * n
    with hdf5.writing(path, size, begun=bool(so_far), resumable=lambda: kept.holds(_KEPT)) as file:
        if not so_far:
            for split, count in (("train", trains), ("test", simulation.test_trajectories)):
                for field in dataset.FIELDS:
                    hdf5.room(file, f"{split}/{field}", (count, len(times), n, n))
            file["time"] = times
        _fill(simulation, file, kept, so_far)
        arrays = [file[f"{split}/{field}"] for split in dataset.SPLITS for field in dataset.FIELDS]
        file.attrs.update(
            schema=dataset.SCHEMA,
            checksum=dataset.checksum_of(arrays),
            jax_version=importlib.metadata.version("jax"),
            closure_jax_version=closure_jax.__version__,
            **simulation.parameters(),
        )
    shutil.rmtree(kept.folder, ignore_errors=True)


def _fill(simulation: Simulation, file: h5py.File, kept: files.Kept, so_far: dict[str, np.ndarray]) -> None:
    """Simulates what the file lacks, a chunk of trajectories after the other."""
    total, trains = simulation.trajectories, simulation.trajectories - simulation.test_trajectories
    burn_in = round(simulation.burn_in / simulation.interval())
    count = burn_in + len(simulation.snapshot_times())
    chunk = simulation.together()
    blocks, crc = [tuple(block) for block in so_far.get("blocks", [])], int(so_far.get("crc", 0))
    begun, number = (int(so_far[name]) if so_far else 0 for name in ("start", "number"))
    starts = range(0, total, chunk)
    bar = progress.bar(len(starts) * count, "simulate", "snapshot")
    bar.update(begun // chunk * count + number)
    for start in starts[begun // chunk :]:
        stop = min(start + chunk, total)
        keys = simulate.trajectory_keys(simulation.seed, np.arange(start, stop))
        running = simulate.Snapshots(simulation.system(), keys, simulation.every)
        if so_far and start == begun:
            running.go_on(number, [so_far[f"leaf{i}"] for i in range(int(so_far["leaves"]))])
        together = max(1, _BUFFER // (8 * (stop - start) * simulation.resolution**2))
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        while running.number < count:
            pair = running.next()
            bar.update()
            if not all(np.isfinite(field).all() for field in pair):
                shutil.rmtree(kept.folder, ignore_errors=True)  # the same command would come to the same
                raise _diverged(simulation)
            if running.number > burn_in:
                waiting.append(pair)
            is_due = kept.is_due() or interrupts.asked() is not None
            if waiting and (is_due or len(waiting) == together or running.number == count):
                last = running.number - burn_in
                block = (start, stop, last - len(waiting), last)
                for place, part, when in _places(block, trains):
                    for field, values in zip(dataset.FIELDS, zip(*waiting, strict=True), strict=True):
                        content = np.stack(values, axis=1)[part]
                        file[f"{place[0]}/{field}"][place[1], when] = content
                        crc = files.crc(content, crc)
                blocks.append(block)
                waiting = []
            if is_due:
                file.flush()
                state = running.state()
                kept.write(
                    _KEPT,
                    {f"leaf{i}": leaf for i, leaf in enumerate(state)}
                    | {"leaves": len(state), "start": start, "number": running.number, "blocks": blocks, "crc": crc},
                )
            interrupts.check()
    bar.close()


def _diverged(simulation: Simulation) -> UserError:
    """What to change of a simulation that has left the finite numbers."""
    owners = {"problem": simulation.problem, "flow": getattr(simulation.problem, "flow", None)}
    larger = [
        f" or a larger --config.{name}.viscosity" for name, owner in owners.items() if hasattr(owner, "viscosity")
    ]
    return UserError(
        f"the simulation left the finite numbers: expected a smaller --config.problem.dt={simulation.problem.dt:g}"
        f"{''.join(larger)}"
    )


def _so_far(kept: files.Kept, path: pathlib.Path, trains: int) -> dict[str, np.ndarray]:
    """What was kept of a simulation, where its partial file holds what was written; else empty."""
    found, crc = kept.read(_KEPT), 0
    if not found:
        return {}
    try:
        with h5py.File(files.partial_name(path)) as file:
            if len(file.attrs):  # it was being finished: what describes its arrays may be half written
                return {}
            for block in found["blocks"]:
                for (split, rows), _, when in _places(block, trains):
                    for field in dataset.FIELDS:
                        crc = files.crc(file[f"{split}/{field}"][rows, when], crc)
    except (OSError, KeyError, ValueError, RuntimeError):
        return {}
    return found if crc == found["crc"] else {}


def _places(block: Sequence[int], trains: int) -> list[tuple[tuple[str, slice], slice, slice]]:
    """Where snapshots `first` to `last` of the trajectories `start` to `stop` lie: (split, its rows), which of the trajectories,
    and times."""
    start, stop, first, last = (int(number) for number in block)
    cut = min(max(start, trains), stop)
    parts = (
        ("train", slice(start, cut), slice(0, cut - start)),
        ("test", slice(cut - trains, stop - trains), slice(cut - start, None)),
    )
    return [((split, rows), part, slice(first, last)) for split, rows, part in parts if rows.stop > rows.start]
