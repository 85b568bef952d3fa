"""Sweeps, studies and the demo: plans, refusals, and what ships; a whole sweep runs in test_end_to_end.py."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from closure_jax import config as config_lib
from closure_jax import pretrained
from closure_jax.commands import demo, runs, study, sweep
from closure_jax.config import build
from closure_jax.errors import UserError
from closure_jax.physics import spectral

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def refusal(command, capsys, *arguments: str) -> str:
    """The one line that a command refuses its arguments with."""
    assert command(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("closure_jax: error: ") and said.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    return said


# --- plans -----------------------------------------------------------------------------------------------------------


def test_patterns_choose_experiments():
    assert len(config_lib.experiments()) == 20
    assert [file.stem for file in config_lib.experiments(["fm_*"])] == [
        "fm_ga",
        "fm_joint",
        "fm_mp",
        "fm_physical",
        "fm_recon",
    ]
    assert [file.stem for file in config_lib.experiments(["dm_ga", "fm_m*"])] == ["dm_ga", "fm_mp"]


def test_the_matrix_has_a_folder_for_each_seed_and_seeds_share_the_data():
    planned = sweep.matrix(config_lib.experiments(["fm_ga"]), "tiny", 3, Path("runs"), ["transport.steps=7"])
    assert [run.folder.name for run in planned] == ["fm_ga-tiny", "fm_ga-tiny-seed1", "fm_ga-tiny-seed2"]
    resolved = [run.config() for run in planned]
    assert [c.seed for c in resolved] == [0, 1, 2]
    assert {c.data.seed for c in resolved} == {0} and {c.transport.steps for c in resolved} == {7}


def test_mistakes_are_refused_in_one_line(capsys):
    assert "'fm_xx' matches no experiment" in refusal(sweep.main, capsys, "--preset=tiny", "--only=fm_xx")
    assert "--preset=huge: expected paper, small, tiny" in refusal(sweep.main, capsys, "--preset=huge")
    assert "--seeds=0" in refusal(sweep.main, capsys, "--preset=tiny", "--seeds=0")
    assert "--seeds=HOW_MANY" in refusal(sweep.main, capsys, "--preset=tiny", "--config.seed=3")
    assert "no such field" in refusal(sweep.main, capsys, "--preset=tiny", "--config.transprot.steps=3")
    assert "study 'data' is unknown" in refusal(study.main, capsys, "data")
    assert "'1/0' is not a number" in refusal(study.main, capsys, "data_efficiency:tiny", "--fractions=1/0")
    assert "2 is not above 0 and up to 1" in refusal(study.main, capsys, "data_efficiency:tiny", "--fractions=2")
    assert "'physical': expected some of" in refusal(study.main, capsys, "data_efficiency:tiny", "--latents=physical")
    assert "--members=1" in refusal(demo.main, capsys, "--members=1")
    assert "has no config.json" in refusal(demo.main, capsys, "--pack=nothing")


class Planned(runs.Run):
    """A run that is done as soon as it was started, unless it is named after a failure."""

    started: list[str] = []

    def check(self) -> None:
        if self.folder.name == "impossible":
            raise UserError("impossible")

    def is_done(self) -> bool:
        return self.folder.name.startswith("done")

    def start(self) -> int:
        self.started.append(self.folder.name)
        return {"fails": 2, "stopped": 130}.get(self.folder.name, 0)


def planned(*names: str) -> list[runs.Run]:
    Planned.started.clear()
    return [Planned(Path("x.py"), "tiny", (), Path(name)) for name in names]


def test_what_is_done_is_skipped_and_a_failure_does_not_stop_the_others(capsys):
    everything = planned("done1", "fails", "new")
    done = runs.run_all(everything, "sweep")
    assert [run.folder.name for run in done] == ["done1", "new"] and Planned.started == ["fails", "new"]
    said = capsys.readouterr().out
    assert "1 of 3, done1: already done" in said and "2 of 3, fails: FAILED with exit status 2" in said
    with pytest.raises(UserError, match=r"1 of 3 runs failed \(fails\)"):
        runs.missing(everything, done)


def test_nothing_starts_where_one_run_is_impossible_and_an_interrupt_ends_all():
    with pytest.raises(UserError, match="impossible"):
        runs.run_all(planned("new", "impossible"), "sweep")
    assert Planned.started == []
    with pytest.raises(KeyboardInterrupt):
        runs.run_all(planned("stopped", "new"), "sweep")
    assert Planned.started == ["stopped"]


# --- the demo and its closure ----------------------------------------------------------------------------------------


def test_the_trained_closure_that_ships_samples_near_the_exact_law():
    model, c, facts = pretrained.load()
    assert facts["experiment"] == "fm_ga" and facts["over_floor"]["10"] < 1.12
    state = demo.developed_flow(c, seed=1)
    exact = np.asarray(spectral.advection(state[None], build.stored_flow(c).grid))[0]
    samples = np.asarray(model(jax.random.key(0), np.repeat(state[None], 32, axis=0), 4))
    error = np.linalg.norm(samples.mean(axis=0) - exact) / np.linalg.norm(exact)
    assert error < 0.06  # 0.1 is the noise of a single exact sample
    assert 0.3 < samples.std(axis=0).mean() / 0.01995 < 1.1


def test_an_unknown_trained_closure_is_refused():
    with pytest.raises(UserError, match="no trained closure 'nothing'.*expected fm_ga"):
        pretrained.load("nothing")


def test_the_demo_writes_its_animation_and_says_where(capsys):
    assert demo.main(["--time=1", "--members=2"]) == 0
    said = capsys.readouterr().out
    assert "written: demo/demo.gif" in said
    errors = [float(line.rsplit(" ", 1)[1]) for line in said.splitlines() if line.startswith("error of")]
    assert errors[0] < 0.02 < 0.1 < errors[1]
    animation = Image.open("demo/demo.gif")
    assert animation.n_frames >= 5
