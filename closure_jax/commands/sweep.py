"""`./launch.sh sweep`: the matrix of experiments, skipping what is done, compared at the end."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.commands import cli, compare, runs
from closure_jax.errors import UserError

_PAPER = "cs_*,dm_*,fm_*,mf_*,oracle,si_*"
"""Experiments of the paper's problem: pages compare runs of one problem."""


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    parser = cli.Parser("sweep", "Run experiments one after the other, skipping what is done, and compare them.")
    parser.add_argument(
        "--preset", help="paper, medium, small or tiny; default paper on an accelerator and small on a CPU"
    )
    parser.add_argument("--only", default=_PAPER, help=f"names or patterns, with commas between; default {_PAPER}")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of each; they share the data")
    parser.add_argument("--runs", type=cli.path, default="runs", help="folder of the work directories; default runs")
    parser.add_argument("--output", type=cli.path, help="folder of the comparison; default RUNS/compare-PRESET")
    parser.add_argument("--docs", type=cli.path, help="also write the comparison as a Markdown page to this file")
    parser.epilog = "--config.FIELD=VALUE overrides a field in every run."
    options, overrides = parser.options_and_fields(arguments)
    runs.check_seeds(options.seeds)
    if any(text.startswith("seed=") for text in overrides):
        raise UserError("--config.seed: a sweep sets it; expected --seeds=HOW_MANY")
    return options, tuple(overrides)


def matrix(
    files: Sequence[pathlib.Path], preset: str, seeds: int, folder: pathlib.Path, overrides: Sequence[str]
) -> list[runs.Run]:
    """A run for each file and seed: folder/NAME-PRESET, with -seedN behind it for all seeds but 0.

    Args:
      files: of experiments.
      preset: of all of them.
      seeds: how many, from 0.
      folder: that holds the runs.
      overrides: FIELD=VALUE, of all runs.
    """
    return [
        runs.Run(
            file,
            preset,
            (*overrides, *([f"seed={seed}"] if seed else [])),
            folder / (f"{file.stem}-{preset}" + (f"-seed{seed}" if seed else "")),
        )
        for seed in range(seeds)
        for file in files
    ]


def _command(arguments: Sequence[str]) -> None:
    options, overrides = _parse(arguments)
    preset = options.preset or runs.default_preset()
    if preset not in config_lib.PRESETS:
        raise UserError(f"--preset={preset}: expected {', '.join(config_lib.PRESETS)}")
    folder = options.runs
    output = options.output or folder / f"compare-{preset}"
    found = config_lib.experiments(options.only.split(","))
    found.sort(
        key=lambda file: not file.stem.endswith("_recon")
    )  # other latents are held against those of reconstruction
    files.check_folder(folder, "--runs")
    compare.check_output(output, options.docs)
    planned = matrix(found, preset, options.seeds, folder, overrides)
    done = runs.run_all(planned, "sweep")
    if done:
        compare.compare([run.folder for run in done], output, options.docs)
    runs.missing(planned, done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh sweep`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), continues=True)


if __name__ == "__main__":
    cli.leave(main())
