"""The commands by name, and which of them an argument list means.

Only the standard library is imported before a command is chosen: launch.sh asks this module before anything is installed.
"""

import difflib
import gc
import importlib
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from closure_jax.errors import UserError


class Command(NamedTuple):
    """A command: the module whose `main(arguments)` runs it and returns the exit status, and what it does."""

    module: str
    what: str


COMMANDS = {
    "demo": Command("closure_jax.commands.demo", "couple a trained closure to the solver and animate it"),
    "sweep": Command(
        "closure_jax.commands.sweep", "run the matrix of experiments, skipping what is done, and compare them"
    ),
    "study": Command(
        "closure_jax.commands.study",
        "questions that one run does not answer: data_efficiency[:preset], latent_size[:preset], holding",
    ),
    "transfer": Command(
        "closure_jax.commands.transfer",
        "run a trained closure in a flow that it has not seen: transfer RUN --config.flow.viscosity=2e-3",
    ),
    "bench": Command(
        "closure_jax.commands.bench", "time the parts of a closure beside the least time that this device allows"
    ),
    "compare": Command(
        "closure_jax.commands.compare",
        "put finished runs beside each other: compare DIR... --output=DIR [--docs=FILE.md]",
    ),
    "test": Command(
        "closure_jax.commands.test",
        "run the tests: --quick leaves out the slow ones, --faults breaks whole runs for hours; arguments of pytest may follow",
    ),
    "check": Command("closure_jax.commands.check", "look at lint, format and types, as continuous integration does"),
}
"""A new command is a new line here and a module with a function `main(arguments) -> exit status`."""

_TRAIN = "closure_jax.commands.train"
HELP = ("-h", "--help", "help")

_USAGE = """\
usage: {prog} experiments/NAME.py[:preset] [--workdir=DIR] [--mode=train|evaluate] [--config.field=value ...]
       {space} [--dry_run | --rehearse] [--require_accelerator] [--fork=DIR]
       {prog} --mode=evaluate --workdir=DIR [--config.field=value ...]
       {prog} COMMAND [arguments]
       {prog} --help

The experiment's path is looked up from the current folder, then from the folder of launch.sh. Its presets: paper,
medium, small and tiny. An experiment or a command followed by --help lists its options. Commands:
{commands}

The first ./launch.sh installs into .venv beside it: about a minute, several with a GPU. Environment variables:
  CLOSURE_JAX_ACCELERATOR=cpu|cuda12|cuda13|tpu  install for this, whatever the machine seems to have
  CLOSURE_JAX_DATA=DIR                           keep simulated data there instead of data/ beside launch.sh
  CLOSURE_JAX_PYTHON=/path/to/python             use that Python with its packages as they are, and install nothing"""


def usage() -> str:
    """What `--help` prints."""
    prog = "./launch.sh" if "CLOSURE_JAX_HOME" in os.environ else "python -m closure_jax"
    commands = "\n".join(f"  {name:9} {command.what}" for name, command in COMMANDS.items())
    return _USAGE.format(prog=prog, space=" " * len(prog), commands=commands)


def home() -> pathlib.Path:
    """The folder of launch.sh, with the experiments and the tests; the current folder where launch.sh did not start us."""
    return pathlib.Path(os.environ.get("CLOSURE_JAX_HOME", "."))


def find_experiment(argument: str) -> str:
    """`PATH.py[:preset]` with an absolute path, looked up from the current folder and then from that of launch.sh.

    Raises:
      UserError: no such file; the experiments with the nearest names are given.
    """
    path, separator, preset = (argument, "", "") if argument.endswith(".py") else argument.rpartition(":")
    for folder in (pathlib.Path.cwd(), home()):
        found = folder / path
        if len(found.name) < 256 and found.is_file():
            return str(found.parent.resolve() / found.name) + separator + preset
    names = sorted(file.stem for file in (home() / "experiments").glob("*.py") if file.stem != "__init__")
    near = difflib.get_close_matches(pathlib.Path(path).stem.lower(), names, n=3, cutoff=0)
    listed = ", ".join(f"experiments/{name}.py" for name in near) or "none, as experiments/ is empty"
    raise UserError(f"no experiment {path}; near: {listed}")


def resolve(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The module that `arguments` mean, and the arguments for its `main`.

    An experiment becomes --config=PATH of the command that trains; options go there as they are, where they say what to judge or
    which experiment is meant.

    Raises:
      UserError: an experiment that is no file, or a word that is no command.
    """
    first, *rest = arguments or ("--config=",)
    if first.endswith(".py") or ".py:" in first and not first.startswith("-"):
        return _TRAIN, [f"--config={find_experiment(first)}", *rest]
    if first in COMMANDS:
        return COMMANDS[first].module, rest
    if first.startswith("-"):
        words = (first, *rest)
        if "--mode=evaluate" not in words and not any(text.split("=")[0] == "--config" for text in words):
            raise UserError(f"{first}: expected an experiment or a command first; --help says more")
        return _TRAIN, list(arguments)
    raise UserError(
        f"{first} is neither an experiment (experiments/NAME.py) nor a command ({', '.join(COMMANDS)}); --help says more"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax`: runs what the arguments mean and returns the exit status."""
    from closure_jax.commands import cli

    # Tracing makes many small objects that stay; to look through them as often as Python would is a tenth of a short run.
    gc.set_threshold(50_000, 20, 50)
    os.environ.pop("MPLBACKEND", None)  # notebooks set one that matplotlib may lack; nothing is drawn on a screen here
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] and arguments[0] in HELP:
        print(usage())
        return 0

    def command() -> int:
        name, rest = resolve(arguments)
        module = importlib.import_module(name)
        if callable(signal.getsignal(signal.SIGINT)):  # neither ignored nor left to the kernel
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return module.main(rest)

    return cli.run(command)
