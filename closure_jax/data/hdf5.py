"""HDF5 files, written aside and renamed, on disks that may be full."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

import h5py

from closure_jax import files

_MARGIN = 2**16  # bytes that a file takes beside its arrays


@contextlib.contextmanager
def writing(path: pathlib.Path, size: int) -> Iterator[h5py.File]:
    """A new HDF5 file, which gets the name `path` where the block ends without an error; see `files.aside`.

    The library ends the process, as it ends itself, where it still holds a file that it can't write out. So the room is
    looked for first; and where the disk is full all the same, what was written is given back, which is room to close the file.

    Args:
      path: of the file.
      size: bytes of the arrays that will be in it.

    Raises:
      OSError: there is no room.
    """
    with files.aside(path) as partial:
        if shutil.disk_usage(partial.parent).free < size + _MARGIN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file = h5py.File(partial, "w", rdcc_nbytes=0)  # arrays are written at once, so that little is left to close
        try:
            yield file
            file.flush()
        except BaseException as error:
            os.truncate(partial, 0)
            file.close()
            if os.strerror(errno.ENOSPC) in str(error):  # in a long line of the library
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
            raise
        file.close()
