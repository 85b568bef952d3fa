"""The whole job at `tiny`, through launch.sh, as a user runs it: twice, killed, judged alone, and on four devices."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REPOSITORY, refusal
from PIL import Image

import closure_jax
from closure_jax import pretrained
from closure_jax.commands import study, transfer
from closure_jax.evaluation import measures
from closure_jax.pages.comparison import reading
from closure_jax.workdir import write_json

pytestmark = pytest.mark.slow

EXPERIMENT = REPOSITORY / "experiments" / "fm_ga.py"
A_PRIORI = {
    "relative_error",
    "over_floor",
    "excess_error",
    "spread_ratio",
    "noise_spectrum_error",
    "crps_ratio",
    "milliseconds_per_sample",
}


def command(workdir: Path, *options: str) -> list[str]:
    return ["bash", str(REPOSITORY / "launch.sh"), f"{EXPERIMENT}:tiny", f"--workdir={workdir}", *options]


def environment(data: Path, **more: str) -> dict[str, str]:
    """As a user's, but that the runs share what XLA compiled (see conftest.py), which is most of a tiny run."""
    return (
        os.environ
        | {"CLOSURE_JAX_PYTHON": sys.executable, "CLOSURE_JAX_DATA": str(data), "JAX_PLATFORMS": "cpu"}
        | more
    )


def launch(workdir: Path, data: Path, *options: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *options),
        env=environment(data, **more),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


FEW = "--config.evaluation.steps=1,2"
"""What is judged where nothing is said of 50 sampler steps, which take most of an evaluation."""


def losses(workdir: Path, phase: str | None = None) -> list[tuple[str, int, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(r["phase"], r["step"], r["loss"]) for r in lines if phase in (None, r["phase"])]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data) -> tuple[Path, subprocess.CompletedProcess]:
    workdir = tmp_path_factory.mktemp("first") / "runs" / "fm_ga-tiny"
    return workdir, launch(workdir, data)


def test_the_job_ends_well_and_quietly(finished):
    workdir, result = finished
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no warning, and no progress bar where the output is not a terminal
    first = result.stdout.splitlines()[0]
    assert "1 cpu device" in first and "preset tiny" in first and str(workdir) in first


def test_results_have_every_key(finished):
    workdir, _ = finished
    text = (workdir / "results.json").read_text()
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert {"experiment", "preset", "seed", "revision", "device", "wall_seconds"} <= results.keys()
    assert results["experiment"] == "fm_ga" and results["preset"] == "tiny"
    assert {"data", "autoencoder_vorticity", "autoencoder_closure", "transport", "a_priori", "a_posteriori"} <= results[
        "wall_seconds"
    ].keys()
    for field in ("vorticity", "closure"):
        assert results["autoencoder"][field]["relative_error"] > 0
        assert results["autoencoder"][field]["regulariser_weight"] > 0.01
    assert results["a_priori"]["floor"] > 0
    assert results["a_priori"]["by_steps"].keys() == {"1", "2", "10"}
    for found in results["a_priori"]["by_steps"].values():
        assert found.keys() >= A_PRIORI
    geometry = results["latent_geometry"]
    assert geometry["states"] == 24 and geometry["conditional_smoothness"] > 0 and geometry["topology"]
    for field in ("vorticity", "closure"):
        assert 0.5 < geometry[field]["trustworthiness"] <= 1 and geometry[field]["condition_number"] >= 1
    rollout = results["a_posteriori"]
    lists = ("time", "relative_error", "relative_error_no_closure", "spread", "spread_truth", "crps")
    assert rollout["time"] == [0.0, 1.0] and all(len(rollout[name]) == 2 for name in lists)
    assert rollout["relative_error"][0] == 0 and rollout["finite_fraction"] == 1
    assert rollout["seconds_per_time_unit"] > 0
    assert rollout["hold"] == 5 and rollout["coupling"] == {"kind": "extrapolated", "period": 5, "mean": "antithetic"}
    assert rollout["relative_error_floor"][0] == 0 < rollout["relative_error_floor"][1]
    assert rollout["spread_over_error"][0] is None and rollout["spread_over_error"][1] > 0
    assert all(
        rollout["coverage"][level][0] is None and 0 <= rollout["coverage"][level][1] <= 1 for level in ("50", "80")
    )
    assert rollout["coverage"]["90"] == [None, None]  # of four members
    assert rollout["baselines"].keys() == {"none", "exact_mean"}


def test_records_have_a_line_each_log_every_steps(finished):
    workdir, _ = finished
    for phase, total in (("autoencoder_vorticity", 40), ("autoencoder_closure", 40), ("transport", 60)):
        found = losses(workdir, phase)
        assert [step for _, step, _ in found] == list(range(5, total + 1, 5))
        assert found[-1][2] < found[0][2]
    assert list((workdir / "tensorboard" / "transport").iterdir())


def test_a_study_holds_a_finished_closure_by_each_rule(finished, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLOSURE_JAX_DATA", str(data))
    folder = tmp_path / "study"
    options = [
        f"--closures={finished[0]}",
        "--rules=held,scaled",
        "--periods=5,20",
        "--states=1",
        "--members=3",
        "--time=1",
        f"--output={folder}",
    ]
    assert study.main(["holding", *options]) == 0
    assert "8 ensembles, 0 done before" in capsys.readouterr().out
    stored = json.loads((folder / "study.json").read_text())
    spread = {(point["closure"], point["rule"], point["period"]): point["spread"][-1] for point in stored["points"]}
    for period in (5, 20):  # the same noise, scaled or not
        assert spread["oracle", "held", period] / spread["oracle", "scaled", period] == pytest.approx(
            period**0.5, rel=0.05
        )
        assert spread["fm_ga", "held", period] > 1.5 * spread["fm_ga", "scaled", period] > 0
    assert (folder / "compare" / "figures" / "holding.png").is_file()
    stored["points"].pop()  # as if it had been stopped
    write_json(folder / "study.json", stored)
    assert study.main(["holding", *options]) == 0
    assert "8 ensembles, 7 done before" in capsys.readouterr().out
    assert {tuple(point["spread"]) for point in json.loads((folder / "study.json").read_text())["points"]} >= {
        tuple(point["spread"]) for point in stored["points"]
    }
    assert study.main(["holding", *(option.replace("--time=1", "--time=2") for option in options)]) == 2
    assert "of other settings" in capsys.readouterr().err
    assert stored["measures"] == measures.VERSION
    write_json(folder / "study.json", stored | {"measures": 1})
    assert study.main(["holding", *options]) == 2
    assert "holds measures of version 1" in capsys.readouterr().err


def test_report_opens_offline(finished):
    workdir, _ = finished

    class Sources(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("src", "href")]

    parser = Sources()
    parser.feed((workdir / "report.html").read_text())
    assert len(parser.found) >= 8
    assert all(source.startswith(("data:", "#")) for source in parser.found)
    assert len(list((workdir / "figures").iterdir())) >= 8


def test_a_summary_has_what_a_comparison_needs_and_no_place_of_this_machine(finished):
    workdir, _ = finished
    (whole,), (short,) = (reading.read([path])[0] for path in (workdir, workdir / "summary.json"))
    assert (workdir / "summary.json").stat().st_size < 30_000
    assert short.config == whole.config and short.results.keys() == whole.results.keys()
    assert short.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        kept = array[-1:] if name.startswith("energy_") else array
        np.testing.assert_allclose(short.arrays[name], kept, rtol=1e-6)
    text = (workdir / "summary.json").read_text()
    assert str(workdir.parent) not in text and json.loads(text)["curves"]["transport"]["step"][-1] == 60


def test_a_second_start_does_nothing_twice_and_says_so(finished, data):
    workdir, _ = finished
    before = {name: (workdir / name).read_bytes() for name in ("metrics.jsonl", "results.json", "report.html")}
    result = launch(workdir, data)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("already") == 5  # data, two autoencoders, transport, evaluation
    assert before == {name: (workdir / name).read_bytes() for name in before}


def test_evaluate_takes_its_configuration_from_the_work_directory(finished, data):
    workdir, _ = finished
    arguments = ["bash", str(REPOSITORY / "launch.sh"), "--mode=evaluate", f"--workdir={workdir}", FEW]
    result = subprocess.run(arguments, env=environment(data), capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads((workdir / "results.json").read_text())["a_priori"]["by_steps"].keys() == {"1", "2"}
    assert "step" not in result.stdout.replace("sampler steps", "")


def test_the_trained_closure_is_pure_jittable_and_differentiable(finished):
    closure = closure_jax.load(finished[0])
    vorticity = jax.random.normal(jax.random.key(0), (3, 32, 32)) * 0.2
    key = jax.random.key(1)
    sample = closure(key, vorticity)
    assert sample.shape == vorticity.shape
    np.testing.assert_allclose(jax.jit(lambda c, k, w: c(k, w))(closure, key, vorticity), sample, rtol=2e-4, atol=1e-5)
    assert np.abs(closure(jax.random.key(2), vorticity) - sample).max() > 0
    assert not np.allclose(closure(key, vorticity, steps=1), sample)
    gradient = jax.grad(lambda w: jnp.sum(closure(key, w, steps=2) ** 2))(vorticity)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    # a field's draw depends on its place and key, not on its company
    np.testing.assert_allclose(closure(key, vorticity[:2]), sample[:2], rtol=2e-4, atol=1e-5)


def test_a_run_that_is_killed_and_then_asked_to_end_continues_and_equals_an_unbroken_one(finished, data, tmp_path):
    workdir, said = tmp_path / "killed", tmp_path / "said"
    shutil.rmtree(data / "autoencoders")  # what the first run left is not to be taken

    def start() -> subprocess.Popen:
        more = environment(data, PYTHONUNBUFFERED="1")
        return subprocess.Popen(
            command(workdir, "--config.evaluation.steps=1"), env=more, stdout=said.open("w"), stderr=subprocess.STDOUT
        )

    kill, ask = (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)
    for before, phase, (number, status) in (
        (None, "autoencoder_closure", kill),
        ("autoencoder_closure", "transport", ask),
    ):
        process, deadline = start(), time.monotonic() + 300
        while not (workdir / "checkpoints" / phase / "20").is_dir():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait() == status
        assert before is None or f"{before}: continues at step" in said.read_text()
        assert not (workdir / "results.json").exists()
    assert "stopped; the same command continues" in said.read_text()
    assert start().wait() == 0
    assert "transport: continues at step" in said.read_text()
    assert losses(workdir) == losses(finished[0])


HANDFUL = ("fm_ga", "dm_physical", "si_empirical_joint")
"""Two phases, with a term of the latent and without an autoencoder, and one."""


def test_a_closure_of_the_papers_flow_may_be_asked_about_another_one(finished):
    (folder, _), trained = finished, pretrained.opened(finished[0])[1]
    changes = ["flow.viscosity=2e-3", "problem.noise_sigma=1e-4", "evaluation.states=2"]
    other = transfer._changed(folder, trained, changes)
    assert (other.problem.flow.viscosity, other.problem.noise_sigma) == (2e-3, 1e-4)
    assert transfer._name(changes, transfer._of_flow(other.config)) == "noise_sigma=1e-4,viscosity=2e-3"
    for change, said in (
        (["network.width=3"], "expected a change of the flow, such as --config.flow."),
        ([*changes, "network.width=3"], "the closure stays as it is"),
    ):
        assert said in refusal(transfer._changed, folder, trained, change)


@pytest.fixture(scope="module")
def swept(finished, data):
    """The folder of a sweep that finds its first run done, what it said, and how to start it."""
    folder = finished[0].parent.parent

    def start():
        sweep = ["sweep", "--preset=tiny", f"--only={','.join(HANDFUL)}", FEW]
        arguments = ["bash", str(REPOSITORY / "launch.sh"), *sweep]
        return subprocess.run(
            arguments, cwd=folder, env=environment(data), capture_output=True, text=True, timeout=1200
        )

    return folder, start(), start


def test_a_sweep_runs_what_it_is_asked_to_and_compares(swept):
    folder, result, _ = swept
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for name in HANDFUL:
        assert json.loads((folder / "runs" / f"{name}-tiny" / "results.json").read_text())["experiment"] == name
    output = folder / "runs" / "compare-tiny"
    with open(output / "table.csv", newline="") as file:
        commands = [row for row in csv.DictReader(file)]
    assert len(commands) >= len(HANDFUL)
    table = (output / "table.md").read_text()
    assert all(f"./launch.sh experiments/{name}.py:tiny" in table for name in HANDFUL)
    pictures = list((output / "figures").glob("*.png"))
    assert len(pictures) >= 3
    assert all(np.asarray(Image.open(picture).convert("L")).std() > 5 for picture in pictures)


def test_a_sweep_does_nothing_twice(swept):
    folder, _, start = swept
    results = {file: file.read_bytes() for file in folder.glob("runs/*/results.json")}
    again = start()
    assert again.returncode == 0 and again.stdout.count("already done") == len(HANDFUL)
    assert {file: file.read_bytes() for file in folder.glob("runs/*/results.json")} == results
