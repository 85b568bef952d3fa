"""Arrays that several runs share beside their data: made by the first, and read by the others."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from closure_jax.data import hdf5
from closure_jax.data.dataset import checksum_of
from closure_jax.data.generate import exclusive


def once(
    file: pathlib.Path,
    names: Sequence[str],
    make: Callable[[], Mapping[str, np.ndarray]],
    label: str,
    facts: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The arrays of `file`, which `make()` gives where there is none, or a damaged one; a second process waits.

    Args:
      file: an HDF5 file, whose name says all that the arrays depend on.
      names: of the arrays.
      make: computes them.
      label: before what is said of a damaged file.
      facts: attributes of the file.
    """
    with exclusive(file):
        with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(file) as stored:
            found = {name: hdf5.whole(stored, name) for name in names}
            if stored.attrs.get("sha256") == checksum_of(found.values()):
                return found
            print(f"{label}: '{file}' is damaged, or of release 0.1: made anew")
        made = make()
        with hdf5.writing(file, sum(made[name].nbytes for name in names)) as target:
            for name in names:
                target[name] = made[name]
            target.attrs.update(sha256=checksum_of(made[name] for name in names), **facts)
        return dict(made)
