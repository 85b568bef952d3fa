"""What a run starts from, asked before it is used: data, given or simulated; a closure to go on from; a run that it forks."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.config import Experiment, rules
from closure_jax.data import dataset as dataset_lib
from closure_jax.data import generate, variation
from closure_jax.errors import UserError
from closure_jax.parallel import processes
from closure_jax.workdir import WorkDir

ConfigDict = ml_collections.ConfigDict

BEGAN = ("run", "started_from", "forked_from")
"""Facts of a run's beginning, which stay; `run` is a random name, by which its closure is known."""

FORKING = "forking"
"""The one fact of a run that is still copying the phases of another."""

_HELD_AGAINST_THE_LAW = 32
"""States of each part of given data, at most."""


# --- data ------------------------------------------------------------------------------------------------------------


def data_folder() -> pathlib.Path:
    """$CLOSURE_JAX_DATA, or data/ beside launch.sh, or in the current folder where there is none."""
    home = os.environ.get("CLOSURE_JAX_HOME", ".")
    return pathlib.Path(os.environ.get("CLOSURE_JAX_DATA") or pathlib.Path(home) / "data")


def check_data_folder() -> None:
    """Raises UserError where data can't be made in their folder, since it, or what it would lie in, is a file."""
    files.check_folder(data_folder(), "CLOSURE_JAX_DATA")


def take_from_file(config: ConfigDict, overrides: Sequence[str] = ()) -> None:
    """Where pairs are all that is given (`problem.kind = given`), takes their size and times from the file, in place.

    Raises:
      UserError: the file can't be read, or an override sets what the file says.
    """
    if config.problem.kind != "given" or not config.data.path:
        return
    size, time = dataset_lib.size_and_times(pathlib.Path(config.data.path))
    interval = float(f"{(time[-1] - time[0]) / (len(time) - 1):.7g}")  # times of single precision are not quite even
    first = round(float(time[0]) / interval)
    found = {"problem.dt": interval, "data.snapshot_every": 1, "data.resolution": size}
    found |= {"data.burn_in": (first - 1) * interval, "data.end": (first - 1 + len(time)) * interval}
    for text in overrides:
        field = config_lib.current_name(config, text.partition("=")[0])
        if field in found:
            raise UserError(
                f"--config.{text}: of given pairs '{config.data.path}' says it, {found[field]:g}: leave the option out"
            )
    config_lib.override(config, [f"{field}={value}" for field, value in found.items()])


def data_of(experiment: Experiment) -> dataset_lib.Dataset:
    """The dataset of an experiment, given or simulated, without a run."""
    return given_data(experiment) if experiment.data.path else simulated_data(experiment)


def given_data(experiment: Experiment) -> dataset_lib.Dataset:
    """The dataset of --config.data.path, checked before anything is written."""
    file = pathlib.Path(experiment.data.path)
    print(f"data: {file}")
    dataset = _load(experiment, file)
    variation.check_fields(dataset)
    size, tests = dataset.vorticity["test"].shape[-1], len(dataset.vorticity["test"])
    if size != experiment.data.resolution:
        raise UserError(f"data file '{file}' holds {size}^2 fields: expected --config.data.resolution={size}")
    _of_this_flow(experiment, dataset)
    if experiment.problem.solver() is not None and tests < experiment.evaluation.rollout_states:
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
    off = 0.0 if experiment.problem.reference() is not None else 2e-2 * (times[1] - times[0])  # as their reading allows
    if len(dataset.time) != len(times) or not np.allclose(dataset.time, times, rtol=1e-5, atol=off):
        first, last = dataset.time[0], dataset.time[-1]
        raise UserError(
            f"data file '{file}' has {len(dataset.time)} snapshots from t = {first:g} to {last:g}, --config.data.burn_in, end and"
            f" snapshot_every mean {len(times)} from {times[0]:g} to {times[-1]:g}: expected the same; set those fields"
        )
    for split in dataset.vorticity:
        _of_this_law(experiment, dataset, split)


def _of_this_law(experiment: Experiment, dataset: dataset_lib.Dataset, split: str) -> None:
    """Raises UserError where states of a part of given data, spread over its trajectories, are not of the law, if it is known."""
    count = len(dataset.fields("vorticity", split))
    some = np.linspace(0, count - 1, min(count, _HELD_AGAINST_THE_LAW)).astype(int)
    vorticity, closure = (dataset.fields(name, split)[some] for name in dataset_lib.FIELDS)
    law = experiment.problem.law(vorticity)
    if law is None:
        return
    off = float(np.sqrt(np.mean((closure - law.mean) ** 2)))
    least, most = law.deviation / 2, 2 * law.deviation + 1e-2 * float(np.sqrt(np.mean(law.mean**2)))
    if not least <= off <= most:
        raise UserError(
            f"data file '{dataset.path}': its closures are off the mean that the flow gives for their vorticity by {off:.3g},"
            f" where its noise has {law.deviation:.3g} ({len(some)} {split} states): expected pairs of this flow; check problem.*"
            ", flow.* and that vorticity and closure are not exchanged"
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

    processes.on_main(make)
    return _load(experiment, file)


def check_windows(experiment: Experiment, given: dataset_lib.Dataset | None = None) -> None:
    """Raises UserError where the coupling can't be fitted to the training trajectories, of data given or to be made."""
    count = experiment.data.train_trajectories or experiment.data.training_trajectories()
    times = len(experiment.simulation().snapshot_times())
    rules.check_windows(experiment, *((count, times) if given is None else given.vorticity["train"].shape[:2]))


def regime(experiment: Experiment, dataset: dataset_lib.Dataset) -> dict[str, float]:
    """What the problem says of the case that the data are of, where it says anything.

    Raises:
      UserError: there is nothing to close.
    """
    asked: Callable[[dataset_lib.Dataset], dict[str, float]] = getattr(experiment.problem, "regime", lambda dataset: {})
    found = asked(dataset)
    if found:
        print("regime: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return found


def _load(experiment: Experiment, file: pathlib.Path) -> dataset_lib.Dataset:
    simulation, data = experiment.simulation(), experiment.data
    times = simulation.snapshot_times()
    dataset = dataset_lib.load(file, len(times), simulation.interval(), data.burn_in, simulation.physics())
    return dataset.first(data.train_trajectories) if data.train_trajectories else dataset


# --- another closure, another run --------------------------------------------------------------------------------------


def check_fork(options: argparse.Namespace, work: WorkDir, experiment: Experiment) -> None:
    """Raises UserError where --fork names no run, or one whose phases the experiment can't go on from, or the work directory
    holds a run that began otherwise."""
    if options.mode == "evaluate":
        raise UserError(f"--fork={options.fork}: expected no --mode=evaluate beside it, which trains nothing")
    source = WorkDir(options.fork)
    source.config()  # refuses what is no run
    if source.path.resolve() == work.path.resolve():
        raise UserError(f"--fork={options.fork}: expected another run than that of --workdir")
    source.records()  # refuses what is damaged
    stored = work.provenance()
    began = (work.path / "config.json").exists() or bool(stored)
    if began and stored.get("forked_from", stored.get(FORKING)) != str(source.path):
        raise UserError(
            f"--fork={options.fork}: work directory '{work.path}' holds a run that did not begin so: give another --workdir"
        )
    if not began or FORKING in stored:
        from closure_jax.training import programs

        with source.still():  # told before anything is made
            programs.check_phases(experiment, source)


def begun(stored: dict[str, Any], fork: str | None, work: WorkDir) -> dict[str, Any]:
    """The provenance with which a run has begun; empty of one that is new, or was stopped while it copied what it forks.

    Raises:
      UserError: it was stopped so, and is not asked to fork again.
    """
    if FORKING in stored and fork is None:
        raise UserError(
            f"work directory '{work.path}' holds a fork that was stopped while it copied: expected --fork={stored[FORKING]}"
            " again, or another --workdir"
        )
    return {} if FORKING in stored else stored


def fork(work: WorkDir, source: WorkDir, experiment: Experiment) -> None:
    """Takes the phases of another run, and says in what this one differs.

    Raises:
      UserError: that run is at work.
    """
    theirs, ours = (dict(config_lib.leaves(config)) for config in (source.config(), experiment.config))
    changed = [name for name in ours | theirs if theirs.get(name) != ours.get(name)]
    with source.still():
        work.fork(source)
    print(f"fork of {source.path}, which differs in {', '.join(changed) or 'nothing'}:")
    for name in changed:
        print(f"  {name}: {theirs.get(name)!r} there, {ours.get(name)!r} here")


def check_same_data(before: dict[str, Any], dataset: dataset_lib.Dataset, work: WorkDir) -> None:
    """Raises UserError where the run with the provenance `before` began with other data than those of now."""
    stored = before.get("data_checksum")
    if stored not in (None, dataset.checksum):
        raise UserError(
            f"work directory '{work.path}' holds a run on other data (checksum {str(stored)[:12]}, those of now in"
            f" '{dataset.path}' have {dataset.checksum[:12]}): expected the same; restore them, or train in another --workdir"
        )


def started_from(experiment: Experiment, work: WorkDir) -> str:
    """Digest of the closure that training goes on from; empty where it begins anew, or has ended.

    Raises:
      UserError: there is none there: told before data are made.
    """
    asked: Callable[[Experiment], str] = getattr(experiment.program, "started_from", lambda experiment: "")
    return "" if processes.on_main(lambda: work.has_begun("closure")) else asked(experiment)


def check_same_start(before: dict[str, Any], started: str, work: WorkDir) -> None:
    """Raises UserError where the run began from another closure than the one that is there now."""
    stored = before.get("started_from")
    if stored not in (None, started):
        raise UserError(
            f"work directory '{work.path}' holds a run that started from a closure with digest {stored}, the one of"
            f" --config.program.start has {started} now: expected the same; restore it, or give another --workdir"
        )
