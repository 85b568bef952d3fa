"""What the documents show runs as printed: the README's example and the notebook; the page of errors is that of the code."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from closure_jax.pages.comparison import reading
from closure_jax.pages.comparison.runs import gather

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "closure_in_your_solver.ipynb"


def run(code: str, folder: Path) -> str:
    """What a program prints in a new interpreter and an empty folder; its pictures go nowhere."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "Agg"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "false"  # as a reader runs it; it computes more than it compiles
    result = subprocess.run(
        [sys.executable, "-P", "-W", "error::DeprecationWarning", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_the_page_of_errors_is_made_from_the_code():
    page = runpy.run_path(str(REPOSITORY / "docs" / "errors.py"))["page"]()
    assert (REPOSITORY / "docs" / "errors.md").read_text() == page, "python docs/errors.py > docs/errors.md"


def test_summaries_that_are_kept_are_small_name_their_run_and_hold_what_the_documents_say():
    files = sorted(
        [*(REPOSITORY / "docs" / "results" / "runs").glob("*.json"), *(REPOSITORY / "docs" / "one_step").glob("*.json")]
    )
    runs, _ = reading.read(files)
    for file, run in zip(files, runs, strict=True):
        assert file.stat().st_size < 30_000 and "/" not in run.summary["provenance"]["revision"]
        for fact in (run.config["experiment"], run.config["preset"], str(run.config["seed"])):
            assert fact in file.stem
    of_page = [
        run for run in runs if run.path.parent.name == "one_step" or re.match("cs_(ga_online|physical)", run.label)
    ]
    models = {model.name: model for model in gather(of_page)}
    text = (REPOSITORY / "docs" / "one_step.md").read_text()
    said = re.search(
        r"`cs_ga` (\S+) and CRPS (\S+), `cs_ga_online` (\S+) and (\S+), `cs_physical` (\S+) and (\S+) in", text
    )
    for place, name in enumerate(("CS GA", "CS GA, online", "CS physical")):
        assert len(models[name].runs) == 3
        for offset, (measure, digits) in enumerate((("excess_error", 4), ("crps_ratio", 3))):
            assert said[2 * place + offset + 1] == f"{models[name].at(1, measure).mean:.{digits}f}"


def test_the_readme_s_example_runs_as_printed(tmp_path):
    text = (REPOSITORY / "README.md").read_text()
    (example,) = re.findall(r"## Use a trained closure\n+```python\n(.*?)```", text, flags=re.S)
    printed = run(example, tmp_path)
    deviation = float(printed.split(":")[1])
    assert (
        1e-4 < deviation < 1e-2
    )  # the exact closure's noise gives 4e-4 after half a time unit, held five times as much variance


def test_the_notebook_runs(tmp_path):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    printed = run("\n\n".join("".join(cell["source"]) for cell in cells), tmp_path)
    difference = float(re.search(r"differ by (\S+) of", printed)[1])
    assert 0 < difference < 0.01
