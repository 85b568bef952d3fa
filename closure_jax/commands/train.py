"""The command line: --config, --workdir, --mode; what runs in which order."""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from closure_jax import config as config_lib
from closure_jax import devices
from closure_jax.commands import cli
from closure_jax.config import Experiment
from closure_jax.data import dataset as dataset_lib
from closure_jax.data import generate
from closure_jax.errors import UserError
from closure_jax.workdir import JUDGED_FIELDS, WorkDir, provenance

if TYPE_CHECKING:
    from closure_jax.closure import StochasticClosure

_BEGAN = ("started_from", "forked_from")
"""Facts of a run's beginning, which stay."""

_HELD_AGAINST_THE_LAW = 16
"""Test states of given data, about."""


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.Parser("closure_jax", "Train and judge a stochastic closure.")
    parser.add_argument("--config", metavar="FILE.py[:PRESET]", help="experiment; presets: paper, small, tiny")
    parser.add_argument("--workdir", help="work directory; default runs/EXPERIMENT-PRESET in the current folder")
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train", help="evaluate: judge what DIR holds")
    parser.add_argument("--fork", metavar="DIR", help="a new run that goes on from the phases of another, changed")
    parser.add_argument("--dry_run", action="store_true", help="print configuration, phases and their cost, and end")
    parser.add_argument("--require_accelerator", action="store_true", help="end where jax would run on the CPU")
    parser.epilog = "--config.FIELD=VALUE overrides any field; --dry_run prints them all."
    overrides = [text.removeprefix("--config.") for text in arguments if text.startswith("--config.")]
    options = parser.parse_args([text for text in arguments if not text.startswith("--config.")])
    return options, overrides


def resolve(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Experiment, WorkDir]:
    """The experiment and work directory that the options mean; nothing is written.

    Raises:
      UserError: whatever is wrong with them.
    """
    if options.config:
        config = config_lib.load(options.config, "paper" if devices.has_accelerator() else "small")
        work = WorkDir(options.workdir or pathlib.Path("runs") / f"{config.experiment}-{config.preset}")
    elif options.mode == "evaluate" and options.workdir:
        work = WorkDir(options.workdir)
        config = work.config()
    else:
        raise UserError("--config is missing: expected --config=experiments/NAME.py[:PRESET]")
    if options.mode == "evaluate":
        config = work.config()
        for text in overrides:
            if not config_lib.current_name(config, text.partition("=")[0]).startswith(JUDGED_FIELDS):
                raise UserError(
                    f"--config.{text}: with --mode=evaluate only evaluation.*, sampler.* and coupling.* can be changed"
                )
    config_lib.override(config, overrides)
    experiment = config_lib.build(config)
    work.check(config)
    if options.fork is not None:
        _check_fork(options, work)
    return experiment, work


def _check_fork(options: argparse.Namespace, work: WorkDir) -> None:
    """Raises UserError where --fork names no run, or the work directory holds one that began otherwise."""
    if options.mode == "evaluate":
        raise UserError(f"--fork={options.fork}: expected no --mode=evaluate beside it, which trains nothing")
    source = WorkDir(options.fork)
    source.config()  # refuses what is no run
    if source.path.resolve() == work.path.resolve():
        raise UserError(f"--fork={options.fork}: expected another run than that of --workdir")
    began = (work.path / "config.json").exists()
    if began and work.provenance().get("forked_from") != str(source.path):
        raise UserError(
            f"--fork={options.fork}: work directory '{work.path}' holds a run that did not begin so: give another --workdir"
        )


def data_folder() -> pathlib.Path:
    """$CLOSURE_JAX_DATA, or data/ beside launch.sh, or in the current folder where there is none."""
    home = os.environ.get("CLOSURE_JAX_HOME", ".")
    return pathlib.Path(os.environ.get("CLOSURE_JAX_DATA") or pathlib.Path(home) / "data")


def data_of(experiment: Experiment) -> dataset_lib.Dataset:
    """The dataset of an experiment, given or simulated, without a run."""
    return given_data(experiment) if experiment.data.path else simulated_data(experiment)


def given_data(experiment: Experiment) -> dataset_lib.Dataset:
    """The dataset of --config.data.path, checked before anything is written."""
    file = pathlib.Path(experiment.data.path)
    print(f"data: {file}")
    dataset = _load(experiment, file)
    size, tests = dataset.vorticity["test"].shape[-1], len(dataset.vorticity["test"])
    if size != experiment.data.resolution:
        raise UserError(f"data file '{file}' holds {size}^2 fields: expected --config.data.resolution={size}")
    _of_this_flow(experiment, dataset)
    if tests < experiment.evaluation.rollout_states:
        raise UserError(
            f"data file '{file}' holds {tests} test trajectories: expected --config.evaluation.rollout_states={tests} or less"
        )
    return dataset


def _of_this_flow(experiment: Experiment, dataset: dataset_lib.Dataset) -> None:
    """Raises UserError where given pairs are not of the times and of the law that the configuration states.

    Where the law of the closure is known, it is off its mean by the noise alone. A factor of two is far beyond what a numerical
    method or a few states add to that, and far below what a swapped field, another sign or another flow does.
    """
    file, times = dataset.path, experiment.simulation().snapshot_times()
    if len(dataset.time) != len(times) or not np.allclose(dataset.time, times, rtol=1e-5):
        first, last = dataset.time[0], dataset.time[-1]
        raise UserError(
            f"data file '{file}' has {len(dataset.time)} snapshots from t = {first:g} to {last:g}, --config.data.burn_in, end and"
            f" snapshot_every mean {len(times)} from {times[0]:g} to {times[-1]:g}: expected the same; set those fields"
        )
    states = {name: dataset.fields(name, "test") for name in dataset_lib.FIELDS}
    some = slice(None, None, max(1, len(states["vorticity"]) // _HELD_AGAINST_THE_LAW))
    vorticity, closure = states["vorticity"][some], states["closure"][some]
    law = experiment.problem.law(vorticity)
    if law is None:
        return
    off = float(np.sqrt(np.mean((closure - law.mean) ** 2)))
    least, most = law.deviation / 2, 2 * law.deviation + 1e-2 * float(np.sqrt(np.mean(law.mean**2)))
    if not least <= off <= most:
        raise UserError(
            f"data file '{file}': its closures are off the mean that the flow gives for their vorticity by {off:.3g}, where its"
            f" noise has {law.deviation:.3g} ({len(vorticity)} test states): expected pairs of this flow; check problem.*, flow.*"
            " and that vorticity and closure are not exchanged"
        )


def simulated_data(experiment: Experiment, work: WorkDir | None = None) -> dataset_lib.Dataset:
    """The dataset of the experiment: made before, or now; the run in `work` has the time that it took."""
    simulation = experiment.simulation()
    file = data_folder() / simulation.file_name()

    def make() -> None:
        with generate.exclusive(file):
            if file.is_file():
                print(f"data: already simulated, {file}")
                return
            count = simulation.trajectories
            print(f"data: simulates {count} trajectories up to t = {simulation.end:g}")
            with work.timed("data") if work else contextlib.nullcontext():
                generate.write(simulation, file)

    devices.on_main(make)
    return _load(experiment, file)


def _load(experiment: Experiment, file: pathlib.Path) -> dataset_lib.Dataset:
    simulation, data = experiment.simulation(), experiment.data
    times = simulation.snapshot_times()
    dataset = dataset_lib.load(file, len(times), simulation.interval(), data.burn_in, simulation.physics())
    return dataset.first(data.train_trajectories) if data.train_trajectories else dataset


def run(experiment: Experiment, work: WorkDir, mode: str, fork: str | None = None) -> None:
    """The whole job, or the evaluation of a finished one.

    Args:
      experiment: what is trained and judged.
      work: the run's folder.
      mode: `train` or `evaluate`.
      fork: the folder of a run whose phases a new one starts from.
    Raises:
      UserError: the data are not those that the run began with, or anything else is wrong.
    """
    from closure_jax import pretrained
    from closure_jax.evaluation import evaluate
    from closure_jax.training import phase, programs

    given = given_data(experiment) if experiment.data.path else None
    if data_folder().exists() and not data_folder().is_dir():
        raise UserError(
            f"data folder '{data_folder()}' is a file: expected a folder, or another one in CLOSURE_JAX_DATA"
        )
    started = "" if mode == "evaluate" else _started_from(experiment, work)
    with work.lock():
        dataset = given or simulated_data(experiment, work)
        facts = provenance.provenance(dataset.path, dataset.checksum)
        before = devices.on_main(work.provenance)
        _same_data(before, facts, work)
        if started:
            _same_start(before, started, work)
            facts["started_from"] = started
        if fork is not None:
            facts["forked_from"] = str(pathlib.Path(fork))
        facts = {name: before[name] for name in _BEGAN if name in before} | facts
        if devices.on_main(lambda: work.has_begun("closure")):  # trained before: that revision is a fact of the model
            facts["trained_revision"] = before.get("trained_revision") or before.get("revision", facts["revision"])
        if mode == "evaluate":
            model = pretrained.load(work.path).replace(steps=experiment.sampler.steps)
        else:
            if not before:
                if fork is not None:
                    devices.on_main(lambda: _fork(work, WorkDir(fork), experiment))
                work.write_config(experiment.config, facts)
            model = programs.train(phase.Run(experiment, dataset, work, data_folder()))
            if not devices.on_main(lambda: evaluate.is_stale(experiment, work)):
                print(f"evaluation: already done, {work.path / 'results.json'}")
                print(f"report: {work.path / 'report.html'}")
                return
        work.write_config(experiment.config, facts)
        devices.on_main(lambda: judge(experiment, dataset, model, work, facts))
        print(f"results: {work.path / 'results.json'}")
        print(f"report: {work.path / 'report.html'}")


def _fork(work: WorkDir, source: WorkDir, experiment: Experiment) -> None:
    """Takes the phases of another run, and says in what this one differs."""
    theirs, ours = (dict(config_lib.leaves(config)) for config in (source.config(), experiment.config))
    changed = [name for name in ours | theirs if theirs.get(name) != ours.get(name)]
    work.fork(source)
    print(f"fork of {source.path}, which differs in {', '.join(changed) or 'nothing'}:")
    for name in changed:
        print(f"  {name}: {theirs.get(name)!r} there, {ours.get(name)!r} here")


def _same_data(before: dict[str, Any], facts: dict[str, Any], work: WorkDir) -> None:
    """Raises UserError where the run began with other data than those of now."""
    stored = before.get("data_checksum")
    if stored not in (None, facts["data_checksum"]):
        raise UserError(
            f"work directory '{work.path}' holds a run on other data (checksum {stored[:12]}, those of now in"
            f" '{facts['data_path']}' have {facts['data_checksum'][:12]}): expected the same; restore them, or give another"
            " --workdir"
        )


def _started_from(experiment: Experiment, work: WorkDir) -> str:
    """Digest of the closure that training goes on from; empty where it begins anew, or has ended.

    Raises:
      UserError: there is none there: told before data are made.
    """
    asked: Callable[[Experiment], str] = getattr(experiment.program, "started_from", lambda experiment: "")
    return "" if devices.on_main(lambda: work.has_begun("closure")) else asked(experiment)


def _same_start(before: dict[str, Any], started: str, work: WorkDir) -> None:
    """Raises UserError where the run began from another closure than the one that is there now."""
    stored = before.get("started_from")
    if stored not in (None, started):
        raise UserError(
            f"work directory '{work.path}' holds a run that started from a closure with digest {stored}, the one of"
            f" --config.program.start has {started} now: expected the same; restore it, or give another --workdir"
        )


def judge(
    experiment: Experiment,
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
    results, arrays = evaluate.run(experiment, dataset, model, work)
    head = {"experiment": experiment.name, "preset": experiment.preset, "seed": experiment.seed}
    head |= {name: facts[name] for name in ("revision", "trained_revision", "device")}
    results = head | results | {name: facts[name] for name in ("versions", "data_checksum")}
    named: dict[str, Any] = {**arrays}
    np.savez_compressed(work.path / "arrays.npz", **named)
    with work.timed("report"):
        report.write_report(work.path, results | {"wall_seconds": work.wall_seconds()})
    work.write_results(results | {"wall_seconds": work.wall_seconds()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), continues=True)


def _command(arguments: Sequence[str]) -> None:
    options, overrides = _parse(arguments)
    devices.start()
    with devices.main_speaks():
        _run(options, overrides)


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    if options.require_accelerator and not devices.has_accelerator():
        raise UserError("--require_accelerator: jax found only the CPU; expected a GPU or TPU and its jax build")
    experiment, work = resolve(options, overrides)
    print(f"closure_jax on {devices.describe()}, preset {experiment.preset}, work directory {work.path}", flush=True)
    if options.dry_run:
        from closure_jax.bench import cost

        print(cost.summary(experiment))
        return
    if options.mode == "evaluate":
        work.checkpoints("closure").require()
    run(experiment, work, options.mode, options.fork)
