"""What launch.sh does once it has a Python: makes .venv where need be, and becomes `python -m closure_jax`.

It runs before anything is installed: the standard library is all that this folder imports, and of closure_jax the table
of commands, in which a wrong argument is looked up before an installation begins. launch.sh starts it with the Python that
it found, whose name comes before the user's arguments.
"""

from __future__ import annotations

import os
import re
import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends us without a traceback, from the first import on

import environment
import hardware
from environment import HOME, Refusal


def check_packages(python: str) -> None:
    """Refuses the user's Python, in which this runs, where it lacks a package that pyproject.toml names."""
    reason = ""
    if sys.version_info < (3, 11):  # noqa: UP036
        reason = f"is Python {sys.version_info[0]}.{sys.version_info[1]}, and 3.11 or newer is needed"
    else:
        missing = missing_packages()
        reason = f"lacks {', '.join(missing)}" if missing else ""
    if reason:
        raise Refusal(
            f'CLOSURE_JAX_PYTHON={python} {reason}; install what is needed with "{python}" -m pip install -e "{HOME}",'
            " or unset CLOSURE_JAX_PYTHON and launch.sh makes its own environment"
        )


def missing_packages() -> list[str]:
    """Dependencies of pyproject.toml that this Python lacks, or has too old."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version

    missing = []
    for need in tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["dependencies"]:
        name, least = re.findall(r"^([\w.-]+)(?:>=([\d.]+))?", need)[0]
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
        else:
            numbers = [[int(part) for part in re.findall(r"\d+", text)] for text in (found, least)]
            if numbers[0] < numbers[1]:
                missing.append(f"{need} (it has {found})")
    return missing


def choose_python(python: str) -> str:
    """The Python that is to run: the user's, or that of .venv, installed where need be."""
    wanted = os.environ.get("CLOSURE_JAX_ACCELERATOR", "")
    if wanted and wanted not in hardware.BUILDS:
        raise Refusal(f"CLOSURE_JAX_ACCELERATOR={wanted}: must be cpu, cuda12, cuda13 or tpu")
    if os.environ.get("CLOSURE_JAX_PYTHON"):
        check_packages(python)
        more = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{HOME}{os.pathsep}{more}" if more else str(HOME)
        return python
    if sys.platform in ("win32", "cygwin", "msys"):
        raise Refusal("runs on Linux, macOS and WSL2: on Windows, start it inside WSL2")
    if not environment.is_ready(wanted):
        environment.install(python, wanted)
    return str(environment.VENV / "bin" / "python")


def start(python: str, arguments: list[str]) -> int:
    """Becomes `python -m closure_jax ARGUMENTS`; returns the exit status where there is nothing to start."""
    os.environ["CLOSURE_JAX_HOME"] = str(HOME)
    if os.environ.get("CLOSURE_JAX_PYTHON") and sys.version_info < (3, 11):  # noqa: UP036
        check_packages(python)  # the package itself can't be read by it
    sys.path.insert(0, str(HOME))
    from closure_jax import commands
    from closure_jax.errors import UserError

    if not arguments or arguments[0] in commands.HELP:
        print(commands.usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        commands.resolve(arguments)
    except UserError as error:
        raise Refusal(str(error)) from None
    python = choose_python(python)
    # Large pages for large arrays, where the C library and the kernel offer them: on a CPU the same numbers in less time.
    os.environ["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES") or "glibc.malloc.hugetlb=1"
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # waits until closure_jax/__main__.py can answer it
    # -P: a file of the current folder must not stand in for a module of the same name.
    os.execv(python, [python, "-P", "-m", "closure_jax", *arguments])


def main() -> int:
    """Entry of launch.sh: its Python and the user's arguments are ours; returns the exit status."""
    try:
        return start(sys.argv[1], sys.argv[2:])
    except Refusal as refusal:
        environment.say(str(refusal))
        return 2


if __name__ == "__main__":
    sys.exit(main())
