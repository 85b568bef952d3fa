"""`--rehearse`: every phase of a run at its true sizes for a few real steps, before a machine is asked for the whole.

The job itself runs, in a scratch folder that is removed: the solver at its resolution, networks and batches of their sizes,
sampler steps, rollouts; but few trajectories, steps, samples and members. What the whole would take is what these took,
scaled, with compilation counted once, and that of training left out; the memory is that of what ran at once, which the table
says. Batches are cut where a step would take longer than a few seconds, or more memory than half of what is free.
"""

import contextlib
import copy
import dataclasses
import math
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.monitoring
import numpy as np

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.bench import cost, roofline
from closure_jax.config import Experiment
from closure_jax.errors import UserError, check
from closure_jax.evaluation.a_priori import held_states
from closure_jax.latent import distances
from closure_jax.pages.tables import Table, duration
from closure_jax.parallel import devices
from closure_jax.workdir import WorkDir

_STEPS = 4  # of training; the first compiles, and is left out
_SNAPSHOTS = 8  # as many test fields as the latent's geometry needs
_STEP_SECONDS = 10.0  # of training that a step may take
_SHARE = 0.5  # of the free memory that it may take
_STATES, _SAMPLES, _GEOMETRY, _MEMBERS = 2, 4, 8, 2


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """One phase.

    Attributes:
      seconds_per_step: of the solver for one trajectory, of training at the true batch, else of the whole phase as rehearsed.
      peak_bytes: of the process on a CPU, of the device so far else.
      projected_seconds: of the whole phase.
      first_losses: of the steps that were taken; empty where nothing is trained.
      note: what was cut.
    """

    seconds_per_step: float
    peak_bytes: int
    projected_seconds: float
    first_losses: tuple[float, ...] = ()
    note: str = ""


def rehearse(experiment: Experiment, output: pathlib.Path | None) -> None:
    """Runs the rehearsal, prints its table, and writes it as JSON where that is asked for.

    Raises:
      UserError: the configuration can't be shortened, or the output can't be written.
    """
    check(
        jax.process_count() == 1,
        f"--rehearse in a job of {jax.process_count()} processes: expected one; rehearse on one host, with its devices",
    )
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"--output={output}: expected a file in a folder that is there")
    if output is not None:
        files.check_file(output, "--output")
    anew = _from_nothing(experiment)
    short = _shortened(anew, _batches(anew))
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=pathlib.Path.cwd()) as scratch:
        work = _Watched(pathlib.Path(scratch) / "run")
        print("rehearsal: the job, shortened, in a scratch folder", flush=True)
        with _data_in(pathlib.Path(scratch) / "data"):
            from closure_jax.commands import train

            train.run(short, work, "train", rehearsal=True)
        found = _found(experiment, short, work)
        disk = sum(path.stat().st_size for path in work.path.glob("checkpoints/**/*") if path.is_file())
    stored = experiment.data.trajectories * len(experiment.simulation().snapshot_times())
    bytes_on_disk = {"data": 2 * 4 * stored * experiment.data.resolution**2, "checkpoints": disk}
    print(_table(found, bytes_on_disk))
    if output is not None:
        phases = {name: dataclasses.asdict(phase) for name, phase in found.items()}
        files.write_json(output, {"device": devices.describe(), "phases": phases, "disk": bytes_on_disk})
        print(f"written: {output}")


def _from_nothing(experiment: Experiment) -> Experiment:
    """The experiment without a closure to start from, which was trained on more data than a rehearsal makes."""
    if not experiment.config.program.get("start"):
        return experiment
    config = copy.deepcopy(experiment.config)
    config.program.start = ""
    return config_lib.build(config)


def _batches(experiment: Experiment) -> dict[str, int]:
    """By section that is trained, the batch of the rehearsal."""
    rate, free = roofline.matrix_rate(), _free_memory()
    planned = {phase.name: phase for phase in cost.phases_of(experiment)}
    found: dict[str, int] = {}
    for phase in experiment.program.phases(experiment):
        size, estimate = phase.training.settings.batch_size, planned.get(phase.name)
        if estimate is None:
            continue
        share = min(1.0, _STEP_SECONDS * rate * estimate.steps / estimate.work, _SHARE * free / estimate.memory)
        least = max(2, devices.count())
        cut = max(least, int(size * share) // least * least)
        found[phase.section] = min(found.get(phase.section) or size, cut, size)
    return found


def _free_memory() -> float:
    """Bytes that are free: of the first device, or of the machine where that keeps no count."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))


def _shortened(experiment: Experiment, batches: dict[str, int]) -> Experiment:
    """The experiment of the rehearsal: the same sizes, a few of everything."""
    config, data = copy.deepcopy(experiment.config), experiment.data
    trajectories = min(data.trajectories, max(4, min(data.chunk, 16)))
    changes: dict[str, Any] = {f"{section}.batch_size": size for section, size in batches.items()}
    changes |= {f"{section}.steps": _STEPS for section in batches}
    changes |= {"training.log_every": 1, "training.checkpoint_every": _STEPS, "training.validation_fields": 8}
    interval = data.snapshot_every * experiment.problem.dt
    snapshots = max(_SNAPSHOTS, 2 + config.program.get("leads", 0))
    if not data.path:
        changes |= {"data.trajectories": trajectories, "data.test_trajectories": 1, "data.train_trajectories": 0}
        changes |= {"data.burn_in": 0.0, "data.end": snapshots * interval, "evaluation.rollout_start": interval}
    changes |= {"evaluation.states": _STATES, "evaluation.samples": _SAMPLES, "evaluation.geometry_states": _GEOMETRY}
    changes |= {"evaluation.rollout_states": 1, "evaluation.rollout_members": _MEMBERS, "evaluation.rollout_time": 1.0}
    changes |= {"evaluation.turnovers": 0.0}
    if getattr(experiment.transport, "flow_steps", 0):
        changes["transport.flow_steps"] = _STEPS
    config_lib.override(config, [f"{name}={value}" for name, value in changes.items()])
    return config_lib.build(config)


class _Watched(WorkDir):
    """A work directory that notes of each phase that it times the most memory, and how long jax traced and compiled in it."""

    def __init__(self, path: pathlib.Path):
        super().__init__(path)
        self.peaks: dict[str, int] = {}
        self.compiling: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """As of `WorkDir`."""
        with contextlib.suppress(OSError):  # Linux forgets the peak of before
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        with super().timed(phase), _compilations() as spans:
            yield
        self.peaks[phase] = max(self.peaks.get(phase, 0), _peak_memory())
        self.compiling[phase] = self.compiling.get(phase, 0.0) + _covered(spans)


@contextlib.contextmanager
def _compilations() -> Iterator[list[tuple[float, float]]]:
    """When jax traced, lowered or compiled: (start, end) in seconds; spans lie within others."""
    spans: list[tuple[float, float]] = []

    def note(event: str, start_time: float, end_time: float, **about: Any) -> None:
        del about
        if event.startswith("/jax/core/compile/"):
            spans.append((start_time, end_time))

    jax.monitoring.register_event_time_span_listener(note)
    try:
        yield spans
    finally:
        jax.monitoring.unregister_event_time_span_listener(note)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _peak_memory() -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
        if found:
            return 1024 * int(found[1])
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def _data_in(folder: pathlib.Path) -> Iterator[None]:
    """Simulated data are made in, and left to, a folder."""
    before = os.environ.get("CLOSURE_JAX_DATA")
    os.environ["CLOSURE_JAX_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CLOSURE_JAX_DATA"]
        else:
            os.environ["CLOSURE_JAX_DATA"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _found(experiment: Experiment, short: Experiment, work: _Watched) -> dict[str, Rehearsed]:
    """What each phase took, scaled."""
    spent, found = work.wall_seconds(), {}
    data, cut = experiment.data, short.data
    if "data" in spent:
        steps = round(cut.end / experiment.problem.dt) * cut.trajectories
        compiling = min(work.compiling["data"], spent["data"])
        every = (spent["data"] - compiling) / steps
        whole = compiling + every * round(data.end / experiment.problem.dt) * data.trajectories
        note = f"{cut.trajectories} of {data.trajectories} trajectories, to t = {cut.end:g} of {data.end:g}"
        note += f"; memory of {min(cut.trajectories, cut.chunk)} at once, not {min(data.trajectories, data.chunk)}"
        found["data"] = Rehearsed(every, work.peaks["data"], whole, note=note)
    if getattr(experiment.latent, "potential", None) is not None:
        if data.path:  # the data are whole, and so were the distances
            seconds = spent["latent_distances"]
            found["latent_distances"] = Rehearsed(seconds, work.peaks["latent_distances"], seconds)
        else:
            found["latent_distances"] = _distances(experiment)
    short_phases = {phase.name: phase for phase in short.program.phases(short)}
    for phase in experiment.program.phases(experiment):
        records, rehearsed = work.records(phase.name), short_phases[phase.name]
        if not records:
            continue
        size, used = phase.training.settings.batch_size, rehearsed.training.settings.batch_size
        seconds = float(np.median([1 / record["steps_per_second"] for record in records[1:] or records]))
        whole = seconds * size / used
        losses = tuple(record["loss"] for record in records)
        note = "" if used == size else f"batch {used} of {size}"
        found[phase.name] = Rehearsed(
            whole, work.peaks[phase.name], whole * phase.training.settings.steps, losses, note
        )
    return found | _judging(experiment, short, work)


def _judging(experiment: Experiment, short: Experiment, work: _Watched) -> dict[str, Rehearsed]:
    """The phases of an evaluation: what compiles, and calls that are timed, are the same in the whole; the rest is scaled."""
    spent, results, found = work.wall_seconds(), work.results() or {}, {}
    ev, few = experiment.evaluation, short.evaluation
    if "a_priori" in spent:
        drawn, whole = ((one.states + held_states(one.states, one.steps)) * one.samples for one in (few, ev))
        measured = results["a_priori"]
        of_all = sum(steps["milliseconds_per_sample"] for steps in measured["by_steps"].values()) / 1e3
        schedules = 1 + len(measured["by_schedule"])
        seconds = spent["a_priori"] + max(0, whole - drawn) * of_all * schedules
        note = f"{drawn:,} of {whole:,} samples"
        found["a_priori"] = Rehearsed(spent["a_priori"], work.peaks["a_priori"], seconds, note=note)
    members = ev.rollout_states * ev.rollout_members
    beside = f"{_MEMBERS} of {members} members, {few.rollout_time:g} of {ev.rollout_time:g} time units"
    beside += f"; memory of {_MEMBERS} members at once, not {min(members, ev.rollout_chunk)}"
    beside += "; without the runs of `turnovers`" if ev.turnovers else ""
    cut = {
        "latent_geometry": (
            ev.geometry_states / few.geometry_states,
            f"{few.geometry_states} of {ev.geometry_states} states",
        ),
        "a_posteriori": (members * ev.rollout_time / (_MEMBERS * few.rollout_time), beside),
    }
    for name, (scale, note) in cut.items():
        if name in spent:
            compiling = min(work.compiling[name], spent[name])
            seconds = compiling + scale * (spent[name] - compiling)
            found[name] = Rehearsed(spent[name], work.peaks[name], seconds, note=note)
    return found


def _distances(experiment: Experiment) -> Rehearsed:
    """Potentials of both fields, for as many smooth random fields as there are to train on."""
    data = experiment.data
    latent: Any = experiment.latent
    count = data.training_trajectories() * len(experiment.simulation().snapshot_times())
    rng, n = np.random.default_rng(0), data.resolution
    waves = rng.standard_normal((20, n * n)).astype(np.float32)
    fields = rng.standard_normal((count, 20)).astype(np.float32) @ waves
    start = time.perf_counter()
    rows = latent.potential(fields.reshape(count, n, n), experiment.seed)[2]()
    if latent.pairs == "neighbours":
        distances.nearest(rows, latent.knn)
    seconds = time.perf_counter() - start
    return Rehearsed(seconds, _peak_memory(), 2 * seconds, note=f"{count:,} random fields, all that there are")


def _table(found: dict[str, Rehearsed], disk: dict[str, int]) -> str:
    rows = [
        (
            name,
            f"{phase.seconds_per_step:.3g} s",
            f"{phase.peak_bytes / 2**30:.2f} GiB",
            duration(phase.projected_seconds) or "",
            " ".join(f"{loss:.3g}" for loss in phase.first_losses) or "–",
            phase.note,
        )
        for name, phase in found.items()
    ]
    together = duration(sum(phase.projected_seconds for phase in found.values())) or ""
    head = ("phase", "a step", "most memory", "the whole", "first losses", "")
    on_disk = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in disk.items())
    return "\n".join(
        [
            f"rehearsal on {devices.describe()}",
            Table(head, [*rows, ("together", "", "", together, "", "")]).plain(indent="  "),
            f"disk: {on_disk}",
        ]
    )
