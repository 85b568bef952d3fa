"""Files that more than one process may want: strict JSON, digests, writing aside and renaming, locks of the kernel.

Every function here acts in the process that calls it; where many processes run one job, the caller decides which of them writes.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Generator
from typing import Any

import numpy as np

from closure_jax.errors import UserError


@contextlib.contextmanager
def aside(file: pathlib.Path) -> Generator[pathlib.Path, None, None]:
    """Yields the name `file` + '.partial' to write to, and renames it to `file` where the block ends without an error.

    What is written may be a folder too. The old one stays until the new one is whole; a block that fails leaves it as it was and
    nothing beside it. A killed process leaves the partial one, which the next block deletes.
    """
    partial = file.with_name(file.name + ".partial")
    _delete(partial)
    try:
        yield partial
    except BaseException:
        _delete(partial)
        raise
    if file.is_dir():  # a folder can't be replaced in one go
        shutil.rmtree(file)
    os.replace(partial, file)


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
    with open(digests, "a") as target:
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
    except ValueError:  # no UTF-8, or no JSON
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
def lock(file: pathlib.Path, waiting: str | None = None) -> Generator[None, None, None]:
    """Holds an exclusive lock of the kernel on `file`, which it makes, as long as the block runs.

    The kernel lets go of it when the process ends, however it ends: the file stays and is no lock by itself.

    Args:
      file: of its own, beside what it guards; in a folder that exists.
      waiting: a line to print where another process holds the lock, before waiting for it; None does not wait.

    Raises:
      BlockingIOError: another process holds the lock and `waiting` is None.
      OSError: the file can't be made.
    """
    with open(file, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            print(waiting, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
