"""The command line: --config, --workdir, --mode; what runs in which order."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from closure_jax import config as config_lib
from closure_jax import devices
from closure_jax.commands import cli
from closure_jax.config import build
from closure_jax.data import dataset as dataset_lib
from closure_jax.data import generate
from closure_jax.errors import UserError
from closure_jax.workdir import WorkDir, provenance

if TYPE_CHECKING:
    from closure_jax.closure import StochasticClosure


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.Parser("closure_jax", "Train and judge a stochastic closure.")
    parser.add_argument("--config", metavar="FILE.py[:PRESET]", help="experiment; presets: paper, small, tiny")
    parser.add_argument("--workdir", help="work directory; default runs/EXPERIMENT-PRESET in the current folder")
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train", help="evaluate: judge what DIR holds")
    parser.add_argument("--dry_run", action="store_true", help="print configuration, phases and their cost, and end")
    parser.add_argument("--require_accelerator", action="store_true", help="end where jax would run on the CPU")
    parser.epilog = "--config.FIELD=VALUE overrides any field; --dry_run prints them all."
    overrides = [text.removeprefix("--config.") for text in arguments if text.startswith("--config.")]
    options = parser.parse_args([text for text in arguments if not text.startswith("--config.")])
    return options, overrides


def resolve(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[ml_collections.ConfigDict, WorkDir]:
    """The configuration and work directory that the options mean; nothing is written.

    Raises:
      UserError: whatever is wrong with them.
    """
    from closure_jax.training import phases

    if not options.config:
        raise UserError("--config is missing: expected --config=experiments/NAME.py[:PRESET]")
    default = "paper" if devices.has_accelerator() else "small"
    config = config_lib.load(options.config, default)  # also where it is replaced below: it may register new pieces
    work = WorkDir(options.workdir or pathlib.Path("runs") / f"{config.experiment}-{config.preset}")
    if options.mode == "evaluate":
        config = work.config()
        for text in overrides:
            if not text.startswith(("evaluation.", "sampler.")):
                raise UserError(f"--config.{text}: with --mode=evaluate only evaluation.* and sampler.* can be changed")
    config_lib.override(config, overrides)
    build.validate(config, phases.latent_spaces())
    work.check(config)
    return config, work


def data_folder() -> pathlib.Path:
    """$CLOSURE_JAX_DATA, or data/ beside launch.sh, or in the current folder where there is none."""
    home = os.environ.get("CLOSURE_JAX_HOME", ".")
    return pathlib.Path(os.environ.get("CLOSURE_JAX_DATA") or pathlib.Path(home) / "data")


def given_data(config: ml_collections.ConfigDict) -> dataset_lib.Dataset:
    """The dataset of --config.data.path, checked before anything is written."""
    path = pathlib.Path(config.data.path)
    print(f"data: {path}")
    dataset = _load(config, path)
    size, tests = dataset.vorticity["test"].shape[-1], len(dataset.vorticity["test"])
    if size != config.data.resolution:
        raise UserError(f"data file '{path}' holds {size}^2 fields: expected --config.data.resolution={size}")
    if tests < config.evaluation.rollout_states:
        raise UserError(
            f"data file '{path}' holds {tests} test trajectories: expected --config.evaluation.rollout_states={tests} or less"
        )
    return dataset


def simulated_data(config: ml_collections.ConfigDict, work: WorkDir) -> dataset_lib.Dataset:
    """The dataset of the configuration: made before, or now."""
    simulation = build.simulation(config)
    path = data_folder() / simulation.file_name()

    def make() -> None:
        with generate.exclusive(path):
            if path.is_file():
                print(f"data: already simulated, {path}")
                return
            count = simulation.trajectories
            print(f"data: simulates {count} trajectories at {config.flow.resolution}^2 up to t = {config.data.end:g}")
            with work.timed("data"):
                generate.write(simulation, path)

    devices.on_main(make)
    return _load(config, path)


def _load(config: ml_collections.ConfigDict, path: pathlib.Path) -> dataset_lib.Dataset:
    simulation = build.simulation(config)
    interval, snapshots = config.data.snapshot_every * config.flow.dt, len(simulation.snapshot_times())
    dataset = dataset_lib.load(path, snapshots, interval, config.data.burn_in, simulation.physics())
    return dataset.first(config.data.train_trajectories) if config.data.train_trajectories else dataset


def run(config: ml_collections.ConfigDict, work: WorkDir, mode: str) -> None:
    """The whole job, or the evaluation of a finished one."""
    from closure_jax.closure import StochasticClosure
    from closure_jax.evaluation import evaluate
    from closure_jax.training import phases

    given = given_data(config) if config.data.path else None
    if data_folder().exists() and not data_folder().is_dir():
        raise UserError(
            f"data folder '{data_folder()}' is a file: expected a folder, or another one in CLOSURE_JAX_DATA"
        )
    with work.lock():
        dataset = given or simulated_data(config, work)
        facts = provenance.provenance(dataset.path, dataset.checksum)
        if devices.on_main(lambda: work.has_begun("closure")):  # trained before: that revision is a fact of the model
            before = work.provenance()
            facts["trained_revision"] = before.get("trained_revision") or before.get("revision", facts["revision"])
        if mode == "evaluate":
            model = StochasticClosure.load(work.path).replace(steps=config.sampler.steps)
        else:
            work.write_config(config, facts)
            model = phases.train(config, dataset, work, data_folder())
            if not devices.on_main(lambda: evaluate.is_stale(config, work)):
                print(f"evaluation: already done, {work.path / 'results.json'}")
                print(f"report: {work.path / 'report.html'}")
                return
        work.write_config(config, facts)
        devices.on_main(lambda: judge(config, dataset, model, work, facts))
        print(f"results: {work.path / 'results.json'}")
        print(f"report: {work.path / 'report.html'}")


def judge(
    config: ml_collections.ConfigDict,
    dataset: dataset_lib.Dataset,
    model: "StochasticClosure",
    work: WorkDir,
    facts: dict[str, Any],
) -> None:
    """Evaluates, and writes arrays.npz, figures, report.html and, last, results.json."""
    from closure_jax.evaluation import evaluate
    from closure_jax.pages.run import report

    spent = work.wall_seconds()
    for phase in (*evaluate.PHASES, "report"):
        spent.pop(phase, None)
    work.write_wall_seconds(spent)
    results, arrays = evaluate.run(config, dataset, model, work)
    head = {"experiment": config.experiment, "preset": config.preset, "seed": config.seed}
    head |= {name: facts[name] for name in ("revision", "trained_revision", "device")}
    results = head | results | {name: facts[name] for name in ("versions", "data_checksum")}
    np.savez_compressed(work.path / "arrays.npz", **arrays)
    with work.timed("report"):
        report.write_report(work.path, results | {"wall_seconds": work.wall_seconds()})
    work.write_results(results | {"wall_seconds": work.wall_seconds()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


def _command(arguments: Sequence[str]) -> None:
    options, overrides = _parse(arguments)
    devices.start()
    with devices.main_speaks():
        _run(options, overrides)


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    if options.require_accelerator and not devices.has_accelerator():
        raise UserError("--require_accelerator: jax found only the CPU; expected a GPU or TPU and its jax build")
    config, work = resolve(options, overrides)
    print(f"closure_jax on {devices.describe()}, preset {config.preset}, work directory {work.path}", flush=True)
    if options.dry_run:
        from closure_jax.bench import cost

        print(cost.summary(config))
        return
    if options.mode == "evaluate":
        work.checkpoints("closure").require()
    run(config, work, options.mode)
