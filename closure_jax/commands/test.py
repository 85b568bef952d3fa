"""`./launch.sh test [--quick | --faults]`: the tests, by pytest."""

import os
import sys
from collections.abc import Sequence

from closure_jax import commands
from closure_jax.commands import cli
from closure_jax.errors import UserError


def _command(arguments: Sequence[str]) -> None:
    home = commands.home()
    if not (home / "tests").is_dir():
        raise UserError(f"'{home.resolve()}' has no tests: expected to be started by launch.sh, or in the repository")
    cli.require("pytest", "xdist", "beartype", "filelock")
    options = [text for text in arguments if text not in ("--quick", "--faults")]
    if "--quick" in arguments:
        options = ["-m", "not slow", *options]
    if "--faults" in arguments:  # hours of runs, two at a time: not among those that pytest finds by itself
        options = ["tests/faults/full.py", "-s", "-n0", *options]  # workers of pytest would keep the progress
    os.chdir(home)
    # In a process of its own, which has imported nothing of the package when the tests are collected. Its -m puts the
    # repository on Python's path, in front of what is installed.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh test`: becomes pytest; returns only where it can't, with the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
