"""Files that processes have in common: strict JSON, digests, writing aside and renaming, locks of the kernel, work half done.

Every function here acts in the process that calls it; where many processes run one job, the caller decides which of them writes.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from closure_jax.errors import UserError


@contextlib.contextmanager
def named(file: pathlib.Path) -> Generator[None, None, None]:
    """Names the file in an OSError that names none, as that of a write to a disk which is full."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # without a number the text is all that it says
            error.filename = str(file)
        raise


def check_folder(path: pathlib.Path, option: str, file: pathlib.Path | None = None) -> None:
    """Raises UserError where `path` can't become a folder that is written to; nothing is left of the attempt.

    Args:
      path: of the folder.
      option: that gives it.
      file: in the folder, where it is that which the option gives.
    """
    given = f"{option}={file or path}"
    try:
        path.resolve()
        there = next(part for part in (path, *path.absolute().parents) if part.exists())
        is_folder = there.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long; links in a circle; letters that no path has
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(
            f"{option}={str(file or path)!r} can't be used ({reason}): expected a folder of yours"
        ) from None
    if not is_folder:
        where = "" if there == path else f"'{there}' "
        raise UserError(f"{given}: {where}is a file: expected a folder, which is made where it is not there")
    try:  # of the kernel's own folders, and to root, permissions do not say it
        os.rmdir(tempfile.mkdtemp(prefix=".closure_jax-", dir=there))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk is told where something is lost
            raise UserError(f"{given} can't be written ({error.strerror}): expected a folder of yours") from None


def check_file(path: pathlib.Path, option: str) -> None:
    """Raises UserError where `path`, which the option gives, can't become a file."""
    check_folder(path.parent, option, path)
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        raise UserError(f"{option}={path} can't be written: expected a file of yours")


def write(file: pathlib.Path, content: bytes) -> None:
    """Replaces what a file holds; an error names it."""
    with named(file):
        file.write_bytes(content)


@contextlib.contextmanager
def aside(
    file: pathlib.Path, begun: bool = False, resumable: Callable[[], bool] = lambda: False
) -> Generator[pathlib.Path, None, None]:
    """Yields the name `file` + '.partial' to write to, and renames it to `file` where the block ends without an error.

    What is written may be a folder too. The old one stays until the new one is whole; a block that fails leaves it as it was and
    nothing beside it. A killed process leaves the partial one, which the next block deletes.

    Args:
      file: to write.
      begun: whether to go on with the partial one of an earlier process.
      resumable: whether a later process can go on with it, asked where the block fails: then it stays.
    """
    partial = partial_name(file)
    if not begun:
        _delete(partial)
    try:
        with named(file):
            yield partial
    except BaseException:
        if not resumable():
            _delete(partial)
        raise
    if file.is_dir():  # a folder can't be replaced in one go
        shutil.rmtree(file)
    os.replace(partial, file)


def partial_name(file: pathlib.Path) -> pathlib.Path:
    """What `aside` calls `file` until it is whole."""
    return file.with_name(file.name + ".partial")


def _delete(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_DIGESTS = ".digests"
_VOUCHED = ("*.json", "metrics.jsonl")


def vouch(file: pathlib.Path, *contents: bytes) -> None:
    """Notes in the folder of `file` what is going to be written to it: a damaged digit would be just another number.

    To be called before the write, so that what is on the disk is vouched for whenever a process is killed. The folder's file of
    digests is only ever added to. One that is new vouches for what is there already, which a release before this one wrote.
    """
    digests, known = file.parent / _DIGESTS, []
    if not digests.exists():
        before = [path for pattern in _VOUCHED for path in file.parent.glob(pattern)]
        read = [(path, path.read_bytes()) for path in before]
        known = [_digest(path, part) for path, whole in read for part in (whole, *whole.split(b"\n"))]
    with named(digests), open(digests, "a") as target:
        # a cut line of a killed process ends here, and does not spoil the next
        target.write("".join(f"\n{digest}" for digest in (*known, *(_digest(file, part) for part in contents))))


def vouched(file: pathlib.Path, *contents: bytes) -> list[bool]:
    """Which of the contents, read from `file` before, were written there; all where nothing in the folder is vouched for."""
    digests = file.parent / _DIGESTS
    known = set(digests.read_text(errors="replace").splitlines()) if digests.is_file() else None
    return [known is None or _digest(file, content) in known for content in contents]


def _digest(file: pathlib.Path, content: bytes) -> str:
    return hashlib.sha256(file.name.encode() + b"\n" + content).hexdigest()[:16]


def write_json(file: pathlib.Path, content: Any, vouches: bool = False) -> None:
    """`content` as strict JSON (see `plain`), written aside and renamed.

    Args:
      file: to write.
      content: of it.
      vouches: for the content, see `vouch`.

    Raises:
      TypeError: something in `content` is no JSON; the file is then as it was.
    """
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    if vouches:
        vouch(file, text.encode())
    with aside(file) as partial:
        partial.write_bytes(text.encode())


def read_json(file: pathlib.Path, remedy: str) -> dict[str, Any] | None:
    """The object that `write_json` wrote, None where there is no file.

    Args:
      file: to read.
      remedy: what to do where it is damaged; ends the message.

    Raises:
      UserError: it holds no JSON object, or another one than was written.
    """
    try:
        written = file.read_bytes()
        content = json.loads(written) if vouched(file, written)[0] else None
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):  # no UTF-8, or no JSON
        content = None
    if not isinstance(content, dict):
        raise UserError(f"'{file}' is damaged: expected it as it was written; {remedy}")
    return content


def plain(content: Any) -> Any:
    """`content` as plain lists, dicts and numbers: arrays become lists, numbers that are not finite None, keys text."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if hasattr(content, "__array__"):  # arrays and scalars of numpy, arrays of jax
        return plain(np.asarray(content).tolist())
    return content


@contextlib.contextmanager
def lock(file: pathlib.Path, waiting: str | None = None, shared: bool = False) -> Generator[None, None, None]:
    """Holds a lock of the kernel on `file` as long as the block runs: an exclusive one, for which it makes the file.

    The kernel lets go of it when the process ends, however it ends: the file stays and is no lock by itself.

    Args:
      file: of its own, beside what it guards; in a folder that exists.
      waiting: a line to print where another process holds the lock, before waiting for it; None does not wait.
      shared: others that share it may hold it too; the file is only read, and has to be there.

    Raises:
      BlockingIOError: another process holds the lock and `waiting` is None.
      OSError: the file can't be made, or read.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(file, "r" if shared else "w") as handle:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            print(waiting, flush=True)
            fcntl.flock(handle, kind)
        yield


_NPZ = 2**30
"""Bytes of arrays that an .npz may hold, however small it is itself."""


def read_npz(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, which may come from anybody.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is none, damaged, holds other things than arrays of numbers and texts, or more than 1 GiB of them.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > _NPZ:
                raise ValueError(f"it would be {size} bytes of arrays, expected at most {_NPZ}")
            return dict(archive)
    except (AttributeError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def crc(array: np.ndarray, before: int = 0) -> int:
    """The checksum CRC-32 of an array's bytes, after those of other arrays, whose checksum is `before`."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, before)


class Kept:
    """How far long work has come, in a folder of its own: the same work, asked for again, goes on in its middle.

    What lies there is a cache: what is missing, damaged, or was kept of other work is made anew.

    Args:
      folder: made where something is kept.
      identity: what the numbers of the work depend on, as JSON can hold it.
    """

    SECONDS = 60.0
    """Between two times at which something is kept, at least."""
    SHARE = 0.02
    """Of the time that keeping may take, at most."""

    def __init__(self, folder: pathlib.Path, identity: Any):
        self.folder = folder
        self._identity = json.dumps(plain(identity), sort_keys=True).encode()
        self._next = time.monotonic() + self.SECONDS

    def is_due(self) -> bool:
        """Whether something should be kept again."""
        return time.monotonic() >= self._next

    def write(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keeps NumPy arrays under `name`, in place of what was kept under it.

        Raises:
          OSError: they can't be written.
        """
        begin = time.monotonic()
        content = io.BytesIO()
        np.savez(content, **dict(arrays))
        self.folder.mkdir(parents=True, exist_ok=True)
        with aside(self._file(name, "kept")) as partial:
            partial.write_bytes(self._seal(content.getvalue()) + content.getvalue())
        end = time.monotonic()
        self._next = end + max(self.SECONDS, (end - begin) / self.SHARE)

    def holds(self, name: str) -> bool:
        """Whether something was kept under `name`, whole or not."""
        return self._file(name, "kept").is_file()

    def read(self, name: str) -> dict[str, np.ndarray]:
        """What was kept under `name` of this work; empty where nothing was."""
        try:
            content = self._file(name, "kept").read_bytes()
        except FileNotFoundError:
            return {}
        size = len(self._seal(b""))
        if self._seal(content[size:]) != content[:size]:
            return {}
        own = io.BytesIO(content[size:])  # of any size, unlike what comes from others
        with np.load(own, allow_pickle=False) as archive:
            return dict(archive)

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array in a file, with the numbers that an earlier process left there. Its room is taken at once.

        Raises:
          OSError: there is no room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file, size = self._file(name, "float32"), 4 * math.prod(shape)
        with open(file, "ab") as target:
            try:
                if hasattr(os, "posix_fallocate"):  # not on macOS; a mapped page without room would end the process
                    os.posix_fallocate(target.fileno(), 0, size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(file)) from None
            target.truncate(size)
        return np.memmap(file, np.float32, "r+", shape=shape)

    def drop(self, name: str) -> None:
        """Forgets what was kept under `name`; an array that is in use stays readable."""
        for ending in ("kept", "float32"):
            self._file(name, ending).unlink(missing_ok=True)

    def _file(self, name: str, ending: str) -> pathlib.Path:
        return self.folder / f"{name.replace(' ', '_')}.{ending}"

    def _seal(self, content: bytes) -> bytes:
        return hashlib.sha256(self._identity + content).digest()
