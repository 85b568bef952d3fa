"""The command line: --config, --workdir, --mode; what runs in which order."""

import argparse
import dataclasses
import io
import pathlib
import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.commands import cli, origins
from closure_jax.config import Experiment, settings
from closure_jax.data import dataset as dataset_lib
from closure_jax.errors import UserError
from closure_jax.parallel import devices, processes
from closure_jax.workdir import JUDGED_FIELDS, WorkDir, provenance

if TYPE_CHECKING:
    from closure_jax.closure import StochasticClosure


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.Parser("closure_jax", "Train and judge a stochastic closure.")
    parser.add_argument("--config", metavar="FILE.py[:PRESET]", help="experiment; presets: paper, medium, small, tiny")
    parser.add_argument("--workdir", help="work directory; default runs/EXPERIMENT-PRESET in the current folder")
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train", help="evaluate: judge what DIR holds")
    parser.add_argument("--fork", metavar="DIR", help="a new run that goes on from the phases of another, changed")
    parser.add_argument("--dry_run", action="store_true", help="print configuration, phases and their cost, and end")
    parser.add_argument(
        "--rehearse", action="store_true", help="run each phase for a few steps, say what all will take"
    )
    parser.add_argument("--output", metavar="FILE.json", type=cli.path, help="of --rehearse: write its table here too")
    parser.add_argument("--require_accelerator", action="store_true", help="end where jax would run on the CPU")
    parser.epilog = "--config.FIELD=VALUE overrides any field; --dry_run prints them all."
    return parser.options_and_fields(arguments)


def resolve(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Experiment, WorkDir]:
    """The experiment and work directory that the options mean; nothing is written.

    Raises:
      UserError: whatever is wrong with them.
    """
    if options.output is not None and not options.rehearse:
        raise UserError(f"--output={options.output}: expected --rehearse beside it, whose table it is")
    beside = {"--dry_run": options.dry_run, "--mode=evaluate": options.mode == "evaluate", "--fork": options.fork}
    for option, given in beside.items():
        if options.rehearse and given:
            raise UserError(f"--rehearse with {option}: expected one of them; a rehearsal is of a whole new run")
    if options.workdir == "":
        raise UserError("--workdir is empty: expected a folder")
    if options.config:
        config = config_lib.load(options.config, "paper" if devices.has_accelerator() else "small")
        work = WorkDir(options.workdir or pathlib.Path("runs") / f"{config.experiment}-{config.preset}")
    elif options.mode == "evaluate" and options.workdir:
        work = WorkDir(options.workdir)
        config = work.config()
    else:
        raise UserError("--config is missing: expected --config=experiments/NAME.py[:PRESET]")
    if options.mode == "evaluate":
        asked, config = config, work.config()
        preset = ["preset"] if options.config and ":" in pathlib.Path(options.config).name else []
        for name in ["experiment", *preset]:
            if asked[name] != config[name]:
                raise UserError(
                    f"--config is {asked.experiment}:{asked.preset}, and work directory '{work.path}' holds a run of"
                    f" {config.experiment}:{config.preset}: expected its own, or none, which its folder says"
                )
        for text in overrides:
            if not config_lib.current_name(config, text.partition("=")[0]).startswith(JUDGED_FIELDS):
                raise UserError(
                    f"--config.{text}: with --mode=evaluate only evaluation.*, sampler.*, coupling.*, problem.solver_dt and"
                    " problem.settling_time can be changed"
                )
    config_lib.override(config, overrides)
    if options.mode != "evaluate":
        origins.take_from_file(config, overrides)
    experiment = config_lib.build(config)
    if not experiment.data.path:  # of given data the file says how many there are
        origins.check_windows(experiment)
    work.check(config, getattr(experiment.program, "trained_through", ()))
    if options.fork is not None:
        origins.check_fork(options, work, experiment)
    return experiment, work


def run(experiment: Experiment, work: WorkDir, mode: str, fork: str | None = None, rehearsal: bool = False) -> None:
    """The whole job, or the evaluation of a finished one.

    Args:
      experiment: what is trained and judged.
      work: the run's folder.
      mode: `train` or `evaluate`.
      fork: the folder of a run whose phases a new one starts from.
      rehearsal: nothing is left of it; of what case the data are isn't asked, since a few snapshots do not say it.
    Raises:
      UserError: the data are not those that the run began with, or anything else is wrong.
    """
    from closure_jax import pretrained
    from closure_jax.evaluation import evaluate
    from closure_jax.training import phase, programs

    origins.check_data_folder()
    given = origins.given_data(experiment) if experiment.data.path else None
    origins.check_windows(experiment, given)
    started = "" if mode == "evaluate" else origins.started_from(experiment, work)
    with work.lock():
        dataset = given or origins.simulated_data(experiment, work)
        if not experiment.autoencoder_training.settings.standardise:
            dataset = dataset.in_physical_units()
        facts = provenance.provenance(dataset.path, dataset.checksum)
        facts |= {"regime": found} if not rehearsal and (found := origins.regime(experiment, dataset)) else {}
        before = origins.begun(processes.on_main(work.provenance), fork, work)
        origins.check_same_data(before, dataset, work)
        if started:
            origins.check_same_start(before, started, work)
            facts["started_from"] = started
        if fork is not None:
            facts["forked_from"] = str(pathlib.Path(fork))
        facts = {name: before[name] for name in origins.BEGAN if name in before} | facts
        trained = processes.on_main(lambda: work.has_begun("closure"))
        if trained:  # before: that revision is a fact of the model
            facts["trained_revision"] = before.get("trained_revision") or before.get("revision", facts["revision"])
        if mode == "evaluate":
            model = pretrained.load(work.path).replace(steps=experiment.sampler.steps)
        else:
            if not before or not processes.on_main((work.path / "config.json").is_file):
                if fork is not None:
                    work.write_config(experiment.config, {origins.FORKING: facts["forked_from"]})
                    processes.on_main(lambda: origins.fork(work, WorkDir(fork), experiment))
                if not trained:  # else the closure is of a run whose name is gone
                    facts.setdefault("run", processes.on_main(lambda: secrets.token_hex(8)))
                work.write_config(experiment.config, facts)
            model = programs.train(phase.Run(experiment, dataset, work, origins.data_folder()))
            if not processes.on_main(lambda: evaluate.is_stale(experiment, work)):
                print(f"evaluation: already done, {work.path / 'results.json'}")
                report = work.path / "report.html"
                print(
                    f"report: {report}"
                    if report.exists()
                    else f"report: '{report}' is gone, --mode=evaluate makes it anew"
                )
                return
            work.write_provenance(facts)
        processes.on_main(lambda: judge(experiment, dataset, model, work, facts))
        if rehearsal:
            return
        print(f"results: {work.path / 'results.json'}")
        print(f"report: {work.path / 'report.html'}")


def judge(
    experiment: Experiment,
    dataset: dataset_lib.Dataset,
    model: "StochasticClosure",
    work: WorkDir,
    facts: dict[str, Any],
    seen: dataset_lib.Dataset | None = None,
) -> None:
    """Evaluates, and writes arrays.npz, figures, report.html, the summary, the configuration and, last, results.json.

    Args:
      experiment: what is judged, and how.
      dataset: that it is judged by.
      model: the closure.
      work: the run's folder.
      facts: of its provenance.
      seen: data that the model was trained on, where they are others.
    """
    from closure_jax.evaluation import evaluate
    from closure_jax.pages.comparison import summaries
    from closure_jax.pages.comparison.runs import Run
    from closure_jax.pages.run import report

    spent = work.wall_seconds()
    for phase in (*evaluate.PHASES, "report"):
        spent.pop(phase, None)
    work.write_wall_seconds(spent)
    results, arrays = evaluate.run(experiment, dataset, model, work, origins.data_folder(), seen)
    head = {"experiment": experiment.name, "preset": experiment.preset, "seed": experiment.seed}
    head |= {name: facts[name] for name in ("revision", "trained_revision", "device")}
    results = head | results | {name: facts[name] for name in ("versions", "data_checksum")}
    named: dict[str, Any] = {**arrays}
    config = config_lib.to_dict(experiment.config)
    content = io.BytesIO()  # to a file an archive goes in many small pieces
    np.savez_compressed(content, **named)
    with files.aside(work.path / "arrays.npz") as partial:
        partial.write_bytes(content.getvalue())
    with work.timed("report"):
        report.write_report(work.path, results | {"wall_seconds": work.wall_seconds()}, config)
    results["wall_seconds"] = work.wall_seconds()
    judged = Run(work.path, config, results, arrays)
    summaries.write(work.path / "summary.json", summaries.of(judged, facts, work.records()))
    work.write_config(experiment.config, facts)
    work.write_results(results)
    evaluate.forget_rollouts(work)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), continues=True)


def _command(arguments: Sequence[str]) -> None:
    options, overrides = _parse(arguments)
    processes.start()
    with processes.main_speaks():
        _run(options, overrides)


def _check_batches(experiment: Experiment) -> None:
    """Raises UserError where a batch of a phase that trains something does not divide over the devices: told before anything is
    made."""
    phases: list[Any] = experiment.program.phases(experiment)
    if not any(phase.training.settings.batch_size % devices.count() for phase in phases):
        return
    for phase in _that_train(phases):
        devices.check_batch(f"{phase.section}.batch_size", phase.training.settings.batch_size)


def _that_train(phases: Sequence[Any]) -> list[Any]:
    """Those of a program's phases that have parameters; nothing is computed."""
    made: dict[str, Any] = {}  # their shapes
    for phase in phases:
        made[phase.name] = jax.eval_shape(lambda phase=phase: phase.start(jax.random.key(0), made))
    return [phase for phase in phases if jax.tree.leaves(made[phase.name])]


def _unread(experiment: Experiment, overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that say how a section's network is trained where no phase trains by that section."""
    schedules: dict[str, Any] = {
        "autoencoder": experiment.autoencoder_training.schedule,
        "transport": experiment.transport_training.schedule,
    }
    numbers = {
        f"{section}.{field.name}"
        for section, schedule in schedules.items()
        for part in (settings.Optimisation, schedule)
        for field in dataclasses.fields(part)
    } | {f"{section}.schedule" for section in schedules}
    asked = [text for text in overrides if text.partition("=")[0] in numbers]
    if not asked:
        return []
    read = {phase.section for phase in _that_train(experiment.program.phases(experiment))}
    return [text for text in asked if text.partition(".")[0] not in read]


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    if options.require_accelerator and not devices.has_accelerator():
        raise UserError("--require_accelerator: jax found only the CPU; expected a GPU or TPU and its jax build")
    experiment, work = resolve(options, overrides)
    if options.mode != "evaluate" and not options.rehearse and not (work.path / "checkpoints" / "closure").exists():
        _check_batches(experiment)
    print(f"closure_jax on {devices.describe()}, preset {experiment.preset}, work directory {work.path}", flush=True)
    if options.mode != "evaluate":
        for text in _unread(experiment, overrides):
            print(f"--config.{text}: not read here, nothing of this experiment is trained by it")
    if options.dry_run:
        from closure_jax.bench import cost

        print(cost.summary(experiment))
        return
    if options.rehearse:
        from closure_jax.commands import rehearse

        rehearse.rehearse(experiment, options.output)
        return
    if options.mode == "evaluate":
        work.checkpoints("closure").require()
    run(experiment, work, options.mode, options.fork)
