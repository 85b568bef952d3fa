"""Summaries: what a comparison needs of a finished run, in one small JSON file that can be kept where the run can't.

{"kind": "run", "name": by which a page and its folder know it,
 "config", "results", "provenance": as the run's own files, of places on its machine only the last part;
 "curves": {phase: {"step", "loss", "validation_loss"}}, some thirty points of each; "arrays": spectra, by name}

Of a rollout of more than 25 times the first eleven are kept, the middle one, and six of the others.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from closure_jax import files
from closure_jax.errors import UserError, check
from closure_jax.pages.comparison.runs import Model, Run

KIND = "run"
ARRAYS = ("energy_truth", "energy_model", "energy_no_closure", "noise_spectrum_")
"""How the arrays begin of which a comparison draws."""

_DIGITS = 7  # of a number: more than any seed leaves alike
_NEAR_ONE, _DECIMALS = 1e-2, 12
_POINTS = 30
_TIMES = 25  # of a rollout: all are kept of no more
_FIRST, _LATER = 11, 6  # times kept of more, from the start and after, beside the middle


@dataclasses.dataclass(frozen=True)
class _Curve:
    step: list[int]
    loss: list[float]
    validation_loss: list[float | None]


def of(run: Run, provenance: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of a run.

    Args:
      run: its files.
      provenance: of provenance.json; the path of the data is left out.
      records: of metrics.jsonl.
    """
    by_phase: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_phase.setdefault(str(record.get("phase")), []).append(record)
    arrays = {
        name: (
            array[-1:] if name.startswith("energy_") else array
        ).tolist()  # of a rollout's spectra only the last is shown
        for name, array in run.arrays.items()
        if name.startswith(ARRAYS)
    }
    summary = {
        "kind": KIND,
        "name": run.label,
        "config": _without_places(run.config),
        "results": _rounded(_with_fewer_times(files.plain(run.results))),
        "provenance": _without_places({name: value for name, value in provenance.items() if name != "data_path"}),
        "curves": {phase: _rounded(dataclasses.asdict(_thinned(found))) for phase, found in by_phase.items()},
        "arrays": _rounded(arrays),
    }
    return files.plain(summary)


_PLACES = ("path", "start", "experiment_file", "forked_from")


def _without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the last part alone of what may be a path."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found[name] = _without_places(value)
        else:
            found[name] = pathlib.PurePath(value).name if name in _PLACES and isinstance(value, str) else value
    return found


def _thinned(records: Sequence[Mapping[str, Any]]) -> _Curve:
    """About thirty of a phase's records, the first and the last among them."""
    places = np.unique(np.linspace(0, len(records) - 1, min(_POINTS, len(records))).round().astype(int))
    kept = [records[place] for place in places]
    return _Curve(
        [int(record["step"]) for record in kept],
        [record.get("loss", float("nan")) for record in kept],
        [record.get("validation_loss") for record in kept],
    )


def _with_fewer_times(results: dict[str, Any]) -> dict[str, Any]:
    """Results whose rollout, if it is long, has some of its times alone."""
    rollout = results.get("a_posteriori") or {}
    count = len(rollout.get("time") or [])
    if count <= _TIMES:
        return results
    later = np.linspace(_FIRST - 1, count - 1, _LATER + 1).round().astype(int)[1:]
    places = sorted({*range(_FIRST), count // 2, *later.tolist()})

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: part if name == "coupling" else kept(part) for name, part in value.items()}
        return [value[place] for place in places] if isinstance(value, list) and len(value) == count else value

    return results | {"a_posteriori": kept(rollout)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        near_one = abs(value - 1) < _NEAR_ONE  # then what is read is what it lacks to 1
        return round(value, _DECIMALS) if near_one else float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def text(summary: Mapping[str, Any]) -> str:
    """JSON with a line for each part, so that a change of one is seen as such."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(part, separators=(',', ':'), allow_nan=False)}"
        for name, part in summary.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(file: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a run into its folder, whole, vouched for."""
    content = text(summary).encode()
    files.vouch(file, content)
    with files.aside(file) as partial:
        partial.write_bytes(content)


def read(file: pathlib.Path) -> Run:
    """The run that a summary is of.

    Raises:
      UserError: the file is no summary, or can't be read.
    """
    content: dict[str, Any] = files.read_json(file, "restore it, or run its experiment again") or {}
    parts = [content.get(name) for name in ("config", "results", "arrays")]
    check(
        content.get("kind") == KIND and all(isinstance(part, dict) for part in parts),
        f"'{file}' is no summary of a run: expected the summary.json that a finished run leaves",
    )
    check_parts(file, content["config"], content["results"])
    try:
        return as_run(file, content)
    except (ValueError, TypeError):
        raise UserError(f"'{file}' has arrays that are none: expected the summary.json of a finished run") from None


_TABLES = (
    *(
        ("a_priori",),
        ("a_priori", "by_steps"),
        ("autoencoder",),
        ("latent_geometry",),
        ("settings",),
        ("wall_seconds",),
    ),
    *(("a_posteriori",), ("a_posteriori", "baselines"), ("a_posteriori", "coupling")),
)
"""Parts of results.json that are objects, where they are there."""


def check_parts(file: pathlib.Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Raises UserError where parts of a configuration and of results are of other types than a run writes."""

    def refuse(path: Sequence[str], value: Any, expected: str) -> None:
        raise UserError(
            f"'{file}' has {'.'.join(path)} of type {type(value).__name__}: expected {expected}, as a finished run leaves it"
        )

    for name, kind in (("seed", int), ("experiment", str), ("preset", str)):
        if not isinstance(config.get(name), kind | None):
            refuse((name,), config[name], "a whole number" if kind is int else "a text")
    for path in _TABLES:
        value: Any = results
        for part in path:
            value = value.get(part) if value else None
        if not isinstance(value, Mapping | None):
            refuse(path, value, "an object")
        for name, one in (value or {}).items() if path[-1] in ("by_steps", "baselines") else ():
            if not isinstance(one, Mapping | None):
                refuse((*path, name), one, "an object")
    _check_lists(file, results, ())


def _check_lists(file: pathlib.Path, value: Any, path: tuple[str, ...]) -> None:
    """Raises UserError where a list of results holds text."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name not in ("settings", "coupling"):
                _check_lists(file, one, (*path, str(name)))
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, str):
                raise UserError(
                    f"'{file}' has text in {'.'.join(path)}: expected numbers, as a finished run leaves them"
                )
            _check_lists(file, one, path)


def as_run(path: pathlib.Path, summary: Mapping[str, Any]) -> Run:
    """What a comparison knows of a run by its summary."""
    arrays = {name: np.array(values, float) for name, values in summary["arrays"].items()}
    return Run(path, summary["config"], summary["results"], arrays, summary)


def named(runs: Sequence[Run]) -> list[Run]:
    """Runs as their summaries know them, each with a name of its own: experiment, what more was done, preset, seed."""
    found: dict[str, Run] = {}
    for run in runs:
        assert run.summary is not None
        variant = Model("", (run,)).variant
        more = [] if variant in ("", "online") else [variant.replace(", ", "-")]  # an experiment's name says the latter
        facts = [run.config.get("experiment"), *more, run.config.get("preset"), run.config.get("seed")]
        base = re.sub(r"[^\w.+-]", "_", "-".join(map(str, facts))).lstrip(".")  # a summary may be anybody's
        kept, number = run.label if re.fullmatch(rf"{re.escape(base)}(-\d+)?", run.label) else base, 1
        name = kept
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found[name] = as_run(run.path, {**run.summary, "name": name})
    return list(found.values())
