"""report.html: what a run measured, on one page that opens without a network.

Reads what the run left in its work directory and computes no science of its own. Whatever is missing (null) is shown as
missing.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from closure_jax import files
from closure_jax.pages import page
from closure_jax.pages.run import sections
from closure_jax.pages.run.sections import Run
from closure_jax.workdir import records


def write_report(
    directory: pathlib.Path, results: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes report.html and figures/ from config.json, metrics.jsonl, arrays.npz and the results of a run.

    Values in the results may be None or absent. A figure whose arrays are absent is left out, and the page says so.

    Args:
      directory: the work directory of a run.
      results, config: what results.json and config.json will hold, for a run that writes these files last; by default they are
        read.
    Returns:
      The path of report.html.
    Raises:
      FileNotFoundError: one of the files is missing.
      UserError: a file cannot be read; the message names the file, and the line of metrics.jsonl.
    """
    run = _read(directory, results, config)
    run.folder.mkdir(exist_ok=True)
    facts = {key: run.get(key) for key in ("preset", "revision", "device", "seed")}
    path = directory / "report.html"
    files.write(path, page.render(run.get("experiment"), facts, sections.of_run(run)).encode())
    return path


def _read(directory: pathlib.Path, results: Mapping[str, Any] | None, config: Mapping[str, Any] | None) -> Run:
    def load(name: str) -> Any:
        content = files.read_json(directory / name, "restore it")
        if content is None:
            raise FileNotFoundError(directory / name)
        return content

    known = load("results.json") if results is None else results
    arrays = files.read_npz(directory / "arrays.npz")
    phases = _read_metrics(directory / "metrics.jsonl")
    stored = load("config.json") if config is None else config
    return Run(directory / "figures", stored, phases, arrays, known)


def _read_metrics(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Records by phase. Of a step repeated by a resumed run the last record counts; there are none where nothing was trained."""
    phases: dict[str, dict[int, dict[str, Any]]] = {}
    for _, record in records.read(path):
        phases.setdefault(record["phase"], {})[record["step"]] = record
    return {phase: [found[step] for step in sorted(found)] for phase, found in phases.items()}
