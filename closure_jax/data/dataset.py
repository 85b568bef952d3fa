"""One HDF5 file of trajectories: schema, splits, normalisation, provenance, checksum.

Schema `closure_jax/1`:
  /time                      (time,) of the snapshots
  /train/vorticity           (trajectory, time, x, y) float32       /train/closure  likewise
  /test/vorticity            (trajectory, time, x, y) float32       /test/closure   likewise
  attributes                 schema, every parameter of the problem, its flow and `data`, versions, checksum (SHA-256 of the
                             four arrays)
The last tenth of the training trajectories validates. Files in the authors' layout, (field, x, y) in order of trajectory
under train_vorticity_64, train_nonlinear_64, test_vorticity_64, test_nonlinear_64, are read as well; so are pairs of any
solver, `resolved` and `subgrid` (trajectory, time, x, y), of which the last tenth of the trajectories tests, with an optional
`time` (time,) of evenly spaced snapshots, the first at a whole number of intervals above 0; 1, 2, 3, ... without it.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np

from closure_jax.data import hdf5
from closure_jax.errors import UserError

SCHEMA = "closure_jax/1"
SPLITS = ("train", "test")
FIELDS = ("vorticity", "closure")

_UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, MemoryError, RuntimeError)
"""What reading a file raises that is none of ours, or damaged."""


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

    def in_physical_units(self) -> "Dataset":
        """The same with fields that stay as they are where others are normalised."""
        return dataclasses.replace(self, normalisation={field: Normalisation(0.0, 1.0) for field in FIELDS})


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
                arrays = {(s, f): hdf5.whole(file, f"{s}/{f}") for s in SPLITS for f in FIELDS}
                time, stored = _times(path, file), file.attrs["checksum"]
                _check_physics(path, file.attrs, physics or {})
            elif "train_vorticity_64" in file:
                arrays = _authors_arrays(path, file, snapshots)
                time, stored = burn_in + interval * np.arange(1, snapshots + 1), None
            elif "resolved" in file:
                arrays, time, stored = _any_arrays(path, file), _any_times(path, file), None
            else:
                raise UserError(
                    f"data file '{path}' has neither schema '{SCHEMA}' nor train_vorticity_64 nor resolved: expected one of them"
                )
    except _UNREADABLE as error:
        raise UserError(
            f"data file '{path}' can't be read ({error}): give another, or delete it to make it anew"
        ) from None
    _check_shapes(arrays, path)
    _check_times(arrays, time, path)
    checksum = checksum_of(arrays[key] for key in ((s, f) for s in SPLITS for f in FIELDS))
    if stored is not None and stored != checksum:
        raise UserError(
            f"data file '{path}' is damaged (its checksum differs): give another, or delete it to make it anew"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"data file '{path}' holds values that are not finite: expected finite fields")
    dataset = _split(arrays, time, checksum, path)
    for field in FIELDS:
        for split, array in getattr(dataset, field).items():
            if array.min() == array.max():
                raise UserError(
                    f"data file '{path}' has a {split} {field} of {array.flat[0]:g} everywhere: expected fields that vary"
                )
    return dataset


def _check_physics(path: pathlib.Path, attributes: Mapping[str, Any], physics: Mapping[str, Any]) -> None:
    for name, value in physics.items():
        stored = attributes.get(name, value)  # files of an earlier release lack some
        if stored != value:
            of_code = name in ("problem", "flow_class", "equation")
            remedy = "its code differs" if of_code else "--dry_run prints the section of that field"
            raise UserError(
                f"data file '{path}' was made with {name} = {stored}, the configuration has {value}: expected the same; {remedy}"
            )


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
                array = hdf5.whole(source, f"{split}_{name}")
                array = array.astype(np.float32) if array.dtype.kind == "f" else array
                if len(array) % snapshots:
                    raise UserError(
                        f"data file '{path}' has {len(array)} fields in {split}_{name}: expected a multiple of the"
                        f" {snapshots} snapshots of a trajectory (--config.data.burn_in, end and snapshot_every)"
                    )
                arrays[split, field] = array.reshape(-1, snapshots, *array.shape[1:])
    return arrays


def _any_arrays(path: pathlib.Path, file: h5py.File) -> dict[tuple[str, str], np.ndarray]:
    fields = {field: hdf5.whole(file, name) for field, name in (("vorticity", "resolved"), ("closure", "subgrid"))}
    resolved = fields["vorticity"]
    if resolved.ndim != 4 or len(resolved) < 3:
        raise UserError(
            f"data file '{path}' has resolved of shape {resolved.shape}: expected (trajectory, time, n, n) of at least 3"
            " trajectories (train, validation, test)"
        )
    tests = max(1, len(resolved) // 10)
    parts = {"train": slice(None, -tests), "test": slice(-tests, None)}
    return {
        (split, field): array[part].astype(np.float32) if array.dtype.kind == "f" else array[part]
        for split, part in parts.items()
        for field, array in fields.items()
    }


def _any_times(path: pathlib.Path, file: h5py.File) -> np.ndarray:
    count = hdf5.sound(file, "resolved").shape[1]
    time = np.arange(1.0, count + 1) if "time" not in file else _times(path, file)
    interval = (time[-1] - time[0]) / (len(time) - 1) if len(time) > 1 else 0.0
    first = time[0] / interval if interval > 0 else float("nan")
    off = np.abs(time - time[0] - interval * np.arange(len(time)))
    even = interval > 0 and np.all(off <= 1e-3 * interval + 1e-6 * np.abs(time))  # the latter: single precision
    if not even or first < 0.5 or abs(first - round(first)) > 1e-2:
        raise UserError(
            f"data file '{path}' has times {', '.join(f'{one:g}' for one in time[:3])}, ...: expected at least 2, evenly"
            " spaced, the first one interval or some after 0, such as 0.1, 0.2, ...; or leave out time"
        )
    return time


def _times(path: pathlib.Path, file: h5py.File) -> np.ndarray:
    """/time of a file, float64."""
    time = hdf5.whole(file, "time")
    if time.ndim != 1 or time.dtype.kind not in "fiu" or len(time) < 2 or not np.all(np.diff(time) > 0):
        raise UserError(
            f"data file '{path}' has time of shape {time.shape} and type {time.dtype}: expected at least 2 numbers, ascending"
        )
    return time.astype(np.float64)


def size_and_times(path: pathlib.Path) -> tuple[int, np.ndarray]:
    """Points on a side of the fields of a file, and its times, without the fields.

    Raises:
      UserError: it can't be read, or has neither schema nor `resolved`.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("schema") == SCHEMA:
                return file["train/vorticity"].shape[-1], _times(path, file)
            if "resolved" in file:
                return file["resolved"].shape[-1], _any_times(path, file)
    except _UNREADABLE as error:
        raise UserError(f"data file '{path}' can't be read ({error}): expected an HDF5 file of pairs") from None
    raise UserError(f"data file '{path}' has neither schema '{SCHEMA}' nor resolved: expected one of the two")


def _check_shapes(arrays: dict[tuple[str, str], np.ndarray], path: pathlib.Path) -> None:
    n = arrays["train", "vorticity"].shape[-1]
    for (split, field), array in arrays.items():
        fits = array.ndim == 4 and array.shape[2:] == (n, n) and array.shape == arrays[split, "vorticity"].shape
        if array.dtype.name not in ("float32", "float64"):
            raise UserError(
                f"data file '{path}' has a {split} {field} of type {array.dtype}: expected float32 or float64"
            )
        if not fits or 0 in array.shape:
            raise UserError(
                f"data file '{path}' has {split} {field} of shape {array.shape}: expected (trajectory, time, n, n), the same n"
                " throughout and as many vorticities as closures"
            )


def _check_times(arrays: dict[tuple[str, str], np.ndarray], time: np.ndarray, path: pathlib.Path) -> None:
    for split in SPLITS:
        snapshots = arrays[split, "vorticity"].shape[1]
        if np.shape(time) != (snapshots,) or not (np.diff(time) > 0).all():
            raise UserError(
                f"data file '{path}' has {np.size(time)} times of {snapshots} snapshots in {split}: expected one for each,"
                " ascending"
            )


def checksum_of(arrays: Iterable[Any]) -> str:
    """SHA-256 of arrays, on disk or in memory, a trajectory at a time."""
    digest = hashlib.sha256()
    for array in arrays:
        for index in range(array.shape[0]):
            digest.update(np.ascontiguousarray(array[index]).data)
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
