"""The folder of a run: resolved configuration, metrics, checkpoints, results.

A work directory holds config.json (nested), provenance.json (versions, device, revision, data checksum), metrics.jsonl,
tensorboard/, checkpoints/PHASE/STEP/ (Orbax), wall_seconds.json, arrays.npz, figures/, report.html, summary.json and, last,
results.json. `.digests` vouches for the JSON and for each record. `rollouts/` holds ensembles while an evaluation runs.
"""

import contextlib
import hashlib
import json
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.errors import UserError
from closure_jax.parallel import processes
from closure_jax.workdir import records as records_lib
from closure_jax.workdir.checkpoints import Checkpoints
from closure_jax.workdir.records import MetricsLog, write_json

JUDGED_FIELDS = (
    *("evaluation.", "sampler.", "coupling."),
    *("transport.rollout_t_max", "problem.solver_dt", "problem.settling_time"),
)
"""Beginnings of fields that change what is judged, not what was trained."""

FREE_FIELDS = (*JUDGED_FIELDS, "training.log_every", "data.chunk", "experiment_file")
"""Beginnings of fields that may differ when a work directory is used again; of the experiment's file the run has a copy."""

_OWN_FILE = "experiment.py"
"""The run's copy of its experiment's file, where pieces of the run stand in it."""


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, but for trained_by.json, which holds them, and what vouches for it."""
    own = ("trained_by.json", ".digests")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in own)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class WorkDir:
    """A run's folder. `lock` makes it, `check` refuses the folder of another configuration."""

    def __init__(self, path: pathlib.Path | str):
        self.path = pathlib.Path(path)

    def config(self) -> ml_collections.ConfigDict:
        """The resolved configuration of the run.

        Raises:
          UserError: the folder holds none.
        """
        file = self.path / "config.json"
        if not file.is_file():
            raise UserError(f"work directory '{self.path}' has no config.json: expected the folder of a run")
        try:
            stored = files.read_json(file, "restore it") or {}
            return config_lib.from_dict(stored, self.path / _OWN_FILE)
        except (ValueError, UserError) as error:
            raise UserError(
                f"'{file}' can't be used ({error}): expected it as it was; restore it, or take another --workdir"
            ) from None

    def check(self, config: ml_collections.ConfigDict, trained_through: Sequence[str] = ()) -> None:
        """Raises UserError where the folder holds a run of another configuration, or damaged records; writes nothing.

        Args:
          config: what is asked for.
          trained_through: beginnings of fields that training depends on too until it has ended, though others judge by them.
        """
        files.check_folder(self.path, "--workdir")
        if re.search(r"\[.*\]|\\|[\ud800-\udfff]", str(self.path.resolve())):
            raise UserError(
                f"--workdir={self.path}: expected a path in UTF-8 and without [..] and \\, which stand for other letters"
                " where checkpoints are written; give another --workdir"
            )
        if not (self.path / "config.json").exists():
            for name in ("checkpoints", "results.json", "metrics.jsonl"):
                if (self.path / name).exists():
                    raise UserError(
                        f"work directory '{self.path}' holds {name} but no config.json, so that nobody knows of what: restore"
                        " it, or give another --workdir"
                    )
            return
        fixed = () if (self.path / "checkpoints" / "closure").exists() else tuple(trained_through)
        stored, asked = dict(config_lib.leaves(self.config())), dict(config_lib.leaves(config))
        for field in asked | stored:
            free = field.startswith(FREE_FIELDS) and not (fixed and field.startswith(fixed))
            if not free and stored.get(field) != asked.get(field):
                raise UserError(
                    f"work directory '{self.path}' holds a run with {field} = {stored.get(field)!r}, asked for"
                    f" {asked.get(field)!r}: give another --workdir, or delete that one"
                )
        for read in (self.provenance, self.wall_seconds, self.results, lambda: self.records("")):
            read()  # a damaged file is told now, not after hours

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run out of the folder, which it makes; process 0 holds it for all processes of this one.

        Raises:
          UserError: another run holds it, or the folder can't be written.
        """
        with contextlib.ExitStack() as stack:
            processes.on_main(lambda: self._hold(stack))
            yield

    def _hold(self, stack: contextlib.ExitStack) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock(self.path / ".lock"))
        except BlockingIOError:
            raise UserError(
                f"work directory '{self.path}' is in use by another process: wait or give another"
            ) from None
        except OSError as error:
            raise UserError(
                f"--workdir={self.path} can't be written ({error.strerror}): expected a folder of yours"
            ) from None

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Keeps runs out of the folder while it is read, by several processes it may be; nothing is written.

        Raises:
          UserError: a run is at work there.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.lock(self.path / ".lock", shared=True))
            except BlockingIOError:
                raise UserError(
                    f"a run is at work in '{self.path}', which changes what is read: wait until it ends, or stop it"
                ) from None
            except OSError:  # no run has been there
                pass
            yield

    def write_config(self, config: ml_collections.ConfigDict, provenance: dict[str, Any]) -> None:
        """Writes config.json and provenance.json, and keeps the experiment's file where pieces of the run stand in it."""
        own = config_lib.own_source(config)
        if own is not None and processes.is_main():
            with files.aside(self.path / _OWN_FILE) as partial:
                partial.write_text(own)
        write_json(self.path / "config.json", config_lib.to_dict(config))
        self.write_provenance(provenance)

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """Writes provenance.json alone."""
        write_json(self.path / "provenance.json", provenance)

    def provenance(self) -> dict[str, Any]:
        """The provenance that `write_config` was last given; empty for a new folder."""
        return files.read_json(self.path / "provenance.json", "restore it, or give another --workdir") or {}

    # --- wall time -------------------------------------------------------------------------------------------------

    def wall_seconds(self) -> dict[str, float]:
        """Seconds spent by phase, over all starts of the run."""
        return files.read_json(self.path / "wall_seconds.json", "delete it: times are then counted anew") or {}

    def write_wall_seconds(self, spent: dict[str, float]) -> None:
        """Replaces the record of `wall_seconds`."""
        write_json(self.path / "wall_seconds.json", spent)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the block's wall time to its phase, also when it ends in an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.wall_seconds()
            spent[phase] = spent.get(phase, 0.0) + time.perf_counter() - start
            self.write_wall_seconds(spent)

    # --- metrics ---------------------------------------------------------------------------------------------------

    def metrics(self, phase: str, start: int) -> MetricsLog:
        """A log of `phase` that continues after step `start`: later lines of an interrupted run are cut."""
        return MetricsLog(self.path, phase, start)

    def records(self, phase: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that belong to `phase`; all of them for None."""
        found = records_lib.read(self.path / "metrics.jsonl")
        return [record for _, record in found if phase in (None, record["phase"])]

    def results(self) -> dict[str, Any] | None:
        """results.json, or None."""
        return files.read_json(self.path / "results.json", "delete it: the same command judges the run again")

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes results.json, whole."""
        write_json(self.path / "results.json", results)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoints(self, phase: str) -> Checkpoints:
        """The checkpoints of a phase; those of other runs may be taken over, but for the closure that all phases made."""
        of_run = self.provenance().get("run", "") if phase == "closure" else ""
        return Checkpoints(self.path / "checkpoints" / phase, of_run)

    def has_begun(self, phase: str) -> bool:
        """Whether there is a checkpoint of the phase."""
        checkpoints = self.checkpoints(phase)
        try:
            return checkpoints.latest() is not None
        finally:
            checkpoints.close()

    def export_phase(self, phase: str, folder: pathlib.Path, facts: dict[str, Any]) -> None:
        """Copies the newest checkpoint and the records of a finished phase, and `facts` on this run, to the new `folder`."""
        checkpoints = self.checkpoints(phase)
        step = str(checkpoints.require())
        checkpoints.close()
        with files.aside(folder) as partial:
            shutil.copytree(self.path / "checkpoints" / phase / step, partial / "checkpoint" / step)
            write_json(partial / "records.json", self.records(phase))
            write_json(partial / "trained_by.json", facts | {"sha256": _digests(partial)})

    def fork(self, source: "WorkDir") -> None:
        """Takes the phases of another run, finished or not, as if this run had trained them; not the closure that they made."""
        for phase in sorted(source.path.glob("checkpoints/*")):
            if phase.name != "closure":
                with files.aside(self.path / "checkpoints" / phase.name) as partial:
                    partial.parent.mkdir(exist_ok=True)
                    shutil.copytree(phase, partial, ignore=shutil.ignore_patterns("*tmp*"))
        file = self.path / "metrics.jsonl"
        lines = [line for line, _ in records_lib.read(source.path / "metrics.jsonl")]
        files.vouch(file, *lines)
        with files.aside(file) as partial:
            partial.write_bytes(b"".join(line + b"\n" for line in lines))

    def import_phase(self, phase: str, folder: pathlib.Path) -> dict[str, Any] | None:
        """Takes a phase that `export_phase` left in `folder`, as if this run had trained it.

        Returns:
          the facts on the run that did; None, and nothing is taken, where the files are not those that were left.
        """
        try:
            facts = files.read_json(folder / "trained_by.json", "")
        except UserError:
            return None
        if facts is None or facts.get("sha256", _digests(folder)) != _digests(folder):  # release 0.1 left no digests
            return None
        log = self.metrics(phase, 0)
        for record in json.loads((folder / "records.json").read_text()):
            log.write(record["step"], {name: v for name, v in record.items() if name not in ("phase", "step")})
        log.close()
        with files.aside(self.path / "checkpoints" / phase) as partial:
            shutil.copytree(folder / "checkpoint", partial)
        return facts
