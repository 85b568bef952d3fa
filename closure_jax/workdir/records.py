"""metrics.jsonl and TensorBoard: what training says while it runs, a record a line."""

import json
import os
import pathlib
from typing import Any

from closure_jax import devices
from closure_jax.workdir.strict import strict


def parse(line: str) -> dict[str, Any] | None:
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
        kept = "".join(line + "\n" for line in text.splitlines() if self._keep(parse(line), start))
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
        self._file.write(json.dumps(strict({"phase": self.phase, "step": step, **values}), allow_nan=False) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        if self._file is None:
            return
        self._file.close()
        self._board.close()
