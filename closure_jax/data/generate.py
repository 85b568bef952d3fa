"""Simulates trajectories and writes them to the HDF5 file that `dataset` reads."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

import closure_jax
from closure_jax import files, interrupts
from closure_jax.data import dataset, hdf5, simulate
from closure_jax.errors import UserError
from closure_jax.parallel import processes, progress
from closure_jax.problems.base import Problem, System, class_name

_BUFFER = 2**28  # bytes of snapshots in memory before they are written
_TOGETHER = 2**24  # bytes, at most, that the file keeps in one piece


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

    Fields are written as they are made, so memory holds a chunk's states and some 256 MB of snapshots, whatever the grid.
    """
    total, tests = simulation.trajectories, simulation.test_trajectories
    trains = total - tests
    times = simulation.snapshot_times()
    n = simulation.resolution
    burn_in = round(simulation.burn_in / simulation.interval())
    chunk = min(simulation.chunk, total)
    together = max(1, min(50, len(times), _TOGETHER // (4 * n * n)))
    with hdf5.writing(path, 8 * total * len(times) * n * n) as file:
        arrays = {
            (split, field): file.create_dataset(
                f"{split}/{field}", (count, len(times), n, n), np.float32, chunks=(1, together, n, n)
            )
            for split, count in (("train", trains), ("test", tests))
            for field in dataset.FIELDS
        }
        file["time"] = times
        starts = range(0, total, chunk)
        bar = progress.bar(len(starts) * (burn_in + len(times)), "simulate", "snapshot")
        for start in starts:
            indices = np.arange(start, min(start + chunk, total))
            is_test = indices >= trains
            for first, pairs in _simulate(simulation, indices, burn_in, bar):
                when = slice(first, first + pairs[0].shape[1])
                for field, values in zip(dataset.FIELDS, pairs, strict=True):
                    if not is_test.all():
                        arrays["train", field][indices[~is_test], when] = values[~is_test]
                    if is_test.any():
                        arrays["test", field][indices[is_test] - trains, when] = values[is_test]
        bar.close()
        if not all(np.isfinite(array[i]).all() for array in arrays.values() for i in range(array.shape[0])):
            raise UserError(
                f"the simulation left the finite numbers: expected a smaller --config.problem.dt={simulation.problem.dt:g}"
                " or a larger --config.flow.viscosity"
            )
        file.attrs.update(
            schema=dataset.SCHEMA,
            checksum=dataset.checksum_of(arrays[split, field] for split in dataset.SPLITS for field in dataset.FIELDS),
            jax_version=importlib.metadata.version("jax"),
            closure_jax_version=closure_jax.__version__,
            **simulation.parameters(),
        )


def _simulate(
    simulation: Simulation, indices: np.ndarray, burn_in: int, bar: tqdm
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Vorticity and closure of the trajectories `indices` after `burn_in` snapshots, some times at once: the number of the
    first time, and (trajectory, time, n, n) each."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    count = burn_in + len(simulation.snapshot_times())
    together = max(1, _BUFFER // (8 * len(indices) * simulation.resolution**2))
    keys = simulate.trajectory_keys(simulation.seed, indices)
    pairs = simulate.snapshots(simulation.system(), keys, simulation.every, count)
    for number, pair in enumerate(pairs):
        bar.update()
        interrupts.check()
        if number < burn_in:
            continue
        waiting.append(pair)
        if len(waiting) == together or number == count - 1:
            first = number - burn_in + 1 - len(waiting)
            yield first, [np.stack(fields, axis=1) for fields in zip(*waiting, strict=True)]
            waiting = []
