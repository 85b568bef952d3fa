"""One HDF5 file of trajectories: schema, splits, normalisation, provenance, checksum.

Schema `closure_jax/1`:
  /time                      (time,) of the snapshots
  /train/vorticity           (trajectory, time, x, y) float32       /train/closure  likewise
  /test/vorticity            (trajectory, time, x, y) float32       /test/closure   likewise
  attributes                 schema, every parameter of `flow` and `data`, seed, versions, checksum (SHA-256 of the four arrays)
The last tenth of the training trajectories validates. Files in the authors' layout, (field, x, y) in order of trajectory
under train_vorticity_64, train_nonlinear_64, test_vorticity_64, test_nonlinear_64, are read as well.
"""

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
from closure_jax.data import simulate
from closure_jax.errors import UserError
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib

SCHEMA = "closure_jax/1"
SPLITS = ("train", "test")
FIELDS = ("vorticity", "closure")
_BUFFER = 2**28  # bytes of snapshots in memory before they are written
_TOGETHER = 2**24  # bytes, at most, that the file keeps in one piece


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of a field over the training fields; numbers, in the field's units."""

    mean: float
    std: float

    def apply(self, field: Any) -> Any:
        """Physical units to mean 0, variance 1."""
        return (field - self.mean) / self.std

    def invert(self, field: Any) -> Any:
        """Back to physical units."""
        return field * self.std + self.mean


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Trajectories in memory.

    Attributes:
      time: (time,) of the snapshots.
      vorticity, closure: {"train" | "validation" | "test": (trajectory, time, n, n) float32}.
      normalisation: {"vorticity" | "closure": Normalisation}, of the training split.
      checksum: SHA-256 of the file's arrays.
      path: where it was read.
    """

    time: np.ndarray
    vorticity: dict[str, np.ndarray]
    closure: dict[str, np.ndarray]
    normalisation: dict[str, Normalisation]
    checksum: str
    path: pathlib.Path

    def fields(self, name: str, split: str) -> np.ndarray:
        """All fields of `name` ('vorticity' or 'closure') of a split, (trajectory * time, n, n), physical units."""
        array = getattr(self, name)[split]
        return array.reshape(-1, *array.shape[2:])

    def first(self, count: int) -> "Dataset":
        """The same with the first `count` training trajectories only: normalisation and checksum are those of this part.

        Raises:
          UserError: there are not so many.
        """
        held = len(self.vorticity["train"])
        if count > held:
            raise UserError(
                f"--config.data.train_trajectories={count}: expected at most {held}, the training trajectories of"
                f" '{self.path.name}' (0 for all)"
            )
        cut = {field: {**getattr(self, field), "train": getattr(self, field)["train"][:count]} for field in FIELDS}
        checksum = hashlib.sha256(f"{self.checksum}, first {count}".encode()).hexdigest()
        norms = {field: _normalisation(parts["train"]) for field, parts in cut.items()}
        return dataclasses.replace(self, **cut, normalisation=norms, checksum=checksum)


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
        digest = hashlib.sha256(json.dumps([SCHEMA, self.parameters()], sort_keys=True).encode()).hexdigest()
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


def generate(simulation: Simulation, path: pathlib.Path) -> None:
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
            for field in FIELDS
        }
        file["time"] = times
        starts = range(0, total, chunk)
        progress = tqdm(total=len(starts) * (burn_in + len(times)), desc="simulate", unit="snapshot", disable=None)
        for start in starts:
            indices = np.arange(start, min(start + chunk, total))
            is_test = indices >= trains
            for first, pairs in _simulate(simulation, indices, burn_in, progress):
                when = slice(first, first + pairs[0].shape[1])
                for field, values in zip(FIELDS, pairs, strict=True):
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
            schema=SCHEMA,
            checksum=_checksum(arrays[split, field] for split in SPLITS for field in FIELDS),
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


def load(
    path: pathlib.Path, snapshots: int, interval: float, burn_in: float, physics: dict[str, Any] | None = None
) -> Dataset:
    """Reads a file in our schema, or one or two files in the authors' layout.

    Args:
      path: the file; for the authors' layout the training file, whose test arrays stand in it or in the file of the same
        name with 'test' for 'train'.
      snapshots, interval, burn_in: of one trajectory, needed by the authors' layout only.
      physics: parameters that a file in our schema must have been made with (see `Simulation.physics`).
    Raises:
      UserError: no such file, not HDF5, neither layout, damaged, or not finite.
    """
    if not path.is_file():
        raise UserError(f"data file '{path}' does not exist: expected an HDF5 file for --config.data.path")
    try:
        with h5py.File(path) as file:
            if file.attrs.get("schema") == SCHEMA:
                arrays = {(s, f): file[f"{s}/{f}"][:] for s in SPLITS for f in FIELDS}
                time, stored = file["time"][:], file.attrs["checksum"]
                for name, value in (physics or {}).items():
                    if file.attrs.get(name, value) != value:
                        raise UserError(
                            f"data file '{path}' was made with {name} = {file.attrs[name]}, the configuration has {value}:"
                            f" expected the same; set --config.flow.{name}"
                        )
            elif "train_vorticity_64" in file:
                arrays = _authors_arrays(path, file, snapshots)
                time, stored = burn_in + interval * np.arange(1, snapshots + 1), None
            else:
                raise UserError(
                    f"data file '{path}' has neither schema '{SCHEMA}' nor train_vorticity_64: expected one of the two"
                )
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"data file '{path}' can't be read ({error}): give another, or delete it to make it anew"
        ) from None
    _check_shapes(arrays, path)
    checksum = _checksum(arrays[key] for key in ((s, f) for s in SPLITS for f in FIELDS))
    if stored is not None and stored != checksum:
        raise UserError(
            f"data file '{path}' is damaged (its checksum differs): give another, or delete it to make it anew"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"data file '{path}' holds values that are not finite: expected finite fields")
    return _split(arrays, time, checksum, path)


def _authors_arrays(path: pathlib.Path, file: h5py.File, snapshots: int) -> dict[tuple[str, str], np.ndarray]:
    names = {"vorticity": "vorticity_64", "closure": "nonlinear_64"}
    with contextlib.ExitStack() as stack:
        test_file = file
        if "test_vorticity_64" not in file:
            sibling = path.with_name(path.name.replace("train", "test"))
            if sibling == path or not sibling.is_file():
                raise UserError(
                    f"data file '{path}' has no test_vorticity_64: expected it there or in '{sibling.name}'"
                )
            test_file = stack.enter_context(h5py.File(sibling))
        arrays = {}
        for split, source in (("train", file), ("test", test_file)):
            for field, name in names.items():
                array = source[f"{split}_{name}"][:].astype(np.float32)
                if len(array) % snapshots:
                    raise UserError(
                        f"data file '{path}' has {len(array)} fields in {split}_{name}: expected a multiple of the"
                        f" {snapshots} snapshots of a trajectory (--config.data.burn_in, end and snapshot_every)"
                    )
                arrays[split, field] = array.reshape(-1, snapshots, *array.shape[1:])
    return arrays


def _check_shapes(arrays: dict[tuple[str, str], np.ndarray], path: pathlib.Path) -> None:
    n = arrays["train", "vorticity"].shape[-1]
    for (split, field), array in arrays.items():
        fits = array.ndim == 4 and array.shape[2:] == (n, n) and array.shape == arrays[split, "vorticity"].shape
        if not fits or array.shape[0] == 0:
            raise UserError(
                f"data file '{path}' has {split} {field} of shape {array.shape}: expected (trajectory, time, n, n), the same n"
                " throughout and as many vorticities as closures"
            )


def _checksum(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        for index in range(array.shape[0]):
            digest.update(np.ascontiguousarray(array[index]))
    return digest.hexdigest()


def validation_trajectories(count: int) -> int:
    """How many of `count` training trajectories, the last ones, are held out to validate."""
    return max(1, count // 10)


def _split(arrays: dict[tuple[str, str], np.ndarray], time: np.ndarray, checksum: str, path: pathlib.Path) -> Dataset:
    count = len(arrays["train", "vorticity"])
    if count < 2:
        raise UserError(f"data file '{path}' has {count} training trajectories: expected at least 2")
    held = validation_trajectories(count)
    parts = {
        field: {
            "train": arrays["train", field][: count - held],
            "validation": arrays["train", field][count - held :],
            "test": arrays["test", field],
        }
        for field in FIELDS
    }
    normalisation = {field: _normalisation(part["train"]) for field, part in parts.items()}
    return Dataset(time, parts["vorticity"], parts["closure"], normalisation, checksum, path)


def _normalisation(values: np.ndarray) -> Normalisation:
    return Normalisation(float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))
