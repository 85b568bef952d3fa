"""Measures of training as it runs: metrics.jsonl, a record a line, and TensorBoard."""

import json
import pathlib
import time
from typing import Any

from closure_jax import files
from closure_jax.errors import UserError
from closure_jax.parallel import processes
from closure_jax.workdir.checkpoints import drop_late_complaints


def write_json(file: pathlib.Path, content: Any) -> None:
    """`files.write_json`, vouched for, on process 0; others do nothing."""
    if processes.is_main():
        files.write_json(file, content, vouches=True)


def read(file: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines of a metrics.jsonl, without their ends, and their records; none where there is no file.

    A last line without its end, as a killed run leaves it, is dropped.

    Raises:
      UserError: a line is not as it was written.
    """
    *lines, _ = (file.read_bytes() if file.is_file() else b"").split(b"\n")
    found = []
    for number, (line, whole) in enumerate(zip(lines, files.vouched(file, *lines), strict=True), start=1):
        try:
            record = json.loads(line) if whole else None
        except (ValueError, RecursionError):  # no UTF-8, or no JSON
            record = None
        if not (isinstance(record, dict) and {"phase", "step"} <= record.keys()):
            raise UserError(
                f"'{file}', line {number} is damaged: expected it as it was written; restore it, or delete that line, which"
                " its curve then lacks"
            )
        found.append((line, record))
    return found


class MetricsLog:
    """metrics.jsonl and TensorBoard files, one record each call; on process 0, others drop what they are given."""

    def __init__(self, folder: pathlib.Path, phase: str, start: int):
        self.phase = phase
        if not processes.is_main():
            self._file = self._board = None
            return
        self._path = file = folder / "metrics.jsonl"
        if file.is_file():
            kept = [line for line, record in read(file) if record["phase"] != phase or record["step"] <= start]
            with files.aside(file) as partial:
                partial.write_bytes(b"".join(line + b"\n" for line in kept))
        drop_late_complaints()
        self._file = open(file, "a", buffering=1)  # noqa: SIM115
        self._board = _Board(folder / "tensorboard" / phase, start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: phase, step, values."""
        if self._file is None or self._board is None:
            return
        line = json.dumps(files.plain({"phase": self.phase, "step": step, **values}), allow_nan=False)
        files.vouch(self._path, line.encode())
        with files.named(self._path):
            self._file.write(line + "\n")
        self._board.write(step, values)

    def close(self) -> None:
        """Writes out and closes both files."""
        if self._file is None or self._board is None:
            return
        with files.named(self._path):
            self._file.close()
        self._board.close()


_FLUSHED_EVERY = 30.0  # seconds


class _Board:
    """A file for TensorBoard, by tensorboardX's writer of records; its own SummaryWriter writes in a thread, in which a disk that
    is full ends nothing but that thread."""

    def __init__(self, folder: pathlib.Path, start: int):
        from tensorboardX import event_file_writer, proto  # slow to import, and only training needs it

        self._proto: Any = proto
        self._file, self._flushed = folder / "events*", time.monotonic()  # whose name tensorboardX chooses
        folder.mkdir(parents=True, exist_ok=True)
        with files.named(self._file):
            self._events = event_file_writer.EventsWriter(str(folder / "events"))
            if start:  # what a run wrote that was killed behind this step is hidden
                log = proto.event_pb2.SessionLog
                self._event(step=start, file_version="brain.Event:2")
                self._event(step=start, session_log=log(status=log.START))

    def _event(self, **values: Any) -> None:
        self._events.write_event(self._proto.event_pb2.Event(wall_time=time.time(), **values))

    def write(self, step: int, values: dict[str, float]) -> None:
        """A point of each curve."""
        summary = self._proto.summary_pb2.Summary
        with files.named(self._file):
            points = [summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
            self._event(step=step, summary=summary(value=points))
            if time.monotonic() - self._flushed > _FLUSHED_EVERY:
                self._flushed = time.monotonic()
                self._events.flush()

    def close(self) -> None:
        """Writes out what is left."""
        with files.named(self._file):
            self._events.close()
