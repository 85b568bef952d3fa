"""Sweeps, studies and the demo: plans, refusals, and what ships; a whole sweep runs in test_end_to_end.py."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import REPOSITORY
from helpers import refusal as refused
from PIL import Image

from closure_jax import config as config_lib
from closure_jax import pretrained
from closure_jax.commands import compare, data_efficiency, demo, latent_size, runs, study, sweep, transfer
from closure_jax.errors import UserError
from closure_jax.evaluation import evaluate
from closure_jax.workdir import WorkDir


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
    def chosen(*patterns: str) -> list[str]:
        return [file.stem for file in config_lib.experiments(patterns)]

    assert len(config_lib.experiments()) == 38
    assert chosen("fm_*") == ["fm_ga", "fm_joint", "fm_mp", "fm_physical", "fm_recon"]
    assert chosen("dm_ga", "fm_m*") == ["dm_ga", "fm_mp"]


def test_the_matrix_has_a_folder_for_each_seed_and_seeds_share_the_data():
    planned = sweep.matrix(config_lib.experiments(["fm_ga"]), "tiny", 3, Path("runs"), ["transport.steps=7"])
    assert [run.folder.name for run in planned] == ["fm_ga-tiny", "fm_ga-tiny-seed1", "fm_ga-tiny-seed2"]
    resolved = [run.config() for run in planned]
    assert [c.seed for c in resolved] == [0, 1, 2]
    assert {c.data.seed for c in resolved} == {0} and {c.transport.steps for c in resolved} == {7}


def test_mistakes_are_refused_in_one_line(capsys):
    study_of = "data_efficiency:tiny"
    for command, arguments, said in (
        (sweep, ["--preset=tiny", "--only=fm_ga", f"--output={__file__}"], "is a file: expected a folder"),
        (sweep, ["--preset=tiny", "--only=fm_ga", "--docs=page.txt"], "--docs=page.txt: expected a Markdown file"),
        (sweep, ["--preset=tiny", "--only=fm_xx"], "'fm_xx' matches no experiment"),
        (sweep, ["--preset=huge"], "--preset=huge: expected paper, medium, small, tiny"),
        (sweep, ["--preset=tiny", "--seeds=0"], "--seeds=0"),
        (sweep, ["--preset=tiny", "--config.seed=3"], "--seeds=HOW_MANY"),
        (sweep, ["--preset=tiny", "--config.transprot.steps=3"], "no such field"),
        (sweep, ["--preset=tiny", "--config.transport.steps=0"], "--config.transport.steps=0"),
        (sweep, ["--preset=tiny", "--runs="], "argument --runs: is empty: expected a path"),
        (study, [study_of, "--output="], "argument --output: is empty: expected a path"),
        (
            compare,
            [str(REPOSITORY / "docs/results/runs/fm_ga-small-0.json"), "--output="],
            "argument --output: is empty",
        ),
        (study, [study_of, f"--output={__file__}"], "is a file: expected a folder"),
        (study, ["holding", f"--output={__file__}/deeper"], "is a file: expected a folder"),
        (demo, [f"--output={__file__}/deeper"], "is a file: expected a folder"),
        (demo, ["--output=/proc/x"], "--output=/proc/x can't be written"),
        (study, ["holding", "--output=/proc/x"], "--output=/proc/x can't be written"),
        (sweep, ["--preset=tiny", "--only=fm_ga", "--output=/proc/x"], "--output=/proc/x can't be written"),
        (sweep, ["--preset=tiny", "--only=fm_ga", "--runs=/proc/x"], "--runs=/proc/x can't be written"),
        (study, ["data"], "study 'data' is unknown"),
        (study, [study_of, "--fractions=1/0"], "'1/0' is not a number"),
        (study, [study_of, "--fractions=2"], "2 is not above 0 and up to 1"),
        (study, [study_of, "--latents=physical"], "'physical': expected some of"),
        (study, [study_of, "--config.transport.steps=0"], "--config.transport.steps=0"),
        (study, [study_of, "--seeds=0"], "--seeds=0: expected a whole number from 1 to 1,000"),
        (study, ["latent_size:tiny", f"--seeds={10**9}"], "expected a whole number from 1 to 1,000"),
        (sweep, ["--preset=tiny", f"--seeds={10**9}"], "expected a whole number from 1 to 1,000"),
        (study, [study_of, "--fractions=1e1000000000"], "'1e1000000000' is not a number"),
        (study, ["holding", f"--periods={'9' * 5000}"], "expected divisors of the 1000 solver steps"),
        (study, ["latent_size:tiny", "--sizes=8,x"], "--sizes=8,x: expected whole numbers of at least 2"),
        (study, ["latent_size:tiny", "--sizes=8,5"], "latent_resolution=5 does not divide"),
        (study, ["latent_size:tiny", "--latents=physical"], "'physical': expected some of"),
        (
            study,
            ["latent_size:tiny", "--config.autoencoder.latent_resolution=8"],
            "the study tries several, expected --sizes",
        ),
        (study, ["latent_size:tiny", "--distorted=0"], "--distorted=0.0: expected a number above 0"),
        (study, ["data_efficiency:huge"], "preset 'huge' is unknown: expected paper, medium, small, tiny"),
        (study, [study_of, "--periods=5"], "unrecognized arguments: --periods=5"),
        (study, ["holding:tiny"], "closures bring preset and configuration along"),
        (study, ["holding", "--config.coupling.period=5"], "expected neither :PRESET nor --config."),
        (study, ["holding", "--closures=cs_gb"], "'cs_gb' is no closure that ships"),
        (study, ["holding", "--closures=cs_ga,cs_ga"], "have experiment and seed in common"),
        (
            study,
            ["holding", "--rules=hold"],
            "--rules: 'hold': expected some of held, fresh, scaled, extrapolated, ar1",
        ),
        (study, ["holding", "--periods=1,7"], "--periods: '7': expected divisors of the 1000 solver steps"),
        (study, ["holding", "--states=9"], "--states=9: expected a whole number from 1 to 8"),
        (study, ["holding", "--members=1"], "--members=1: expected a whole number from 2"),
        (study, ["holding", "--time=0"], "--time=0: expected a whole number from 1"),
        (study, ["holding", "--periods=\u00b2"], "--periods: '\u00b2': expected divisors"),
        (study, ["holding", f"--time={10**20}"], "expected a whole number from 1 to 100,000 time units"),
        (study, [study_of, "--config.seed=7"], "--config.seed=7: the study sets seed itself"),
        (study, [study_of, "--config.evaluation.steps=1,5"], "expected 10 among them"),
        (demo, ["--closure=nosuch", "--output=dm"], "no trained closure 'nosuch'"),
        (
            sweep,
            ["--preset=tiny", "--runs=a", "--runs", "b"],
            "--runs is given twice, as a and as b: expected one of them",
        ),
        (demo, ["--members=2", "--members=3"], "--members is given twice, as 2 and as 3: expected one of them"),
        (demo, ["--members=1"], "--members=1"),
        (demo, [f"--seed={2**32}"], "expected a whole number from 0 to 4,294,967,295"),
        (demo, ["--pack=nothing"], "has no config.json"),
    ):
        assert said in refusal(command.main, capsys, *arguments)


def test_a_folder_of_data_that_is_a_file_is_refused_before_the_first_run(monkeypatch, capsys):
    monkeypatch.setenv("CLOSURE_JAX_DATA", __file__)
    for command, *arguments in (
        (sweep, "--preset=tiny", "--only=fm_ga"),
        (study, "data_efficiency:tiny", "--latents=ga"),
        (study, "latent_size:tiny", "--latents=ga"),
        (study, "holding"),
        (transfer, "run", "--config.flow.viscosity=2e-3"),
    ):
        assert f"CLOSURE_JAX_DATA={__file__}: is a file: expected a folder" in refusal(command.main, capsys, *arguments)


def test_a_study_takes_shares_of_what_is_left_to_train_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(runs, "run_all", lambda planned, label: asked.extend(planned) or planned)
    monkeypatch.setattr(data_efficiency, "_errors", lambda results: {})
    monkeypatch.setattr(data_efficiency.compare, "compare", lambda *arguments: None)
    assert study.main(["data_efficiency:tiny", "--fractions=1/2,1", "--latents=ga,mp"]) == 0
    # one of tiny's six training trajectories validates
    assert [run.folder.name for run in asked] == ["fm_ga-2", "fm_ga-5", "fm_mp-2", "fm_mp-5"]
    assert [run.config().data.train_trajectories for run in asked] == [2, 0, 2, 0]
    assert {run.config().autoencoder.steps for run in asked} == {40}
    asked.clear()
    assert study.main(["data_efficiency:tiny", "--fractions=1", "--latents=ga,joint", "--output=another"]) == 0
    # as long as the joint training trains them
    assert [run.config().autoencoder.steps for run in asked] == [60, 40]
    assert [run.config().transport.steps for run in asked] == [60, 60]


def test_a_study_of_sizes_trains_the_others_where_recon_is_distorted(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    asked, compared = [], []
    spread = {16: 0.05, 8: 0.2, 4: 0.4}  # of H; w keeps its distances

    def point(run: runs.Run) -> dict[str, float]:
        size = run.config().autoencoder.latent_resolution
        return {"distance_ratio_spread_vorticity": 0.01, "distance_ratio_spread_closure": spread[size]}

    monkeypatch.setattr(runs, "run_all", lambda planned, label: asked.append(planned) or planned)
    monkeypatch.setattr(latent_size, "_point", point)
    monkeypatch.setattr(latent_size.compare, "compare", lambda folders, output: compared.extend(folders))
    assert study.main(["latent_size:medium", "--latents=recon,ga", "--seeds=2", "--config.evaluation.samples=8"]) == 0
    first, second = asked
    assert [run.folder.name for run in first] == [f"size-{n}{seed}" for n in (16, 8, 4) for seed in ("", "-seed1")]
    assert [run.folder.name for run in second] == [
        f"fm_{one}-8{seed}" for one in ("recon", "ga") for seed in ("", "-seed1")
    ]
    assert [run.config().network.modes for run in first] == [4, 4, 4, 4, 2, 2]
    assert [run.config().transport.steps for run in (first[0], second[0])] == [1, 3000]
    assert {run.config().evaluation.samples for run in (*first, *second)} == {8}
    autoencoders = [run.config().autoencoder for run in (first[2], second[0])]
    assert autoencoders[0] == autoencoders[1]  # trained once
    content = json.loads((tmp_path / "runs" / "latent_size-medium" / "study.json").read_text())
    assert (content["bound"], content["distorted"], content["chosen"]) == (0.1, [4, 8], 8)
    assert [point["whole"] for point in content["points"]] == [False] * 6 + [True] * 4
    assert [path.name for path in compared] == ["latent_size-medium", *(run.folder.name for run in second)]
    assert "latents of 8^2 points, the largest at which recon is distorted" in capsys.readouterr().out
    spread |= {8: 0.05, 4: 0.05}
    assert study.main(["latent_size:medium", "--latents=ga"]) == 0
    assert asked[-1][0].folder.name == "fm_ga-4"
    assert "latents of 4^2 points, the smallest, and recon is distorted at none" in capsys.readouterr().out
    points = [dict(point) for point in content["points"][:6]]
    points[0]["distance_ratio_spread_closure"] = None  # it has collapsed, with one of two seeds
    assert latent_size.distorted(points, 0.1) == [4, 8, 16]


def test_a_run_is_done_when_its_folder_holds_results_of_its_settings(tmp_path):
    run = runs.Run(REPOSITORY / "experiments" / "fm_ga.py", "tiny", (), tmp_path / "run")
    assert not run.is_done()
    work = WorkDir(run.folder)
    run.folder.mkdir()
    work.write_config(run.config(), {})
    run.check()
    assert not run.is_done()
    work.write_results({"settings": evaluate.settings(config_lib.build(run.config()))})
    assert run.is_done()
    assert not dataclasses.replace(run, overrides=("evaluation.states=3",)).is_done()
    assert dataclasses.replace(run, overrides=("evaluation.rollout_chunk=3",)).is_done()


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
        return {"fails": 2, "stopped": 130, "killed": -15}.get(self.folder.name, 0)


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
    for how in ("stopped", "killed"):  # the latter before it could listen
        with pytest.raises(KeyboardInterrupt):
            runs.run_all(planned(how, "new"), "sweep")
        assert Planned.started == [how]


# --- the demo and its closure ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_trained_closures_that_ship_sample_near_the_exact_law():
    state = None
    for name, steps, least_spread in (("fm_ga", 4, 0.3), ("cs_ga", 1, 0.9), ("cs_ga_online", 1, 0.9)):
        model, experiment, facts = pretrained.shipped(name)
        assert facts["experiment"] == name and min(facts["over_floor"].values()) < 1.12
        state = demo.developed_flow(experiment.problem, seed=1) if state is None else state
        law = experiment.problem.law(state[None])
        samples = np.asarray(model(jax.random.key(0), np.repeat(state[None], 32, axis=0), steps))
        error = np.linalg.norm(samples.mean(axis=0) - law.mean[0]) / np.linalg.norm(law.mean[0])
        assert error < 0.06  # 0.1 is the noise of a single exact sample
        assert least_spread < samples.std(axis=0).mean() / law.deviation < 1.1


def test_an_unknown_trained_closure_is_refused():
    assert "no trained closure 'nothing'" in refused(pretrained.shipped, "nothing")
    for wrong in (5, None, b"fm_ga", ["fm_ga"], np.zeros((40, 40))):
        message = refused(pretrained.load, wrong)
        assert message.startswith("where=") and "expected, as text or a path" in message and "\n" not in message
    for long in ("x" * 5000, Path("x" * 5000), "two\nlines", "x/\0"):
        message = refused(pretrained.load, long)
        assert "is no closure that ships with the package" in message and len(message) < 500 and "\n" not in message
    message = refused(pretrained.load, "nothing")
    assert "'nothing'" in message and "fm_ga" in message and "the work directory of a run" in message


@pytest.mark.slow
def test_the_demo_writes_its_animation_and_says_where(capsys):
    assert demo.main(["--time=1", "--members=2"]) == 0
    said = capsys.readouterr().out
    assert "written: demo/demo.gif" in said
    errors = [float(line.rsplit(" ", 1)[1]) for line in said.splitlines() if line.startswith("error of")]
    assert errors[0] < 0.02 < 0.1 < errors[1]
    animation = Image.open("demo/demo.gif")
    assert animation.n_frames >= 5
