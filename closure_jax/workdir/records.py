"""Measures of training as it runs: metrics.jsonl, a record a line, and TensorBoard."""

import json
import pathlib
from typing import Any

from closure_jax import files
from closure_jax.parallel import processes


def write_json(file: pathlib.Path, content: Any) -> None:
    """`files.write_json` on process 0; others do nothing."""
    if processes.is_main():
        files.write_json(file, content)


def parse(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for the cut last line of a killed run."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "phase" in record and "step" in record else None


class MetricsLog:
    """metrics.jsonl and TensorBoard files, one record each call; on process 0, others drop what they are given."""

    def __init__(self, folder: pathlib.Path, phase: str, start: int):
        import tensorboardX  # slow to import, and only training needs it

        self.phase = phase
        if not processes.is_main():
            self._file = self._board = None
            return
        file = folder / "metrics.jsonl"
        text = file.read_text() if file.is_file() else ""
        kept = "".join(line + "\n" for line in text.splitlines() if self._keep(parse(line), start))
        if kept != text:
            with files.aside(file) as partial:
                partial.write_text(kept)
        self._file = open(file, "a", buffering=1)  # noqa: SIM115
        self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard" / phase), purge_step=start or None)

    def _keep(self, record: dict[str, Any] | None, start: int) -> bool:
        return record is not None and (record["phase"] != self.phase or record["step"] <= start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: phase, step, values."""
        if self._file is None or self._board is None:
            return
        self._file.write(json.dumps(files.plain({"phase": self.phase, "step": step, **values}), allow_nan=False) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out and closes both files."""
        if self._file is None or self._board is None:
            return
        self._file.close()
        self._board.close()
