"""`--rehearse`: each phase for a few real steps, a table, and nothing left behind."""

import json

import pytest
from helpers import REPOSITORY, built, configured

from closure_jax import config
from closure_jax.bench import roofline
from closure_jax.commands import rehearse, train
from closure_jax.evaluation import a_priori

CONFIG = f"--config={REPOSITORY / 'experiments' / 'fm_ga.py'}:tiny"


@pytest.mark.slow
def test_a_rehearsal_takes_each_phase_scales_it_and_leaves_its_table_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLOSURE_JAX_DATA", raising=False)
    monkeypatch.setattr(a_priori, "_TIMED", 2)
    average = ["--config.transport.process=mean_flow", "--config.transport.flow_steps=5000"]
    assert train.main([CONFIG, "--rehearse", "--output=table.json", "--config.evaluation.steps=1", *average]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    said, content = capsys.readouterr().out, json.loads((tmp_path / "table.json").read_text())
    phases = content["phases"]
    trained = {"autoencoder_vorticity": 40, "autoencoder_closure": 40, "flow": 5000, "transport": 60}
    assert list(phases) == ["data", "latent_distances", *trained, "a_priori", "latent_geometry", "a_posteriori"]
    for name, phase in phases.items():
        assert f"\n  {name} " in said
        assert phase["seconds_per_step"] > 0 and phase["projected_seconds"] > 0 and phase["peak_bytes"] > 1e8
        assert len(phase["first_losses"]) == (4 if name in trained else 0)
    for name, steps in trained.items():
        assert phases[name]["projected_seconds"] == pytest.approx(steps * phases[name]["seconds_per_step"])
        assert phases[name]["note"] == ""  # no batch was cut
    drawn = phases["a_priori"]
    assert drawn["note"] == "8 of 32 samples"
    assert drawn["projected_seconds"] < drawn["seconds_per_step"] + 1  # the samples that lack take milliseconds each
    geometry = phases["latent_geometry"]  # of 8 of 24 states, and mostly compilation
    assert geometry["seconds_per_step"] < geometry["projected_seconds"] < 3 * geometry["seconds_per_step"]
    snapshots = 8 * 40  # trajectories, times
    assert content["disk"]["data"] == 2 * 4 * snapshots * 32**2 and content["disk"]["checkpoints"] > 0


def test_time_that_compiles_is_counted_once():
    assert rehearse._covered([]) == 0
    assert rehearse._covered([(4.0, 5.0), (0.0, 2.0), (0.5, 1.0), (1.5, 3.0)]) == 4.0


@pytest.mark.slow
def test_batches_are_cut_where_a_step_takes_too_long_or_too_much_memory(monkeypatch):
    experiment = built("tiny")
    whole = {"autoencoder": 16, "transport": 16}
    assert rehearse._batches(experiment) == whole
    monkeypatch.setattr(rehearse, "_free_memory", lambda: 1e7)
    few = rehearse._batches(experiment)
    assert all(2 <= few[name] < size for name, size in whole.items())
    monkeypatch.setattr(roofline, "matrix_rate", lambda: 1.0)
    assert rehearse._batches(experiment) == {"autoencoder": 2, "transport": 2}


def test_a_latent_without_distances_has_none_and_phases_that_did_not_run_are_left_out(tmp_path):
    work = rehearse._Watched(tmp_path)
    for latent, phases in (("recon", []), ("ga", ["latent_distances"])):
        experiment = built("tiny", "flow_matching", latent)
        assert list(rehearse._found(experiment, experiment, work)) == phases


@pytest.mark.slow
def test_what_comes_before_a_start_is_made_anew_and_cut_too():
    c = configured("tiny", "score", "ga")
    config.use(c, "program", "online", start="cs_ga", batch_size=4, steps=20, period=10)
    experiment = config.build(c)
    anew = rehearse._from_nothing(experiment)
    short = rehearse._shortened(anew, rehearse._batches(anew))
    names = ["autoencoder_vorticity", "autoencoder_closure", "transport", "online"]
    assert [phase.name for phase in experiment.program.phases(experiment)] == names[-1:]
    assert {phase.name: phase.training.settings.steps for phase in short.program.phases(short)} == dict.fromkeys(
        names, 4
    )


def test_an_output_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for options, word in (
        (["--output=x.json"], "--rehearse"),
        (["--rehearse", "--output=none/x.json"], "none/x.json"),
        (["--rehearse", "--output=/proc/x.json"], "--output=/proc/x.json can't be written"),
        (["--rehearse", "--dry_run"], "--rehearse with --dry_run"),
        (["--rehearse", f"--fork={tmp_path}"], "--fork"),
    ):
        assert train.main([CONFIG, *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and word in error
    assert not list(tmp_path.iterdir())
