"""The examples of docs/extend.md run as a stranger's forks: in a copy of the tree whose package is read-only, each step in a new
interpreter: --dry_run, the whole job at `tiny`, --mode=evaluate, and loading the closure."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
SECTIONS = re.split(r"^## ", (REPOSITORY / "docs" / "extend.md").read_text(), flags=re.M)[1:]
EXAMPLES = {
    section.splitlines()[0]: block
    for section in SECTIONS
    for block in re.findall(r"```python\n(.*?)```", section, flags=re.S)
}
NAMES = {
    "A network with a field of its own": "fork_network",
    "A transport with a loss and a sampler of its own": "fork_transport",
    "A path that is not straight": "fork_path",
    "A latent": "fork_latent",
    "An autoencoder": "fork_autoencoder",
    "A flow with linear drag": "fork_flow",
    "A coupling with a carry": "fork_coupling",
    "A problem whose law nobody knows": "fork_problem",
    "A program of training": "fork_program",
    "A measure": "fork_measure",
}
SHORT = ["autoencoder.steps=4", "transport.steps=4", "training.log_every=2", "training.checkpoint_every=4"]
SHORT += ["evaluation.steps=1", "evaluation.samples=3", "evaluation.rollout_states=1", "evaluation.rollout_members=2"]

DRAWN = ("fork_problem", "fork_measure")
"""Forks whose report is drawn: those that bring something that it shows."""

TRAIN = """
import json, sys
from closure_jax.commands import main
from closure_jax.evaluation import a_priori
from closure_jax.pages.run import report
folder, drawn, options, *names = (json.loads(text) for text in sys.argv[1:])
draw, ended = report.write_report, {}
a_priori._milliseconds = lambda *arguments: 1.0  # to time a call is to compile it, and nothing is said of times
for name in names:
    report.write_report = draw if name in drawn else lambda *arguments: None
    arguments = [f"experiments/{name}.py:tiny", *options]
    ended[name] = [main([*arguments, "--dry_run"]), main(arguments)]
print("ended:", json.dumps(ended))
"""
"""One interpreter prints what each run would cost, and runs."""

JUDGE = """
import json, sys, jax, jax.numpy as jnp, numpy as np
import closure_jax as cj
from closure_jax.commands import main
from closure_jax.evaluation import a_posteriori, a_priori
from closure_jax.pages.run import report
folder, drawn, options, *names = (json.loads(text) for text in sys.argv[1:])
draw, roll, ended = report.write_report, a_posteriori.evaluate, {}
a_priori._milliseconds = lambda *arguments: 1.0  # to time a call is to compile it, and nothing is said of times
for name in names:
    report.write_report = draw if name in drawn else lambda *arguments: None
    again = name in (*drawn, "fork_coupling")  # the others have rolled out once
    a_posteriori.evaluate = roll if again else lambda *arguments, **options: ({"coupling": {}}, {})
    work = f"{folder}/{name}-tiny"
    closure = cj.load(work)
    sample = closure(jax.random.key(0), jnp.zeros((2, 32, 32)))
    fits = sample.shape == (2, 32, 32) and bool(np.isfinite(sample).all())
    judged = main([f"experiments/{name}.py:tiny", "--mode=evaluate", "--config.sampler.steps=3"])
    ended[name] = [fits, judged, cj.StochasticClosure.load(work).steps]
print("ended:", json.dumps(ended))
"""
"""Another loads each closure, and judges it again."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of package and experiments; nothing of the package can be written."""
    folder = tmp_path_factory.mktemp("fork")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("closure_jax", "experiments"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for path in (folder / "closure_jax").rglob("*"):
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    yield folder
    for path in (folder / "closure_jax").rglob("*"):
        path.chmod(stat.S_IREAD | stat.S_IWRITE | stat.S_IEXEC)


def interpreter(tree: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A new Python that sees the copy, with its data in a folder of the tests."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "CLOSURE_JAX_DATA": str(tree / "data"),
        "CLOSURE_JAX_HOME": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-P", "-c", code, *(json.dumps(one) for one in arguments)]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def measured(work: Path) -> tuple[dict, dict]:
    """results.json, and its measures at one sampler step, times apart."""
    results = json.loads((work / "results.json").read_text())
    found = results["a_priori"]["by_steps"]["1"]
    return results, {name: value for name, value in found.items() if "milliseconds" not in name}


@pytest.fixture(scope="module")
def forks(tree) -> dict[str, tuple]:
    """By name of the fork: how its runs ended, its first results and measures, and how loading and judging ended."""
    options = [f"--config.{text}" for text in SHORT]
    for title, name in NAMES.items():
        (tree / "experiments" / f"{name}.py").write_text(EXAMPLES[title])
    trained = interpreter(tree, TRAIN, "runs", DRAWN, options, *NAMES.values())
    assert trained.returncode == 0 and "Warning" not in trained.stderr, trained.stderr[-3000:]
    first = {name: measured(tree / "runs" / f"{name}-tiny") for name in NAMES.values()}
    for name in NAMES.values():  # a run keeps what it needs: its experiment's file may be another by now
        (tree / "experiments" / f"{name}.py").write_text(EXAMPLES["A measure"])
    judged = interpreter(tree, JUDGE, "runs", DRAWN, options, *NAMES.values())
    assert judged.returncode == 0 and "Warning" not in judged.stderr, judged.stderr[-3000:]
    ended = [json.loads(result.stdout.split("ended: ")[1]) for result in (trained, judged)]
    return {name: (ended[0][name], *first[name], ended[1][name]) for name in NAMES.values()}


def test_there_are_ten_examples_each_a_whole_experiment():
    assert list(EXAMPLES) == list(NAMES)
    assert all("def get_config" in text for text in EXAMPLES.values())


@pytest.mark.parametrize("name", NAMES.values())
def test_a_fork_lasts(tree, forks, name):
    ran, results, found, judged = forks[name]
    assert ran == [0, 0] and judged == [True, 0, 3]
    work = tree / "runs" / f"{name}-tiny"
    assert "experiment:" in (work / "config.json").read_text()
    assert measured(work)[1] == found
    if name == "fork_problem":
        assert results["a_priori"].get("floor") is None and "cubic" in results["a_posteriori"]["baselines"]
        assert (work / "report.html").is_file()
    if name == "fork_measure":
        assert found["mean_square_ratio"] > 0 and "mean square ratio" in (work / "report.html").read_text()


def test_what_is_missing_is_said_in_one_line(tree, forks):
    work = tree / "runs" / "fork_network-tiny"
    (work / "experiment.py").unlink()
    loaded = interpreter(tree, "import sys, json, closure_jax as cj; cj.load(json.loads(sys.argv[1]))", str(work))
    (line,) = [line for line in loaded.stderr.splitlines() if line.startswith("closure_jax.errors.UserError")]
    assert "network.kind" in line and "experiment.py" in line
