"""Short runs, each forked from a process that has imported all that one needs: that is a fifth of what a short run takes.

Imports start no thread and no device, so that a fork is as whole as a process started anew. As a program this file is that
process: for each line of JSON on stdin (arguments, environment, file for stderr) it forks, and answers with the exit status.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import queue
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import job

SECONDS = 600
"""A run that takes longer is ended, and its status is that of SIGALRM."""


class Runs:
    """Runs in a process of `count` at a time, whose environment has `more` added to it."""

    def __init__(self, folder: Path, count: int, **more: str):
        self.folder = folder
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        self.all = [
            subprocess.Popen(
                [sys.executable, __file__],
                env=job.environment(folder, **more),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for process in self.all:
            self.idle.put(process)

    def run(self, folder: Path, *options: str, work: str = "run", **more: str) -> tuple[int, str]:
        """(exit status, stderr) of the short run of `job.start`."""
        said = self.folder / f"said-{threading.get_ident()}"
        asked: dict[str, Any] = {"arguments": job.command(folder, *options, work=work)[2:], "said": str(said)}
        asked["environment"] = {"CLOSURE_JAX_DATA": str(folder / "data")} | more
        process = self.idle.get()
        try:
            print(json.dumps(asked), file=process.stdin, flush=True)
            return int(process.stdout.readline()), said.read_text()
        finally:
            self.idle.put(process)


@contextlib.contextmanager
def runs(folder: Path, count: int, **more: str) -> Iterator[Runs]:
    """`Runs` that end with the context."""
    of = Runs(folder, count, **more)
    try:
        yield of
    finally:
        for process in of.all:
            process.communicate()


def _asked() -> dict[str, Any] | None:
    """In each fork: what it is to run. In the process itself, when nothing more is asked for: None."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _import_all() -> None:
    package = importlib.import_module("closure_jax")
    for module in pkgutil.walk_packages(package.__path__, "closure_jax."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("h5py", "matplotlib.figure", "matplotlib.backends.backend_agg", "orbax.checkpoint", "tensorboardX"):
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.freeze()  # forks need not look through what was imported


if __name__ == "__main__":
    _import_all()
    if (asked := _asked()) is not None:
        signal.alarm(SECONDS)
        os.environ |= asked["environment"]
        for path, flags, descriptor in (
            (os.devnull, os.O_RDONLY, 0),
            (os.devnull, os.O_WRONLY, 1),
            (asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 2),
        ):
            os.dup2(os.open(path, flags), descriptor)
        sys.argv = asked["arguments"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
