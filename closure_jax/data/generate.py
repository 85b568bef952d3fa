"""Simulates trajectories and writes them to the HDF5 file that `dataset` reads."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

import closure_jax
from closure_jax import devices
from closure_jax.data import dataset, simulate
from closure_jax.errors import UserError
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib

_BUFFER = 2**28  # bytes of snapshots in memory before they are written
_TOGETHER = 2**24  # bytes, at most, that the file keeps in one piece


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What determines a simulated file: the system, and which snapshots are kept."""

    flow: flow_lib.KolmogorovFlow
    noise: noise_lib.QWienerNoise
    initial: noise_lib.GaussianRandomField
    seed: int
    trajectories: int
    test_trajectories: int
    resolution: int
    burn_in: float
    end: float
    every: int
    chunk: int

    def parameters(self) -> dict[str, Any]:
        """Every number that the fields depend on, by name; the grouping in chunks is not among them."""
        return {
            "flow": type(self.flow).__name__,
            "solver_resolution": self.flow.grid.shape[0],
            "domain_length": self.flow.grid.domain[0][1],
            "viscosity": self.flow.viscosity,
            "forcing_amplitude": self.flow.forcing_amplitude,
            "forcing_wavenumber": self.flow.forcing_wavenumber,
            "dt": self.noise.dt,
            "noise_sigma": self.noise.sigma,
            "noise_kappa": self.noise.kappa,
            "noise_alpha": self.noise.alpha,
            "initial_alpha": self.initial.alpha,
            "initial_tau": self.initial.tau,
            "seed": self.seed,
            "trajectories": self.trajectories,
            "test_trajectories": self.test_trajectories,
            "resolution": self.resolution,
            "burn_in": self.burn_in,
            "end": self.end,
            "snapshot_every": self.every,
        }

    def physics(self) -> dict[str, Any]:
        """Those parameters that enter the exact law of the closure and the rollouts."""
        names = ("flow", "domain_length", "viscosity", "forcing_amplitude", "forcing_wavenumber", "dt")
        names += ("noise_sigma", "noise_kappa", "noise_alpha")
        return {name: value for name, value in self.parameters().items() if name in names}

    def snapshot_times(self) -> np.ndarray:
        """Times of the stored snapshots: after burn-in, each `every` steps, up to `end`."""
        interval = self.every * self.noise.dt
        first, last = round(self.burn_in / interval) + 1, round(self.end / interval)
        return np.arange(first, last + 1) * interval

    def file_name(self) -> str:
        """Content address: the same parameters give the same name."""
        digest = hashlib.sha256(json.dumps([dataset.SCHEMA, self.parameters()], sort_keys=True).encode()).hexdigest()
        return f"kolmogorov-{self.resolution}-{digest[:12]}.h5"


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock file beside `path` while a file is made, so that a second run waits and then finds it.

    Process 0 holds it for all processes of a run.
    """
    if not devices.is_main():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is making {path}: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(simulation: Simulation, path: pathlib.Path) -> None:
    """Simulates and writes `path`, aside and renamed: a killed run leaves no half file under that name.

    Fields are written as they are made, so memory holds a chunk's states and some 256 MB of snapshots, whatever the grid.
    """
    partial = path.with_name(path.name + ".partial")
    total, tests = simulation.trajectories, simulation.test_trajectories
    trains = total - tests
    times = simulation.snapshot_times()
    n = simulation.resolution
    burn_in = round(simulation.burn_in / (simulation.every * simulation.noise.dt))
    chunk = min(simulation.chunk, total)
    together = max(1, min(50, len(times), _TOGETHER // (4 * n * n)))
    with h5py.File(partial, "w") as file:
        arrays = {
            (split, field): file.create_dataset(
                f"{split}/{field}", (count, len(times), n, n), np.float32, chunks=(1, together, n, n)
            )
            for split, count in (("train", trains), ("test", tests))
            for field in dataset.FIELDS
        }
        file["time"] = times
        starts = range(0, total, chunk)
        progress = tqdm(total=len(starts) * (burn_in + len(times)), desc="simulate", unit="snapshot", disable=None)
        for start in starts:
            indices = np.arange(start, min(start + chunk, total))
            is_test = indices >= trains
            for first, pairs in _simulate(simulation, indices, burn_in, progress):
                when = slice(first, first + pairs[0].shape[1])
                for field, values in zip(dataset.FIELDS, pairs, strict=True):
                    if not is_test.all():
                        arrays["train", field][indices[~is_test], when] = values[~is_test]
                    if is_test.any():
                        arrays["test", field][indices[is_test] - trains, when] = values[is_test]
        progress.close()
        if not all(np.isfinite(array[i]).all() for array in arrays.values() for i in range(array.shape[0])):
            raise UserError(
                f"the simulation left the finite numbers: expected a smaller --config.flow.dt={simulation.noise.dt:g}"
                " or a larger --config.flow.viscosity"
            )
        file.attrs.update(
            schema=dataset.SCHEMA,
            checksum=dataset.checksum_of(arrays[split, field] for split in dataset.SPLITS for field in dataset.FIELDS),
            jax_version=importlib.metadata.version("jax"),
            closure_jax_version=closure_jax.__version__,
            **simulation.parameters(),
        )
    os.replace(partial, path)


def _simulate(
    simulation: Simulation, indices: np.ndarray, burn_in: int, progress: tqdm
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Vorticity and closure of the trajectories `indices` after `burn_in` snapshots, some times at once: the number of the
    first time, and (trajectory, time, n, n) each."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    count = burn_in + len(simulation.snapshot_times())
    together = max(1, _BUFFER // (8 * len(indices) * simulation.resolution**2))
    pairs = simulate.snapshots(
        simulation.flow,
        simulation.noise,
        simulation.initial,
        simulate.trajectory_keys(simulation.seed, indices),
        simulation.resolution,
        simulation.every,
        count,
    )
    for number, pair in enumerate(pairs):
        progress.update()
        if number < burn_in:
            continue
        waiting.append(pair)
        if len(waiting) == together or number == count - 1:
            first = number - burn_in + 1 - len(waiting)
            yield first, [np.stack(fields, axis=1) for fields in zip(*waiting, strict=True)]
            waiting = []
