"""The files of finished runs and studies, read for a comparison."""

import pathlib
from collections.abc import Sequence
from typing import Any

from closure_jax import files
from closure_jax.errors import UserError
from closure_jax.pages.comparison import summaries
from closure_jax.pages.comparison.runs import Run, Study
from closure_jax.workdir import WorkDir

STUDY_KINDS = ("data_efficiency", "holding", "latent_size")
_REMEDY = "restore it, or evaluate again with --mode=evaluate"


def read(directories: Sequence[pathlib.Path]) -> tuple[list[Run], list[Study]]:
    """The runs and studies that folders hold, and summaries of runs; folders of earlier comparisons are passed over.

    Raises:
      UserError: no folder, one without a finished run or study, one given twice, or a file that can't be read.
    """
    runs, studies, seen = [], [], set()
    for path in directories:
        summary = path.suffix == ".json" and path.is_file()
        if not path.is_dir() and not summary:
            raise UserError(
                f"'{path}' is no folder: expected the work directory of a finished run, or its summary.json"
            )
        if path.resolve() in seen:
            raise UserError(f"'{path}' is given twice: expected each work directory once")
        seen.add(path.resolve())
        if (path / "compare.html").is_file() and not (path / "results.json").exists():
            continue  # runs/* may hold an earlier comparison
        if summary:
            runs.append(summaries.read(path))
        elif (path / "study.json").is_file():
            studies.append(_study(path))
        else:
            runs.append(of_folder(path))
    if not runs and not studies:
        raise UserError("no work directory given: expected one or more, as in ./launch.sh compare runs/*")
    return runs, studies


def summary(run: Run) -> dict[str, Any]:
    """What a run's summary.json holds, made anew from its folder where there is one."""
    if run.summary is not None:
        return dict(run.summary)
    work = WorkDir(run.path)
    return summaries.of(run, work.provenance(), work.records())


def of_folder(path: pathlib.Path) -> Run:
    """The finished run in a folder.

    Raises:
      UserError: it is none, or a file can't be read.
    """
    if not (path / "results.json").is_file():
        raise UserError(
            f"'{path}' has no results.json: expected the work directory of a finished run; start its command again to"
            " finish it"
        )
    results, config = _json(path / "results.json"), _json(path / "config.json")
    summaries.check_parts(path / "results.json", config, results)
    try:
        found = files.read_npz(path / "arrays.npz")
        arrays = {name: array for name, array in found.items() if name.startswith(summaries.ARRAYS)}
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
    about = {name: value for name, value in content.items() if name not in ("kind", "points", "preset")}
    return Study(path, kind, points, str(content.get("preset") or ""), about)


def _json(file: pathlib.Path) -> dict[str, Any]:
    content = files.read_json(file, _REMEDY)
    if content is None:
        raise UserError(f"'{file.parent}' has no {file.name}: expected the work directory of a finished run")
    return content
