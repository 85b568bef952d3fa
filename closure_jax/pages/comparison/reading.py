"""The files of finished runs and studies, read for a comparison."""

import pathlib
from collections.abc import Sequence
from typing import Any

from closure_jax import files
from closure_jax.errors import UserError
from closure_jax.pages.comparison.runs import Run, Study

STUDY_KINDS = ("data_efficiency", "holding")
_REMEDY = "restore it, or evaluate again with --mode=evaluate"


def read(directories: Sequence[pathlib.Path]) -> tuple[list[Run], list[Study]]:
    """The runs and studies that the folders hold; folders of earlier comparisons are passed over.

    Raises:
      UserError: no folder, one without a finished run or study, one given twice, or a file that can't be read.
    """
    runs, studies, seen = [], [], set()
    for path in directories:
        if not path.is_dir():
            raise UserError(f"'{path}' is no folder: expected the work directory of a finished run")
        if path.resolve() in seen:
            raise UserError(f"'{path}' is given twice: expected each work directory once")
        seen.add(path.resolve())
        if (path / "compare.html").is_file() and not (path / "results.json").exists():
            continue  # runs/* may hold an earlier comparison
        if (path / "study.json").is_file():
            studies.append(_study(path))
        else:
            runs.append(_run(path))
    if not runs and not studies:
        raise UserError("no work directory given: expected one or more, as in ./launch.sh compare runs/*")
    return runs, studies


def _run(path: pathlib.Path) -> Run:
    if not (path / "results.json").is_file():
        raise UserError(
            f"'{path}' has no results.json: expected the work directory of a finished run; start its command again to"
            " finish it"
        )
    results, config = _json(path / "results.json"), _json(path / "config.json")
    try:
        found = files.read_npz(path / "arrays.npz")
        arrays = {name: array for name, array in found.items() if name.startswith(("energy_", "noise_spectrum_"))}
    except FileNotFoundError:
        arrays = {}
    except (ValueError, OSError) as error:
        raise UserError(
            f"'{path / 'arrays.npz'}' can't be read ({error}): expected it as a run leaves it; {_REMEDY}"
        ) from None
    return Run(path, config, results, arrays)


def _study(path: pathlib.Path) -> Study:
    content = _json(path / "study.json")
    kind, points = content.get("kind"), content.get("points")
    if kind not in STUDY_KINDS:
        raise UserError(f"'{path / 'study.json'}' is a study of kind {kind!r}: expected {', '.join(STUDY_KINDS)}")
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise UserError(f"'{path / 'study.json'}' has no list of points: expected a finished study; run it again")
    return Study(path, kind, points, str(content.get("preset") or ""))


def _json(file: pathlib.Path) -> dict[str, Any]:
    content = files.read_json(file, _REMEDY)
    if content is None:
        raise UserError(f"'{file.parent}' has no {file.name}: expected the work directory of a finished run")
    return content
