"""HDF5 files, written aside and renamed, on disks that may be full."""

import contextlib
import errno
import io
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from closure_jax import files

_MARGIN = 2**16  # bytes that a file takes beside its arrays
_UNSEEN = 2**26  # bytes that an array may have whatever the file holds of it
_COMPRESSED = 20  # how much smaller a file may be than its arrays


class _File(io.FileIO):
    """A file for the library to write to, whose first write that fails raises; later ones are dropped.

    The library writes out what it still holds when a file is closed, and again when the process ends, which it then ends by a
    signal where it can't. Where room is reserved, the file is longer than the library says until `cut`.
    """

    failed: OSError | None = None
    _reserved, _end = 0, 0

    def reserve(self, size: int) -> None:
        """Takes the room of the first `size` bytes now, where the system can (not on macOS)."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self.fileno(), 0, size)
                self._reserved = size
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems can't
                    raise

    def cut(self) -> None:
        """Ends the file where the library has ended it."""
        if self._reserved and self.failed is None:
            self._try(super().truncate, self._end)

    def write(self, content: Any) -> int:
        """All of the content."""
        left = memoryview(content)
        while self.failed is None and len(left):
            left = left[self._try(super().write, left) or 0 :]
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        """Cuts or fills up the file, but keeps the room that is reserved."""
        self._end = size or 0
        if self.failed is None and self._end > self._reserved:
            self._try(super().truncate, self._end)
        return self._end

    def _try(self, change: Callable[..., int], value: Any) -> int:
        try:
            return change(value)
        except OSError as error:
            self.failed = error
            raise


@contextlib.contextmanager
def writing(
    path: pathlib.Path, size: int, begun: bool = False, resumable: Callable[[], bool] = lambda: False
) -> Iterator[h5py.File]:
    """A new HDF5 file, which gets the name `path` where the block ends without an error; see `files.aside`.

    The room is taken first, so that nobody waits for hours for a file that can't fit.

    Args:
      path: of the file.
      size: bytes of the arrays that will be in it.
      begun, resumable: see `files.aside`.

    Raises:
      OSError: there is no room, or a write fails.
    """
    with files.aside(path, begun, resumable) as partial:
        held = 512 * partial.stat().st_blocks if begun else 0  # without holes, which have a size but no room
        if shutil.disk_usage(partial.parent).free < size + _MARGIN - held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        with _File(partial, "r+" if begun else "w+") as raw:
            # arrays are written at once, so that little is left to close
            file = h5py.File(raw, "r+" if begun else "w", rdcc_nbytes=0)
            try:
                raw.reserve(size + _MARGIN)
                yield file
                file.flush()
            except BaseException:
                if raw.failed is None:
                    raise
            finally:
                with contextlib.suppress(RuntimeError) if raw.failed else contextlib.nullcontext():
                    file.close()
            raw.cut()
            if raw.failed is not None:
                raise OSError(raw.failed.errno, raw.failed.strerror, str(path))


def room(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """Makes a float32 array whose place in the file is settled at once: to fill it then changes nothing else."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_obj_track_times(False)  # the same numbers give the same bytes
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, properties, links)


def whole(file: h5py.File, name: str) -> np.ndarray:
    """An array of a file, which may come from anybody; errors as of `sound`."""
    return sound(file, name)[:]


def sound(file: h5py.File, name: str) -> h5py.Dataset:
    """An array on the disk, of which nothing is read yet, after a look at what the file says of it.

    Raises:
      KeyError: there is none of that name.
      ValueError: the file says that it is far larger than what the file holds of it, or that it lies in other files, in whose
        place zeros are read where they are gone.
    """
    array = file[name]
    if array.is_virtual or array.external:
        raise ValueError(f"{name} lies in other files, and is to be in this one")
    stored = array.id.get_storage_size()
    size = array.dtype.itemsize * math.prod(max(1, length) for length in array.shape)  # an empty one may be long too
    if size > max(_UNSEEN, _COMPRESSED * stored):
        raise ValueError(f"{name} would be {size} bytes, and the file holds {stored} of them")
    return array
