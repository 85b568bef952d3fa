"""What a run leaves: resolved configuration, metrics, checkpoints, results. The only room that says orbax.

A work directory holds config.json (nested), provenance.json (versions, device, revision, data checksum), metrics.jsonl,
tensorboard/, checkpoints/PHASE/STEP/ (Orbax), wall_seconds.json, arrays.npz, figures/, report.html and, written last,
results.json.
"""

import contextlib
import fcntl
import functools
import json
import logging
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from closure_jax import config as config_lib
from closure_jax import devices
from closure_jax.errors import UserError

# Fields that may differ when a work directory is used again: they change what is judged, not what was trained.
FREE_FIELDS = ("evaluation.", "sampler.", "training.log_every", "data.chunk")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Strict JSON, written aside and renamed; numbers that are not finite become null. Process 0 alone writes."""
    if not devices.is_main():
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_strict(content), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value) for value in content]
    if isinstance(content, np.ndarray | jax.Array):
        return _strict(np.asarray(content).tolist())
    if isinstance(content, np.generic):
        return _strict(content.item())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


class WorkDir:
    """A run's folder. `open` makes it or checks that it belongs to the same configuration."""

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
            return config_lib.from_dict(json.loads(file.read_text()))
        except (ValueError, UserError) as error:
            raise UserError(
                f"'{file}' is spoilt ({error}): expected it as it was; restore it, or take another --workdir"
            ) from None

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raises UserError where the folder holds a run of another configuration; writes nothing."""
        try:
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:
            raise UserError(
                f"--workdir={self.path} can't be used ({error.strerror}): expected a folder of yours"
            ) from None
        if is_file:
            raise UserError(f"--workdir={self.path} is a file: expected a folder")
        if not (self.path / "config.json").exists():
            return
        stored = dict(config_lib.fields(self.config()))
        for field, value in config_lib.fields(config):
            if not field.startswith(FREE_FIELDS) and stored[field] != value:
                raise UserError(
                    f"work directory '{self.path}' holds a run with {field} = {stored[field]!r}, asked for {value!r}:"
                    " give another --workdir, or delete that one"
                )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run out of the folder, which it makes; process 0 holds it for all processes of this one.

        Raises:
          UserError: another run holds it, or the folder can't be written.
        """
        with contextlib.ExitStack() as stack:
            devices.on_main(lambda: self._hold(stack))
            yield

    def _hold(self, stack: contextlib.ExitStack) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"--workdir={self.path} can't be written ({error.strerror}): expected a folder of yours"
            ) from None
        stack.enter_context(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"work directory '{self.path}' is in use by another process: wait or give another"
            ) from None

    def write_config(self, config: ml_collections.ConfigDict, provenance: dict[str, Any]) -> None:
        """Writes config.json and provenance.json."""
        write_json(self.path / "config.json", config_lib.to_dict(config))
        write_json(self.path / "provenance.json", provenance)

    def provenance(self) -> dict[str, Any]:
        """What `write_config` was last given; empty for a new folder."""
        file = self.path / "provenance.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    # --- wall time -------------------------------------------------------------------------------------------------

    def wall_seconds(self) -> dict[str, float]:
        """Seconds spent by phase, over all starts of the run."""
        file = self.path / "wall_seconds.json"
        return json.loads(file.read_text()) if file.is_file() else {}

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

    def metrics(self, phase: str, start: int) -> "MetricsLog":
        """A log of `phase` that continues after step `start`: later lines of an interrupted run are cut."""
        return MetricsLog(self.path, phase, start)

    def records(self, phase: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that belong to `phase`."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [record for record in map(_record, lines) if record is not None and record["phase"] == phase]

    def results(self) -> dict[str, Any] | None:
        """results.json, or None."""
        file = self.path / "results.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes results.json, whole."""
        write_json(self.path / "results.json", results)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoints(self, phase: str) -> "Checkpoints":
        """The checkpoints of a phase."""
        return Checkpoints(self.path / "checkpoints" / phase)

    def has_begun(self, phase: str) -> bool:
        """Whether there is a checkpoint of the phase."""
        checkpoints = self.checkpoints(phase)
        try:
            return checkpoints.latest() is not None
        finally:
            checkpoints.close()

    def export_phase(self, phase: str, folder: pathlib.Path, facts: dict[str, Any]) -> None:
        """Copies the newest checkpoint and the records of a finished phase to `folder`, aside and renamed."""
        checkpoints = self.checkpoints(phase)
        step = str(checkpoints.require())
        checkpoints.close()
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.path / "checkpoints" / phase / step, partial / "checkpoint" / step)
        write_json(partial / "records.json", self.records(phase))
        write_json(partial / "trained_by.json", facts)
        os.replace(partial, folder)

    def import_phase(self, phase: str, folder: pathlib.Path) -> None:
        """The inverse: the phase is then as if this run had trained it."""
        log = self.metrics(phase, 0)
        for record in json.loads((folder / "records.json").read_text()):
            log.write(record["step"], {name: v for name, v in record.items() if name not in ("phase", "step")})
        log.close()
        target = self.path / "checkpoints" / phase
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder / "checkpoint", partial)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


def _record(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for the cut last line of a killed run."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "phase" in record and "step" in record else None


class MetricsLog:
    """metrics.jsonl and TensorBoard files, one record each call; on process 0, others drop what they are given."""

    def __init__(self, path: pathlib.Path, phase: str, start: int):
        import tensorboardX  # slow to import, and only training needs it

        self.phase = phase
        if not devices.is_main():
            self._file = self._board = None
            return
        file = path / "metrics.jsonl"
        text = file.read_text() if file.is_file() else ""
        kept = "".join(line + "\n" for line in text.splitlines() if self._keep(_record(line), start))
        if kept != text:
            partial = file.with_name("metrics.jsonl.partial")
            partial.write_text(kept)
            os.replace(partial, file)
        self._file = open(file, "a", buffering=1)  # noqa: SIM115
        self._board = tensorboardX.SummaryWriter(str(path / "tensorboard" / phase), purge_step=start or None)

    def _keep(self, record: dict[str, Any] | None, start: int) -> bool:
        return record is not None and (record["phase"] != self.phase or record["step"] <= start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: phase, step, values."""
        if self._file is None:
            return
        self._file.write(json.dumps(_strict({"phase": self.phase, "step": step, **values}), allow_nan=False) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        if self._file is None:
            return
        self._file.close()
        self._board.close()


@functools.cache
def _drop_late_complaints() -> None:
    """Keeps quiet what says nothing new: after a failed read, the storage library's threads report to an event loop that has
    ended, now or long after, each with a traceback."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class Checkpoints:
    """Orbax checkpoints of one phase, saved in the background; the newest two are kept.

    Trees are whole and on the host, so process 0 alone saves, and each process restores by itself: Orbax is told of no
    other process.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._folder = path.absolute(), path.parent.parent
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            own = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=jax.process_count() == 1,
                enable_async_checkpointing=True,
                read_only=not devices.is_main(),
                multiprocessing_options=alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions(),
            )
            self._manager = ocp.CheckpointManager(self._path, options=options)
        return self._manager

    def latest(self) -> int | None:
        """Newest finished step, or None."""
        return self._open().latest_step() if self._path.is_dir() else None

    def require(self) -> int:
        """Newest finished step.

        Raises:
          UserError: there is none.
        """
        step = self.latest()
        if step is None:
            raise UserError(
                f"'{self._path.name}' has no checkpoint in '{self._folder}': expected a run that has ended; train it"
            )
        return step

    def save(self, step: int, tree: Any) -> None:
        """Copies the tree to the host and writes it in the background; on process 0, others do nothing."""
        if not devices.is_main():
            return
        self._path.mkdir(parents=True, exist_ok=True)
        self._open().save(step, args=ocp.args.StandardSave(jax.device_get(tree)))

    def restore(self, template: Any) -> Any:
        """The newest tree, as numpy arrays in the structure of `template`: independent of the devices that saved it.

        Raises:
          UserError: there is none, or its structure is another.
        """
        step = self.require()
        like = jax.device_get(template)
        _drop_late_complaints()
        try:
            tree = self._open().restore(step, args=ocp.args.StandardRestore(like))
            shapes = [(np.shape(a), np.shape(b)) for a, b in zip(*map(jax.tree.leaves, (tree, like)), strict=True)]
            different = [pair for pair in shapes if pair[0] != pair[1]]
            if different:
                raise ValueError(f"an array has shape {different[0][0]}, expected {different[0][1]}")
        except (ValueError, KeyError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"checkpoint {step} of '{self._path.name}' in '{self._folder}' can't be read ({reason}):"
                " delete that step's folder to go on from an earlier one"
            ) from None
        return tree

    def close(self) -> None:
        """Waits for writes in the background."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()
            self._manager = None
