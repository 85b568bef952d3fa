"""Files that more than one process may want: strict JSON, writing aside and renaming, locks of the kernel.

Every function here acts in the process that calls it; where many processes run one job, the caller decides which of them writes.
"""

import contextlib
import fcntl
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


def write_json(file: pathlib.Path, content: Any) -> None:
    """`content` as strict JSON (see `plain`), written aside and renamed.

    Raises:
      TypeError: something in `content` is no JSON; the file is then as it was.
    """
    with aside(file) as partial:
        partial.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(file: pathlib.Path, remedy: str) -> dict[str, Any] | None:
    """The object that `write_json` wrote, None where there is no file.

    Args:
      file: to read.
      remedy: what to do where it is damaged; ends the message.

    Raises:
      UserError: it holds no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
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
