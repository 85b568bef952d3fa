"""The environment in .venv: whether it is what the repository calls for, and its installation under a lock."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import hardware

HOME = pathlib.Path(__file__).resolve().parent.parent
VENV = HOME / ".venv"
STAMP = VENV / "closure_jax.stamp"  # what the finished installation was made for
UNFINISHED = VENV / "closure_jax.unfinished"  # there while one is being made
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Refusal(Exception):
    """A mistake of the user's, or a machine that lacks something: one line and exit status 2."""


class Interrupted(BaseException):
    """A signal to end has come; its argument is the signal's number."""


def say(text: str) -> None:
    """Prints one line on stderr."""
    print("launch.sh: " + " ".join(text.split()), file=sys.stderr, flush=True)


def digest() -> str:
    """What an installation depends on beside the accelerator; the folder too, to which an editable one points."""
    parts = [(HOME / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*parts, os.fsencode(HOME)])).hexdigest()[:16]


def answers(question: str) -> bool:
    """Whether .venv's Python exists and ends well with this program."""
    try:
        done = subprocess.run([VENV / "bin" / "python", "-I", "-c", question], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def is_ready(wanted: str) -> bool:
    """Whether .venv is whole, and is what the repository and the accelerator call for; `wanted` may be empty."""
    try:
        have_digest, have_build = STAMP.read_text().split()
    except (OSError, ValueError):
        return False
    if UNFINISHED.exists() or have_digest != digest():
        return False
    if wanted and have_build != wanted:
        return False
    # The other way round, an accelerator's build runs on a CPU as well: a cluster's nodes can share one .venv.
    if not wanted and have_build == "cpu" and hardware.detect() != "cpu":
        return False
    # A base Python that was upgraded under .venv leaves the stamp, but not the packages.
    return answers(
        "import sys; from importlib.util import find_spec; sys.exit(not (find_spec('jax') and find_spec('closure_jax')))"
    )


def take_lock() -> int:
    """Takes the lock on .venv.lock, waiting where another start has it, and returns the file's descriptor.

    The kernel gives the lock back when this process and the pip that it started have ended, however they ended.
    """
    import fcntl

    try:
        lock = os.open(HOME / ".venv.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        raise Refusal(
            f"cannot write to {HOME}, where .venv is to be made; CLOSURE_JAX_PYTHON can name a Python that has the packages"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is installing into .venv: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        say("this file system has no locks: do not start a second time meanwhile")
    return lock


def run_child(command: list[str | os.PathLike[str]], lock: int, log: int = subprocess.DEVNULL) -> bool:
    """Runs a command that holds the lock as well, and ends it when we are interrupted; whether it ended well.

    Args:
      command: the program and its arguments; it runs in the repository.
      lock: file descriptor of the lock.
      log: file descriptor that takes what it prints.
    """
    child = None
    try:
        environment = {**os.environ, "PIP_USER": "0"}
        child = subprocess.Popen(command, pass_fds=[lock], stdout=log, stderr=log, env=environment, cwd=HOME)
        return child.wait() == 0
    except Interrupted:
        if child:
            child.terminate()
            child.wait()
        raise


def make_venv(python: str, fresh: bool, lock: int) -> bool:
    """Marks .venv as unfinished, having made it where `fresh` asks for that; whether that went well."""
    # Without pip this takes no time, so that next to no start is interrupted before the mark is there.
    well = not fresh or run_child([python, "-I", "-m", "venv", "--clear", "--without-pip", VENV], lock)
    if well:
        UNFINISHED.touch()
    return well


def install_packages(build: str, fresh: bool, lock: int) -> bool:
    """Installs the repository and its packages for a build of jax; whether that went well. pip's words show if not."""
    python = [VENV / "bin" / "python", "-I", "-m"]
    log = VENV / "closure_jax.log"
    extras = "dev" if build == "cpu" else f"dev,{build}"
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "-c", "constraints.txt", "-e", f".[{extras}]"]
    with open(log, "wb") as file:
        well = answers("import pip") or run_child([*python, "ensurepip", "--default-pip"], lock, file.fileno())
        well = well and run_child([*python, "pip", "install", *options], lock, file.fileno())
    if not well:
        sys.stderr.write(log.read_text(errors="replace"))
    elif not fresh:  # jax's plugins for different hardware exclude one another
        plugins = [f"jax-{cuda}-{part}" for cuda in ("cuda12", "cuda13") for part in ("plugin", "pjrt")] + ["libtpu"]
        mine = {"cpu": "none", "tpu": "libtpu"}.get(build, f"jax-{build}-")
        others = [name for name in plugins if not name.startswith(mine)]
        well = run_child([*python, "pip", "uninstall", "--quiet", "--yes", *others], lock)
    return well


def interrupt(number: int, _: object) -> None:
    """Handler of the signals that ask us to end; the first one counts."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def install(python: str, wanted: str) -> None:
    """Installs under the lock, unless another start has done it meanwhile; ends the process where that fails.

    An environment that was there stays as good as it was, and a new one is taken away, where the installation fails.
    """
    if pathlib.Path(sys.prefix) == VENV:
        raise Refusal("needs Python 3.11, 3.12, 3.13 or 3.14 with its venv module, and found none on PATH")
    lock = take_lock()
    if is_ready(wanted):
        os.close(lock)
        return
    build = wanted or hardware.detect(say)
    usable = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"
    fresh = UNFINISHED.exists() or not answers(usable)
    if fresh and VENV.is_dir() and any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").is_file():
        raise Refusal(f"{VENV} is there, but is no Python environment: move it away")
    note = "about a minute" if build == "cpu" else "several minutes, some GB"
    say(f"installing closure_jax and its packages for {build} into {VENV} ({note}) ...")
    try:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, interrupt)
        well = make_venv(python, fresh, lock) and install_packages(build, fresh, lock)
    except Interrupted as interrupted:
        if fresh:
            shutil.rmtree(VENV, ignore_errors=True)
        say("installation interrupted; the next start begins it again")
        sys.exit(128 + interrupted.args[0])
    if not well:
        if fresh:
            shutil.rmtree(VENV, ignore_errors=True)
        else:
            UNFINISHED.unlink()
        say("the installation failed: the lines above say why; the next start tries again")
        sys.exit(1)
    STAMP.write_text(f"{digest()} {build}\n")
    UNFINISHED.unlink()
    for number in SIGNALS:
        if signal.getsignal(number) == interrupt:
            signal.signal(number, signal.SIG_DFL)
    os.close(lock)
