"""`./launch.sh study NAME[:preset]`: questions that one run does not answer."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Protocol

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.commands import cli, data_efficiency, holding, latent_size
from closure_jax.errors import UserError


class Study(Protocol):
    """A module of a study."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds options of its own."""
        ...

    def study(self, options: argparse.Namespace, preset: str, overrides: Sequence[str], folder: pathlib.Path) -> None:
        """Does what is not done yet and writes study.json and a comparison into the folder; `preset` may be empty."""
        ...


STUDIES: dict[str, Study] = {"data_efficiency": data_efficiency, "holding": holding, "latent_size": latent_size}


def _command(arguments: Sequence[str]) -> None:
    parser = cli.Parser("study", "Run a study; it continues where it stopped. --help after a name lists its options.")
    parser.add_argument("name", metavar="NAME[:PRESET]", help=f"one of {', '.join(STUDIES)}")
    parser.add_argument(
        "--output", type=cli.path, help="folder of the study; default runs/NAME, with -PRESET where it has one"
    )
    words = [word.partition(":")[0] for word in arguments]
    named = next((word for word in words if word in STUDIES), None)
    if named is not None:
        STUDIES[named].add_options(parser)
    wrong = next((word for word in words if not word.startswith("-")), None)
    if named is None and wrong is not None:
        raise UserError(
            f"study '{wrong}' is unknown: expected {', '.join(STUDIES)}{config_lib.nearest(wrong, STUDIES)}"
        )
    options, overrides = parser.options_and_fields(arguments)
    if options.output is not None:
        files.check_folder(options.output, "--output")
    name, _, preset = options.name.partition(":")
    STUDIES[name].study(options, preset, overrides, options.output or pathlib.Path("runs") / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh study`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), continues=True)


if __name__ == "__main__":
    cli.leave(main())
