"""The comparison: what runs measured, gathered over seeds, in tables and figures, and against the paper's claims."""

import csv
import functools
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, configured, refusal
from PIL import Image
from scipy import stats

from closure_jax import config
from closure_jax.commands import compare
from closure_jax.evaluation.measures import VERSION
from closure_jax.pages import drawing
from closure_jax.pages import results as results_lib
from closure_jax.pages.comparison import (
    claims,
    content,
    estimates,
    holding,
    published,
    reading,
    rollout,
    summaries,
    verdicts,
)
from closure_jax.pages.comparison import runs as comparison
from closure_jax.pages.comparison import tables as comparison_tables

STEPS = (1, 2, 5, 10, 50)
FIGURES = {
    "pareto",
    "settings",
    "noise_spectra",
    "rollout",
    "energy_spectra",
    "latent_geometry",
    "data_efficiency",
    "holding",
    "latent_size",
}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Figures of few pixels: the tests are of what is in them; and experiments are found as launch.sh finds them."""
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(REPOSITORY))
    monkeypatch.setattr(drawing, "DPI", 40)


def by_steps(n: int, latent: str, quality: float = 1.0) -> dict[str, float]:
    """A priori figures as an ODE sampler gives them: a mean that is right at once, and a spread that takes steps."""
    spread = n / (n + 2.0)
    milliseconds = 4.0 * n if latent == "physical" else 0.5 + 0.2 * n
    return {
        "relative_error": 0.1 * (1 + 0.03 * quality),
        "over_floor": 1 + 0.03 * quality,
        "excess_error": 0.025 * quality,
        "spread_ratio": spread,
        "noise_spectrum_error": 0.1 / n,
        "crps_ratio": 1.02 + 0.4 * (1 - spread) ** 2,
        "mean_squared_error": 3.98e-4 * (1 + 0.06 * quality),
        "coverage": {level: spread * float(level) / 100 for level in ("50", "80", "90")},
        "spread_over_error": 0.9 * spread,
        "milliseconds_per_sample": milliseconds,
        "milliseconds_sampling": 0.8 * milliseconds,
    }


def geometry(quality: float) -> dict:
    """Latent geometry, better where `quality` is less."""
    field = {
        "distance_correlation": 1 - 0.05 * quality,
        "distance_rank_correlation": 1 - 0.06 * quality,
        "distance_ratio_spread": 0.1 * quality,
        "condition_number": 30.0 * quality,
        "distortion": 0.4 * quality,
        "trustworthiness": 1 - 0.01 * quality,
        "continuity": 1 - 0.02 * quality,
    }
    bottleneck = {"bottleneck_h0": 0.02 * quality, "bottleneck_h1": 0.05 * quality}
    topology = {"vorticity": bottleneck, "closure": bottleneck}
    return {"vorticity": field, "closure": field, "conditional_smoothness": 1.1, "topology": topology}


def make_results(latent: str, seed: int, quality: float = 1.0) -> dict:
    time = [float(unit) for unit in range(6)]
    return {
        "seed": seed,
        "settings": {"measures": VERSION},
        "revision": "0123456789ab",
        "device": "1 cpu device (cpu)",
        "wall_seconds": {"data": 100.0, "autoencoder_closure": 60.0, "transport": 120.0, "a_priori": 40.0},
        "autoencoder": {"vorticity": {"relative_error": 0.002}, "closure": {"relative_error": 0.008}},
        "a_priori": {
            "floor": 0.1,
            "samples": 64,
            "exact_standard_deviation": 0.01995,
            "by_steps": {str(n): by_steps(n, latent, quality) for n in STEPS},
            "milliseconds": {"encode": 0.2, "decode": 0.25},
        },
        "latent_geometry": None if latent == "physical" else geometry(quality),
        "a_posteriori": {
            "time": time,
            "relative_error": [0.002 * quality * unit for unit in time],
            "relative_error_no_closure": [0.1 * unit for unit in time],
            "relative_error_floor": [0.0005 * unit for unit in time],
            "coverage": {level: [None, *[0.0105 * float(level)] * 5] for level in ("50", "80", "90")},
            "spread_over_error": [None, *[1.25] * 5],
            "spread": [0.003 * unit for unit in time],
            "spread_truth": [0.002 * unit for unit in time],
            "crps": [0.001 * unit for unit in time],
            "finite_fraction": 1.0,
            "states": 2,
            "members": 4,
            "seconds_per_time_unit": 10.0,
            "seconds_per_time_unit_truth": 2.0,
            "sampler_steps": 4,
        },
    }


def make_arrays(quality: float = 1.0) -> dict[str, np.ndarray]:
    shells = np.arange(33.0)
    energy = np.exp(-shells / 3) * np.ones((3, 1))
    noise = np.exp(-((shells / 8) ** 2))
    return {
        "energy_truth": energy,
        "energy_model": energy * (1 + 0.2 * quality * shells / 32),
        "energy_no_closure": energy * np.exp(-shells / 8),
        "noise_spectrum_exact": noise,
        "noise_spectrum_steps": np.array(STEPS),
        "noise_spectrum_model": np.stack([noise * n / (n + 2.0) for n in STEPS]),
    }


@functools.cache
def stored(preset: str, process: str, latent: str) -> str:
    """What config.json of an experiment holds."""
    return json.dumps(config.to_dict(configured(preset, process, latent)))


def write_run(path: Path, process: str, latent: str, seed: int = 0, quality: float = 1.0, preset="small", results=None):
    """A work directory as a run leaves it; returns its path."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(json.loads(stored(preset, process, latent)) | {"seed": seed}))
    (path / "results.json").write_text(json.dumps(make_results(latent, seed, quality) if results is None else results))
    np.savez(path / "arrays.npz", **make_arrays(quality))
    return path


def write_study(path: Path, gain: float) -> Path:
    """A study in which GA's error is `gain` of recon's, and recon's goes with one over the root of the data."""
    points = [
        {
            "latent": latent,
            "fraction": fraction,
            "trajectories": round(32 * fraction),
            "seed": seed,
            "excess_error": factor * 0.02 / math.sqrt(fraction) * (1 + 0.01 * seed),
            "over_floor": 1.1,
            "crps_ratio": 1.1,
            "reconstruction_closure": factor * 0.01 / fraction,
        }
        for latent, factor in (("recon", 1.0), ("ga", gain))
        for fraction in (0.0625, 0.25, 1.0)
        for seed in (0, 1, 2)
    ]
    path.mkdir(parents=True)
    study = {"kind": "data_efficiency", "preset": "small", "points": points}
    (path / "study.json").write_text(json.dumps(study))
    return path


def write_holding(path: Path) -> Path:
    """A study of one closure with two seeds and of the oracle: held, the spread grows with the root of the period."""
    points = [
        {
            "closure": closure,
            "seed": seed,
            "rule": rule,
            "period": period,
            "states": 2,
            "members": 64,
            "time": [0.0, 1.0, 2.0],
            "relative_error": [0.0, error, 2 * error * (1 + 0.1 * seed)],
            "relative_error_floor": [0.0, 0.0005, 0.001],
            "spread": [0.0, 0.01, 0.02 * (math.sqrt(period) if rule == "held" else 1)],
            "spread_truth": [0.0, 0.01, 0.02],
            "seconds_per_time_unit": 8.0 / period,
            "seconds_per_time_unit_truth": 2.0,
        }
        for closure, seed, error in (("cs_ga", 0, 0.005), ("cs_ga", 1, 0.005), ("oracle", 0, 0.0005))
        for rule in ("held", "scaled")
        for period in (1, 4)
    ]
    path.mkdir(parents=True)
    (path / "study.json").write_text(json.dumps({"kind": "holding", "settings": {}, "points": points}))
    return path


def write_sizes(path: Path) -> Path:
    """A study of sizes: latents of two seeds lose the distances of H below 16 points a side, GA half as much."""
    points = [
        {
            "latent": latent,
            "resolution": size,
            "seed": seed,
            "whole": whole,
            **{f"distance_ratio_spread_{field}": loss * (16 / size - 0.9) * (1 + 0.1 * seed) for field, loss in losses},
            **{
                f"{name}_{field}": 0.99
                for name in ("distance_rank_correlation", "trustworthiness")
                for field, _ in losses
            },
            **{f"{name}_{field}": 0.02 for name in ("distortion", "reconstruction") for field, _ in losses},
            **({"over_floor": 1.1, "crps_ratio": 1.2} if whole else {}),
        }
        for latent, size, whole, factor in (
            ("recon", 16, False, 1.0),
            ("recon", 8, False, 1.0),
            ("recon", 8, True, 1.0),
            ("ga", 8, True, 0.5),
        )
        for losses in [(("vorticity", 0.01 * factor), ("closure", 0.1 * factor))]
        for seed in (0, 1)
    ]
    path.mkdir(parents=True)
    (path / "study.json").write_text(
        json.dumps(
            {"kind": "latent_size", "preset": "medium", "bound": 0.1, "distorted": [8], "chosen": 8, "points": points}
        )
    )
    return path


def models_of(*paths: Path) -> list[comparison.Model]:
    return comparison.gather(reading.read(paths)[0])


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Flow matching in recon, MP and GA latents (GA with three seeds), and two physical models, and a study of each kind."""
    runs = tmp_path / "runs"
    return [
        write_run(runs / "fm_recon", "flow_matching", "recon"),
        write_run(runs / "fm_mp", "flow_matching", "mp", quality=2.0),
        *(write_run(runs / f"fm_ga-{i}", "flow_matching", "ga", i, quality=q) for i, q in enumerate((0.5, 0.7, 0.9))),
        write_run(runs / "fm_physical", "flow_matching", "physical"),
        write_run(runs / "dm_physical", "diffusion", "physical"),
        write_study(runs / "study", 0.5),
        write_holding(runs / "holding"),
        write_sizes(runs / "sizes"),
    ]


def refused(capsys, *arguments: object) -> str:
    """The one line on stderr with which these arguments are refused."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert compare.main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("closure_jax: error: ") and output.err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return output.err


# --- estimates and gathering -----------------------------------------------------------------------------------------


def test_the_interval_is_students_t():
    values = [1.0, 1.2, 1.7, 0.9]
    found = estimates.interval([*values, None])
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.count == 4
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert estimates.interval([None]) is None
    assert estimates.interval([2.0]) == estimates.Estimate(2.0, None, 1)


def test_an_estimate_shows_the_digits_it_has():
    for mean, half_width, text in (
        (1.0347, 0.0042, "1.035 ± 0.004 (3 seeds)"),
        (1.0347, 0.0142, "1.035 ± 0.014 (3 seeds)"),
        (123.4, 21.0, "123 ± 21 (3 seeds)"),
        (3.1e-7, 2e-8, "3.10e-07 ± 2.0e-08 (3 seeds)"),
        (0.5, 0.0, "0.500 (3 seeds)"),
        (10.0, 0.0, "10 (3 seeds)"),
    ):
        assert estimates.Estimate(mean, half_width, 3).with_count() == text


def test_runs_that_differ_by_seed_alone_are_one_model(folders):
    models = models_of(*folders[:-2])
    assert [model.name for model in models] == ["FM physical", "FM recon", "FM MP", "FM GA", "DM physical"]
    ga = models[3]
    excess = [0.025 * quality for quality in (0.5, 0.7, 0.9)]
    expected = stats.t.ppf(0.975, 2) * np.std(excess, ddof=1) / math.sqrt(3)
    assert len(ga.runs) == 3
    assert ga.at(10, "excess_error").mean == pytest.approx(np.mean(excess))
    assert ga.at(10, "excess_error").half_width == pytest.approx(expected)
    np.testing.assert_allclose(ga.curve("a_posteriori", "relative_error"), 0.0014 * np.arange(6))


def test_other_configurations_are_other_models_and_their_names_say_how(tmp_path):
    first = write_run(tmp_path / "a", "flow_matching", "ga")
    second = write_run(tmp_path / "b", "flow_matching", "ga")
    changed = json.loads((second / "config.json").read_text())
    changed["transport"]["steps"] = 77
    (second / "config.json").write_text(json.dumps(changed))
    assert {model.name for model in models_of(first, second)} == {
        "FM GA (transport.steps 3000)",
        "FM GA (transport.steps 77)",
    }
    tables = comparison_tables.model_tables(models_of(first, second))
    commands = [row[-1] for row in tables["Provenance"].rows]
    assert commands[1] == f"{commands[0]} --config.transport.steps=77"
    changed["experiment"] = "theirs"  # what its file says is not known here
    (second / "config.json").write_text(json.dumps(changed))
    rows = comparison_tables.model_tables(models_of(second))["Provenance"].rows
    assert [row[-1] for row in rows] == ["./launch.sh experiments/theirs.py:small"]
    third = write_run(tmp_path / "c", "flow_matching", "ga", preset="tiny")
    assert "FM GA, tiny" in [model.name for model in models_of(first, third)]


def test_a_process_that_more_was_done_to_says_so_also_alone(tmp_path):
    plain, rectified = (write_run(tmp_path / name, "flow_matching", "ga") for name in ("a", "b"))
    changed = json.loads((rectified / "config.json").read_text())
    changed["transport"]["rectify"] = 1
    (rectified / "config.json").write_text(json.dumps(changed))
    assert [model.name for model in models_of(plain, rectified)] == ["FM GA", "FM GA, rectified"]
    online = write_run(tmp_path / "c", "score", "ga")
    changed = json.loads((online / "config.json").read_text())
    changed["program"] = {"kind": "online"}
    (online / "config.json").write_text(json.dumps(changed))
    assert [model.name for model in models_of(rectified, online)] == ["FM GA, rectified", "CS GA, online"]


def test_times_of_two_devices_are_not_averaged(tmp_path):
    faster = make_results("ga", 1) | {"device": "1 gpu device (H100)"}
    paths = (
        write_run(tmp_path / "a", "flow_matching", "ga"),
        write_run(tmp_path / "b", "flow_matching", "ga", 1, results=faster),
    )
    assert [len(model.runs) for model in models_of(*paths)] == [1, 1]


def test_runs_judged_by_older_measures_are_kept_apart_and_named(tmp_path):
    """Their errors hold what the finite number of samples adds: no mean over seeds takes both."""
    older = make_results("ga", 1)
    del older["settings"]
    paths = (
        write_run(tmp_path / "now", "flow_matching", "ga"),
        write_run(tmp_path / "before", "flow_matching", "ga", 1, results=older),
    )
    models = models_of(*paths)
    assert {model.name: len(model.runs) for model in models} == {
        "FM GA (measures 1)": 1,
        f"FM GA (measures {VERSION})": 1,
    }
    assert "older version of the measures" in content.intro(models) and "before; --mode" in content.intro(models)
    assert "older version" not in content.intro(models_of(paths[0]))


def test_the_best_setting_has_the_least_crps(tmp_path):
    results = make_results("ga", 0)
    results["a_priori"]["by_steps"]["5"]["crps_ratio"] = 1.001
    results["a_priori"]["by_steps"]["2"]["over_floor"] = 1.0
    results["a_priori"]["by_steps"]["50"]["crps_ratio"] = None
    (model,) = models_of(write_run(tmp_path / "a", "flow_matching", "ga", results=results))
    assert model.best_steps == 5 and _cells("best steps", model) == ["5", "5"]
    assert _cells("chosen on", model) == ["test"]
    assert model.nearest_steps(20) == 10 and model.nearest_steps(25) == 50
    for steps, found in results["a_priori"]["by_steps"].items():
        found["validation_crps"] = 0.1 + abs(int(steps) - 10)
    (model,) = models_of(write_run(tmp_path / "b", "flow_matching", "ga", results=results))
    assert model.best_steps == 10 and _cells("chosen on", model) == ["validation"]
    for found in results["a_priori"]["by_steps"].values():
        found.update(dict.fromkeys(found))
    (model,) = models_of(write_run(tmp_path / "c", "flow_matching", "ga", results=results))
    assert model.best_steps is None and _cells("chosen on", model) == ["–"]


def _cells(column: str, model: comparison.Model) -> list[str]:
    """What the tables that have a column say of a model there."""
    tables = [comparison_tables.as_text(table) for table in comparison_tables.model_tables([model]).values()]
    return [table.rows[0][table.head.index(column)] for table in tables if column in table.head]


# --- published figures -----------------------------------------------------------------------------------------------


def test_the_published_formulas_invert_a_known_model():
    """Samples of deviation s about a mean that is off by e: MSE = sigma^2 + s^2 / N + e^2."""
    sigma, deviation, samples, off, size = 0.02, 0.015, 50, 0.006, 0.25
    error = sigma**2 + deviation**2 / samples + off**2
    relative = math.sqrt(error) / size
    assert published.excess_error(error, relative, sigma, deviation, samples) == pytest.approx(off / size)
    assert published.excess_error(sigma**2, 0.08, sigma, deviation, samples) == 0
    assert published.error_over_floor(4 * sigma**2, sigma) == pytest.approx(2)


def test_the_floor_of_a_few_states_is_as_uncertain_as_that_of_simulated_noise():
    n, count = 32, 2000
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(n, 1 / n)
    envelope = np.exp(-published.NOISE_ALPHA * (2 * np.pi) ** 2 * (k[:, None] ** 2 + k**2) / 2)
    draws = rng.normal(size=(count, n, n)) + 1j * rng.normal(size=(count, n, n))
    square = np.mean(np.fft.fft2(envelope * draws).real ** 2, axis=(1, 2))
    assert square.std() / square.mean() == pytest.approx(published.floor_uncertainty(1), rel=0.08)


def test_published_rows_are_there_marked_and_followed_by_ours(folders):
    table = published.published_table(models_of(*folders[:-2]))
    names = [row[0] for row in table.rows]
    assert sum("published" in name for name in names) == len(published.PUBLISHED) == 6
    assert names[names.index("DM physical, published") + 1] == "DM physical"
    rows = {row[0]: row for row in comparison_tables.as_text(table).rows}
    assert rows["DM physical, published"][:6] == ["DM physical, published", "50", "4.288", "8.329", "1.944", "1.038"]
    assert rows["DM joint, published"][-2:] == ["0.249", "4.030"]
    ours = rows["FM physical"]
    assert ours[1] == "50" and float(ours[4]) == pytest.approx(1.995 * 50 / 52, abs=0.002)
    assert rows["FM MP"][1] == "10"


# --- claims ------------------------------------------------------------------------------------------------------------


def test_nothing_is_claimed_of_what_was_not_measured():
    found = claims.claims([])
    assert {claim.verdict for claim in found} == {"not measured"}
    assert all(claim.sentence.startswith("Needs ") for claim in found)


def of_seeds(folder: Path, process: str, latent: str, results: dict | None = None, scatter: float = 0.01) -> list[Path]:
    """Three runs whose a priori figures and geometry scatter by a share; figures of `results` where it is given."""
    paths = []
    for seed, factor in enumerate((1 - scatter, 1.0, 1 + scatter)):
        content = json.loads(json.dumps(results or make_results(latent, seed))) | {"seed": seed}
        for values in content["a_priori"]["by_steps"].values():
            values |= {
                name: factor * values[name] for name in ("milliseconds_per_sample", "spread_ratio", "excess_error")
            }
        paths.append(write_run(folder / f"{process}_{latent}-{seed}", process, latent, seed, results=content))
    return paths


def test_one_step_needs_the_spread_as_well_as_the_mean_and_three_seeds(tmp_path):
    results = make_results("ga", 0)
    (model,) = models_of(*of_seeds(tmp_path / "mean", "flow_matching", "ga", results))
    claim = claims.one_step([model])
    assert claim.verdict == "does not hold"
    assert "the mean holds" in claim.sentence and "the law does not hold (spread 0.333" in claim.sentence
    assert claim.sentence.endswith("(preset small; networks fourier; on 1 cpu device (cpu); seeds 0, 1, 2)")
    (alone,) = models_of(write_run(tmp_path / "alone", "flow_matching", "ga", results=results))
    claim = claims.one_step([alone])
    assert claim.verdict == "undecided" and claim.sentence.endswith("seed 0; no verdict from fewer than 3 seeds)")

    results["a_priori"]["by_steps"]["1"] |= {"spread_ratio": 0.97, "crps_ratio": 1.03}
    (model,) = models_of(*of_seeds(tmp_path / "law", "flow_matching", "ga", results))
    assert claims.one_step([model]).verdict == "holds"
    (model,) = models_of(*of_seeds(tmp_path / "scattered", "flow_matching", "ga", results, scatter=0.2))
    assert claims.one_step([model]).verdict == "undecided"

    results["a_priori"]["by_steps"]["1"]["over_floor"] = 1.2
    (model,) = models_of(*of_seeds(tmp_path / "off", "flow_matching", "ga", results))
    assert claims.one_step([model]).verdict == "does not hold"


def test_speed_is_one_latent_step_against_fifty_physical_ones(tmp_path):
    physical = of_seeds(tmp_path / "dm", "diffusion", "physical")  # 50 steps: 200 ms
    for milliseconds, verdict in ((1.8, "holds"), (2.2, "does not hold")):
        results = make_results("ga", 0)
        results["a_priori"]["by_steps"]["1"]["milliseconds_per_sample"] = milliseconds
        latent = of_seeds(tmp_path / verdict, "flow_matching", "ga", results, scatter=0.02)
        claim = claims.speed(models_of(*physical, *latent))
        assert claim.verdict == verdict
        assert f"FM GA {200 / milliseconds:.0f}" in claim.sentence
    assert claims.speed(models_of(physical[0], latent[0])).verdict == "undecided"


def test_a_latent_model_is_weighed_against_its_physical_twin(tmp_path):
    slow = make_results("recon", 0)
    for values in slow["a_priori"]["by_steps"].values():
        values["milliseconds_per_sample"] = 500.0
    paths = [
        *of_seeds(tmp_path, "flow_matching", "physical"),
        *of_seeds(tmp_path, "flow_matching", "ga"),
        *of_seeds(tmp_path, "diffusion", "ga", slow),  # has no twin
    ]
    assert claims.cheaper_than_physical(models_of(*paths)).verdict == "holds"
    paths += of_seeds(tmp_path, "flow_matching", "recon", slow)
    claim = claims.cheaper_than_physical(models_of(*paths))
    assert claim.verdict == "does not hold" and "FM recon 2.500" in claim.sentence


def test_geometry_is_weighed_against_reconstruction_alone_seed_by_seed(tmp_path):
    """Topology is not measured without its packages."""

    def models(quality, scatter=0.02, topology=True):
        folder, paths = tmp_path / f"{quality}-{scatter}-{topology}", []
        for latent, of_latent in (("recon", 1.0), ("ga", quality)):
            for seed in range(3):
                results = make_results(latent, seed, of_latent * (1 + scatter * (seed - 1)))
                if not topology:
                    results["latent_geometry"]["topology"] = {"missing": "install closure_jax[topology]"}
                paths.append(write_run(folder / f"{latent}{seed}", "flow_matching", latent, seed, results=results))
        return models_of(*paths)

    for quality, verdict in ((0.5, "holds"), (1.5, "does not hold"), (1 + 1e-9, "alike"), (0.99, "alike")):
        found = models(quality)
        for weigh in (claims.distortion, claims.topology):
            assert weigh(found, "ga").verdict == verdict
            assert weigh(found, "mp").verdict == "not measured"
    assert claims.distortion(models(0.93, scatter=0.5), "ga").verdict == "undecided"
    claim = claims.topology(models(0.5, topology=False), "ga")
    assert claim.verdict == "not measured" and "closure_jax[topology]" in claim.sentence


def test_verdicts_do_not_flip_under_noise_of_the_size_of_the_seeds_scatter():
    """Two alike, and two that differ by far more than their scatter, drawn a thousand times with three seeds each."""
    rng = np.random.default_rng(0)
    alike = [verdicts.outcome(0.1 * rng.standard_normal(3), 0.05) for _ in range(1000)]
    assert alike.count("better") + alike.count("worse") < 50  # 5 % of the intervals do not hold the difference
    apart = [verdicts.outcome(1.0 + 0.05 * rng.standard_normal(3), 0.05) for _ in range(1000)]
    assert apart.count("better") == 1000
    same = [verdicts.outcome(1e-9 * rng.standard_normal(3), 0.05) for _ in range(100)]
    assert set(same) == {"alike"}
    assert {verdicts.outcome(x, 0.05) for x in ([1.0], [1.0, 1.0], [], [None, 1.0, 1.0])} == {"undecided"}
    inside = [verdicts.within(1.0 + 0.1 * rng.standard_normal(3), high=1.0) for _ in range(1000)]
    assert inside.count(True) < 50 and inside.count(False) < 50  # at the bound nothing is decided, but by chance


def test_data_efficiency_is_read_off_the_study_and_interpolated_between_its_points(tmp_path):
    """Error gain c / sqrt(fraction): recon's last error is reached with gain^2 of the data."""
    for gain, verdict, needed in ((0.5, "holds", "with 25 % of them"), (2.0, "does not hold", "never reaches")):
        _, studies = reading.read([write_study(tmp_path / verdict, gain), write_sizes(tmp_path / f"{verdict} sizes")])
        claim = claims.data_efficiency(studies, "ga")
        assert claim.verdict == verdict
        assert needed in claim.sentence and claim.sentence.endswith("(preset small; seeds 0, 1, 2)")
        assert claims.data_efficiency(studies, "mp").verdict == "not measured"
    _, studies = reading.read([write_study(tmp_path / "alike", 0.98)])
    assert claims.data_efficiency(studies, "ga").verdict == "alike"
    curve = {0.1: 0.4, 0.4: 0.2, 1.0: 0.1}
    assert claims.fraction_needed(curve, 0.3) == pytest.approx(0.1 * (4 / 3) ** 2)
    assert claims.fraction_needed(curve, 0.5) == 0.1
    assert claims.fraction_needed(curve, 0.05) is None


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_is_written(folders, tmp_path, capsys):
    output, docs = tmp_path / "out", tmp_path / "docs" / "page.md"
    assert compare.main([*map(str, folders), f"--output={output}", f"--docs={docs}"]) == 0
    assert str(output / "compare.html") in capsys.readouterr().out
    for folder in (output / "figures", output / "results", docs.parent / "results"):
        assert {path.stem for path in folder.glob("*.png")} == FIGURES == set(content.CAPTIONS)
    for path in (output / "figures").iterdir():
        image = Image.open(path)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert image.format == "PNG" and image.width > 200 and path.stat().st_size < 150_000
        assert len(np.unique(pixels, axis=0)) > 20 and 0.005 < np.mean(pixels.min(axis=1) < 200) < 0.5

    text = docs.read_text()
    assert text == (output / "results.md").read_text()
    assert set(re.findall(r"\]\((.*?)\)", text)) == {f"results/{name}.png" for name in FIGURES}
    assert "differences of one or two percent mean nothing" in text and "t-interval" in text
    page = (output / "compare.html").read_text()
    assert page.count("data:image/png;base64,") == len(FIGURES) and 'src="http' not in page
    for claim in claims.claims(models_of(*folders[:-2]), reading.read(folders)[1]):
        assert claim.title in text and claim.title in page

    kept = sorted((docs.parent / "results" / "runs").glob("*.json"))
    assert [file.stem for file in kept][:3] == ["dm_physical-small-0", "fm_ga-small-0", "fm_ga-small-1"] and len(
        kept
    ) == 7
    assert all(file.stat().st_size < 30_000 for file in kept)
    again = tmp_path / "again" / "page.md"
    assert compare.main([*map(str, kept + folders[-3:]), f"--output={tmp_path / 'second'}", f"--docs={again}"]) == 0
    assert again.read_text() == text  # what is committed makes the page
    assert [file.read_text() for file in kept] == [
        file.read_text() for file in sorted((again.parent / "results" / "runs").glob("*.json"))
    ]


@pytest.mark.parametrize("folder", ["docs", "docs/les"])
def test_the_page_of_results_is_that_of_the_summaries_beside_it(folder, tmp_path):
    """A sentence or a figure without a summary behind it would be in one page and not in the other."""
    kept = sorted((REPOSITORY / folder / "results" / "runs").glob("*.json"))
    assert compare.main([*map(str, kept), f"--output={tmp_path}"]) == 0
    assert (tmp_path / "results.md").read_text() == (REPOSITORY / folder / "results.md").read_text()
    assert all(file.stat().st_size < 30_000 for file in kept)


def test_a_run_from_before_a_field_joins_those_of_its_old_value(tmp_path):
    paths = [write_run(tmp_path / str(seed), "flow_matching", "ga", seed) for seed in (0, 1)]
    config = json.loads((paths[0] / "config.json").read_text())
    assert config["latent"].pop("pairs") == "neighbours" and config["autoencoder"].pop("keep") == "last"
    (paths[0] / "config.json").write_text(json.dumps(config))
    assert [model.name for model in models_of(*paths)] == [
        f"FM GA (latent.pairs {x})" for x in ("random", "neighbours")
    ]
    for path in paths:
        text = json.loads((path / "config.json").read_text())
        text["latent"]["pairs"] = "random"
        (path / "config.json").write_text(json.dumps(text))
    assert len(models_of(*paths)) == 1


def test_a_summary_keeps_what_a_number_lacks_to_one(tmp_path):
    results = make_results("ga", 0)
    results["latent_geometry"]["closure"]["distance_correlation"] = 1 - 2.004e-9
    folder = write_run(tmp_path / "a", "flow_matching", "ga", results=results)
    (run,), _ = reading.read([folder])
    kept = reading.summary(run)["results"]["latent_geometry"]["closure"]["distance_correlation"]
    assert 1 - kept == pytest.approx(2.004e-9, rel=1e-3)


def test_a_summary_of_a_long_rollout_has_some_of_its_times():
    time = [float(unit) for unit in range(51)]
    own = {"crps": time, "spectrum_error": 0.1, "coverage": {"50": time}}
    whole = {"time": time, "coupling": {"drag": time}, "baselines": {"none": own}} | own
    kept = summaries._with_fewer_times({"a_posteriori": whole})["a_posteriori"]
    assert kept["time"] == [*range(11), 17, 23, 25, 30, 37, 43, 50]
    assert kept["crps"] == kept["coverage"]["50"] == kept["baselines"]["none"]["crps"] == kept["time"]
    assert kept["coupling"]["drag"] == time and kept["spectrum_error"] == 0.1
    short = {"a_posteriori": {"time": time[:21], "crps": time[:21]}}
    assert summaries._with_fewer_times(short) == short and summaries._with_fewer_times({}) == {}


@pytest.mark.slow
def test_what_is_no_summary_is_refused(folders, tmp_path, capsys):
    summary = tmp_path / "summary.json"
    for written in (
        "[]",
        "{}",
        '{"kind": "run"}',
        '{"kind": "run", "config": {}, "results": {}, "arrays": {"a": ["x"]}}',
        "{",
    ):
        summary.write_text(written)
        assert str(summary) in refused(capsys, folders[0], summary, f"--output={tmp_path / 'out'}")


def test_seeds_that_start_from_closures_of_their_own_are_one_model(tmp_path):
    paths = []
    for seed in range(3):
        paths.append(write_run(tmp_path / f"online{seed}", "score", "ga", seed))
        stored_config = json.loads((paths[-1] / "config.json").read_text())
        stored_config["program"] = {"kind": "online", "start": f"runs/cs_ga-{seed}"}
        (paths[-1] / "config.json").write_text(json.dumps(stored_config))
    (model,) = models_of(*paths)
    assert model.name == "CS GA, online" and len(model.runs) == 3
    other = write_run(tmp_path / "longer", "score", "ga", 0)
    stored_config = json.loads((other / "config.json").read_text())
    stored_config["program"] = {"kind": "online", "start": "longer/runs/cs_ga-12000"}
    (other / "config.json").write_text(json.dumps(stored_config))
    apart = models_of(*paths, other)  # of seed 0 there are two starts
    assert sum(len(model.runs) for model in apart) == 4 and len({model.name for model in apart}) == len(apart) > 1

    found = summaries.named(
        [summaries.as_run(run.path, reading.summary(run)) for run in reading.read([*paths, other])[0]]
    )
    assert [run.label for run in found] == [f"cs_ga-small-{end}" for end in ("0", "1", "2", "0-2")]
    assert "/" not in "".join(map(str, (found[-1].config["program"], found[-1].summary["provenance"])))
    again = [summaries.as_run(tmp_path / f"{run.label}.json", run.summary) for run in reversed(found)]
    assert {run.label: run.summary for run in summaries.named(again)} == {run.label: run.summary for run in found}


def test_the_tables_have_a_row_for_each_model_with_its_figures(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "draw", lambda models, studies: {})
    compare.compare(folders, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    ga = next(line for line in text.splitlines() if line.startswith("| FM GA | 3 | 50 |"))
    assert f"| {models_of(*folders[:-2])[3].at(50, 'excess_error')} |" in ga
    assert "0.333" in ga  # spread ratio at one step
    assert ga.endswith("| 0.865 | 0.865 |")  # coverage of 90 %, and spread over error, at 50 steps
    rollouts = next(line for line in text.splitlines() if line.startswith("| FM GA | 3 | 4 | 5 |"))
    assert rollouts.endswith("| 5 | 4 | 0.007 ± 0.005 | 0.00250 | 0.500 | 1.500 | 1.250 | – | 0.00500 | 1 |")
    assert "./launch.sh experiments/fm_ga.py:small" in text and "3 min 00 s" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):  # Markdown wants as many cells in each row
        assert len({line.count("|") for line in block.splitlines()}) == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert [row["model"] for row in rows] == ["FM physical", "FM recon", "FM MP", "FM GA", "DM physical"]
    assert float(rows[3]["A priori: excess error at best"]) == pytest.approx(0.0175)
    assert rows[3]["A priori: excess error at best, seeds"] == "3"
    assert rows[0]["A priori: excess error at best, half width"] == ""


def with_nulls(tree):
    """The same structure with every number null, as after a run that diverged."""
    if isinstance(tree, dict):
        return {key: with_nulls(value) for key, value in tree.items()}
    return [None for _ in tree] if isinstance(tree, list) else None if isinstance(tree, float) else tree


@pytest.mark.slow
def test_what_a_run_does_not_have_is_a_dash(tmp_path, unrendered):
    new = write_run(tmp_path / "new", "flow_matching", "recon")
    little: dict = {"a_priori": None, "a_posteriori": {"time": [0.0, 1.0]}}
    for number, results in enumerate((with_nulls(make_results("ga", 0)), {}, little)):
        old = write_run(tmp_path / f"old{number}", "flow_matching", "ga", results=results)
        (old / "arrays.npz").unlink()
        for folders in ([old], [old, new]):
            compare.compare(folders, tmp_path / "out")
            text = (tmp_path / "out" / "table.md").read_text()
            assert "| FM GA |" in text and "–" in text and not re.search(r"\b(None|nan|null)\b", text)


def without_law(results: dict) -> dict:
    """Results of a problem whose law nobody knows."""
    prior = {
        name: value for name, value in results["a_priori"].items() if name not in ("floor", "exact_standard_deviation")
    }
    kept = ("relative_error", "mean_squared_error", "milliseconds_per_sample", "milliseconds_sampling")
    prior["by_steps"] = {
        steps: {name: values[name] for name in kept} | {"spread": 0.02, "crps": 0.01 * abs(int(steps) - 4)}
        for steps, values in prior["by_steps"].items()
    }
    return results | {"a_priori": prior}


@pytest.mark.slow
def test_problems_without_a_law_or_a_solver_are_dashes_and_sentences(tmp_path, unrendered):
    """The best setting is then that of the least CRPS itself; figures that need a law or a rollout are left out."""
    results = without_law(make_results("ga", 0))
    del results["a_posteriori"]
    run = write_run(tmp_path / "unknown", "flow_matching", "ga", results=results)
    with np.load(run / "arrays.npz") as archive:
        kept = {
            name: archive[name] for name in archive.files if name.startswith("noise_spectrum_") and "exact" not in name
        }
    np.savez(run / "arrays.npz", **kept)
    compare.compare([run], tmp_path / "out")
    page, text = ((tmp_path / "out" / name).read_text() for name in ("compare.html", "results.md"))
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {"latent_geometry"}
    for shown in (page, text):
        assert shown.count("which takes a known law") == 3 and shown.count("left out, no run has a rollout") == 2
        assert "The law of the closure is known exactly" not in shown and "None" not in shown
    assert "| FM GA | 1 | 5 | test |" + 10 * " – |" in text

    other = write_run(tmp_path / "known", "diffusion", "ga")
    compare.compare([run, other], tmp_path / "both")
    assert {path.stem for path in (tmp_path / "both" / "figures").iterdir()} == FIGURES - {
        "data_efficiency",
        "holding",
        "latent_size",
    }
    assert "are dashes for runs in which it is not known" in (tmp_path / "both" / "results.md").read_text()


def test_baselines_have_a_row_a_preset_and_lines(tmp_path):
    baselines = {
        "none": {"relative_error": [0.0, 0.25, 0.5, 0.75, 1.5, 2.5], "members": 1, "seconds_per_time_unit": 0.125},
        "exact_mean": {
            "relative_error": [0.0, 0.015, 0.025, 0.035, 0.045, 0.055],
            "spread": [0.0] * 6,
            "crps": [0.5] * 6,
        },
    }
    paths = []
    for latent in ("recon", "ga"):
        results = make_results(latent, 0)
        results["a_posteriori"]["baselines"] = baselines
        paths.append(write_run(tmp_path / latent, "flow_matching", latent, results=results))
    (table,) = (rollout.rollout_table(models_of(*paths)),)
    whole, some = {}, [place for place in range(51) if place < 11 or place in (17, 23, 25, 50)]
    for name, places in (("whole", range(51)), ("some", some)):  # a run, and what its summary keeps of a long rollout
        results = make_results("mp", 0)
        curve = [float(place) for place in places]
        results["a_posteriori"] |= {"time": curve, "relative_error": curve}
        run = write_run(tmp_path / name, "flow_matching", "mp", results=results)
        whole[name] = comparison_tables.as_text(rollout.rollout_table(models_of(run))).rows[0]
    assert whole["whole"] == whole["some"] and whole["some"][3] == "25"
    rows = comparison_tables.as_text(table).rows
    assert [row[0] for row in rows] == ["FM recon", "FM GA", "truth", "no closure", "exact mean"]
    assert rows[1] == ["FM GA", "5", "0.00200", "0.00600", "0.0100", "0.0150", "0.00500", "1", "1250"]  # by member
    assert rows[2] == ["truth", "5", "0.000500", "0.00150", "0.00250", "0.0100", "–", "–", "250"]
    assert rows[3] == ["no closure", "5", "0.250", "0.750", "2.500", "–", "–", "–", "62.5"]
    assert rows[4] == ["exact mean", "5", "0.0150", "0.0350", "0.0550", "0", "0.500", "–", "–"]


def test_statistics_of_a_rollout_stand_beside_those_of_the_truth_and_of_baselines(tmp_path):
    own = {"spectrum_error": 0.05, "enstrophy_flux_error": 0.02, "tail_error": 0.5, "stable_fraction": 1.0}
    results = make_results("physical", 0)
    leith = own | {"spectrum_error": 0.2, "relative_error": [0.0, *[0.25] * 5]}
    baselines = {"gradient": {"spectrum_error": None, "stable_fraction": 0.0}, "leith": leith}
    results["a_posteriori"] |= own | {"spectrum_error_floor": 0.03, "baselines": baselines}
    results["a_priori"] |= {"transfer_forward_truth": -2.0, "transfer_back_truth": 1.0}
    for measures in results["a_priori"]["by_steps"].values():
        measures |= {"r2": 0.9, "transfer_forward": -1.9, "transfer_back": 1.1}
    folder = write_run(tmp_path / "run", "score", "physical", results=results)
    config = json.loads((folder / "config.json").read_text())
    config["problem"]["kind"] = "les"
    (folder / "config.json").write_text(json.dumps(config))
    table = comparison_tables.as_text(rollout.statistics_table(models_of(folder)))
    assert table.head[5:] == ("error at 1", "error at 2", "error at 4", *(f"spread / error at {x}" for x in (1, 2, 4)))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["CS physical"] == ["0.0500", "0.0200", "0.500", "1", "0.00200", "0.00400", "0.00800", *["1.250"] * 3]
    assert rows["truth"][:4] == ["0.0300", "–", "–", "–"] and rows["leith"][:5] == [
        "0.200",
        *rows["CS physical"][1:4],
        "0.250",
    ]
    assert rows["gradient"] == ["–", "–", "–", "0", *["–"] * 6]
    compare.compare([folder], tmp_path / "out")
    page = (tmp_path / "out" / "results.md").read_text()
    assert "| taken / truth | given back / truth |" in page and "| 0.950 | 1.100 |" in page
    for of_paper in ("Claims of the paper", "Beside the published figures", "## Latent spaces", "| correlation |"):
        assert of_paper not in page


@pytest.mark.slow
def test_what_runs_say_of_themselves_is_escaped(tmp_path, unrendered):
    """A name that would open a tag, leave its cell or start another line."""
    run = write_run(tmp_path / "run", "flow_matching", "ga")
    fields, results = (json.loads((run / name).read_text()) for name in ("config.json", "results.json"))
    hostile = "<img src=x onerror=alert(1)>|a\nb"
    fields["experiment"] = hostile
    fields["transport"]["process"] = hostile
    results |= {"device": hostile, "revision": hostile}
    (run / "config.json").write_text(json.dumps(fields))
    (run / "results.json").write_text(json.dumps(results))
    compare.compare([run], tmp_path / "out")
    for name in ("compare.html", "results.md", "table.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "<img src=x" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text, name
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_a_setting_is_found_under_its_present_and_its_old_name(tmp_path):
    """Runs that differ only in what their version calls a field are one model."""
    paths = [write_run(tmp_path / name, "flow_matching", "ga", seed) for seed, name in enumerate(("old", "new"))]
    old, new = both = [json.loads((path / "config.json").read_text()) for path in paths]
    values = {}
    for present, former in results_lib.RENAMED.items():
        for config_of, name in ((old, former), (new, present)):
            for other in (former, present):
                section, field = other.split(".")
                config_of.get(section, {}).pop(field, None)
            section, field = name.split(".")
            values[present] = f"value of {present}"
            config_of.setdefault(section, {})[field] = values[present]
    for path, content_of in zip(paths, both, strict=True):
        (path / "config.json").write_text(json.dumps(content_of))
        assert {name: results_lib.setting(content_of, name) for name in values} == values
    assert results_lib.setting(new, "no.such") is None
    assert [len(model.runs) for model in models_of(*paths)] == [2]


@pytest.mark.slow
def test_an_earlier_comparison_among_the_runs_is_passed_over(tmp_path):
    write_run(tmp_path / "runs" / "a", "flow_matching", "ga")
    for _ in range(2):
        compare.compare(sorted((tmp_path / "runs").iterdir()), tmp_path / "runs" / "compare-small")
    assert "1 run of 1 model" in (tmp_path / "runs" / "compare-small" / "results.md").read_text()


@pytest.mark.slow
def test_a_study_alone_is_compared(tmp_path):
    stale = tmp_path / "out" / "figures" / "pareto.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier comparison")
    compare.compare([write_study(tmp_path / "study", 0.5)], tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out" / "figures").iterdir()] == ["data_efficiency"]
    assert "DM physical, published" in (tmp_path / "out" / "results.md").read_text()


def test_summaries_of_anybody_are_refused_in_one_line_or_stay_in_their_folder(tmp_path):
    whole = reading.summary(reading.of_folder(write_run(tmp_path / "run", "flow_matching", "ga")))
    file = tmp_path / "theirs.json"

    def changed(path: str, value) -> Path:
        found = json.loads(json.dumps(whole))
        *parts, last = path.split(".")
        inner = functools.reduce(dict.__getitem__, parts, found)
        inner[last] = value
        file.write_text(json.dumps(found))
        return file

    for path, value in (
        ("results.a_priori.by_steps", [1]),
        ("results.a_priori.by_steps.1", "x"),
        ("results.a_posteriori", "x"),
        ("results.a_posteriori.baselines", [1]),
        ("results.a_posteriori.coupling", [1]),
        ("results.a_posteriori.relative_error", [0.0, "x"]),
        ("config.seed", [1, 2]),
    ):
        message = refusal(reading.read, [changed(path, value)])
        assert str(file) in message and path.removeprefix("results.").removeprefix("config.") in message, path
    (run,), _ = reading.read([changed("config.experiment", "../../escaped/evil")])
    (named,) = summaries.named([run])
    assert "/" not in named.label and not named.label.startswith(".")


def test_what_stands_in_several_studies_counts_once_and_other_ensembles_stand_apart(tmp_path):
    one = write_holding(tmp_path / "one")
    again = write_holding(tmp_path / "again")
    study = json.loads((again / "study.json").read_text())
    study["points"] = [point for point in study["points"] if point["closure"] == "oracle"]
    study["points"] += [point | {"members": 8} for point in study["points"]]
    (again / "study.json").write_text(json.dumps(study))
    found = holding.lines(reading.read([one, again])[1])
    assert [line.closure for line in found].count("oracle (2 x 64, 2.0 time units)") == 2  # held, scaled
    assert all(len(points) == 1 for line in found if "oracle" in line.closure for points in line.by_period.values())


def test_each_preset_of_a_study_has_a_claim_of_its_own(tmp_path):
    folders = [write_study(tmp_path / name, gain) for name, gain in (("small", 0.5), ("medium", 1.0))]
    for folder in folders:
        study = json.loads((folder / "study.json").read_text())
        (folder / "study.json").write_text(json.dumps(study | {"preset": folder.name}))
    for order in (folders, folders[::-1]):
        found = claims.claims([], reading.read(order)[1])
        ours = [one for one in found if one.title.startswith("GA") and "training data" in one.title]
        said = {name: one.verdict for one in ours for name in ("small", "medium") if f"preset {name}" in one.sentence}
        assert len(ours) == 2 and said == {"small": "holds", "medium": "alike"}


@pytest.mark.slow
def test_a_study_of_holding_has_a_row_for_each_rule_and_period_and_no_claims(tmp_path):
    compare.compare([write_holding(tmp_path / "study")], tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out" / "figures").iterdir()] == ["holding"]
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Claims" not in text and "published" not in text
    rows = [line for line in text.splitlines() if line.startswith("| cs_ga") or line.startswith("| oracle")]
    assert rows[1].startswith("| cs_ga, held | 4 | 0.00500 | 0.011 ± 0.006") and rows[1].endswith(
        "| 0.00100 | 2 | 1 | 2 |"
    )
    assert rows[3].startswith("| cs_ga, scaled | 4 |") and rows[3].endswith("| 0.00100 | 1 | 1 | 2 |")
    assert len(rows) == 8 and rows[7].startswith("| oracle, scaled | 4 | 0.000500 | 0.00100 |")


@pytest.mark.slow
def test_a_study_of_sizes_has_a_row_for_each_latent_size_and_field(tmp_path):
    compare.compare([write_sizes(tmp_path / "study")], tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out" / "figures").iterdir()] == ["latent_size"]
    text = (tmp_path / "out" / "results.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "² |" in line]
    assert [row[:3] for row in rows] == [
        [f"{name}²", field, "2"] for name in ("recon, 16", "recon, 8", "GA, 8") for field in "wH"
    ]
    assert rows[3][3].startswith("0.12 ±") and rows[5][3].startswith("0.06 ±")  # of H at 8 points a side
    assert rows[1][4:8] == [
        "0.0100",
        "0.0100",
        "0.0200",
        "0.0200",
    ]  # what 0.99 lacks, twice; distortion, reconstruction
    assert (
        "passes 0.1 of distance ratio spread, of w or of H, at 8²: the whole runs have 8², the largest of these."
        in text
    )
    assert rows[1][8:] == ["–", "–", "–"] and rows[5][8:] == ["1.100", "–", "1.200"]  # samples of whole runs alone


def test_mistakes_are_refused_in_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = write_run(tmp_path / "good", "flow_matching", "ga")
    twin, eddies = (write_run(tmp_path / name, "flow_matching", "ga") for name in ("twin", "eddies"))
    fields = json.loads((eddies / "config.json").read_text())
    fields["problem"]["kind"] = "les"
    (eddies / "config.json").write_text(json.dumps(fields))
    unfinished, broken, listed, study = (write_run(tmp_path / name, "diffusion", "ga") for name in "abcd")
    (unfinished / "results.json").unlink()
    (broken / "results.json").write_text('{"a_priori": ')
    (listed / "config.json").write_text("[]")
    (study / "study.json").write_text('{"kind": "horoscope", "points": []}')
    (tmp_path / "file").write_text("")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "results").write_text("")
    for arguments, words in (
        ([], ["no work directory", "./launch.sh compare runs/*"]),
        ([good, unfinished], ["'" + str(unfinished) + "'", "no results.json", "finish"]),
        ([good, "nowhere"], ["'nowhere'", "no folder"]),
        ([broken], ["results.json", "is damaged", "restore"]),
        ([listed], ["config.json", "is damaged", "restore"]),
        ([study], ["horoscope", "expected data_efficiency"]),
        ([good, good], ["twice"]),
        ([good, twin], [str(good), str(twin), "same configuration and seed"]),
        ([good, eddies], [str(good), str(eddies), "of the problem kolmogorov", "of les", "compare them apart"]),
        ([good, "--output=file"], ["--output=file", "is a file"]),
        ([good, f"--output={twin}"], ["--output=", "folder of a run"]),
        ([good, "--docs=nested/page.md"], ["--docs=nested/page.md", "is a file"]),
        ([good, "--output=/proc/x"], ["--output=/proc/x can't be written", "a folder of yours"]),
        ([good, "--docs=/proc/x.md"], ["--docs=/proc/x.md can't be written", "a folder of yours"]),
        ([good, "--docs=page.html"], ["--docs=page.html", "Markdown"]),
        ([good, "--ouput=x"], ["--ouput=x", "--help"]),
    ):
        line = refused(capsys, *arguments)
        assert all(word in line for word in words), line
    (good / "arrays.npz").write_bytes(b"PK\x03\x04 cut")
    assert "arrays.npz" in refused(capsys, good)


@pytest.mark.slow
def test_launch_sh_knows_the_command(tmp_path):
    environment = os.environ | {"CLOSURE_JAX_PYTHON": sys.executable}
    found = subprocess.run(
        ["bash", REPOSITORY / "launch.sh", "compare", "nowhere"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 2 and found.stdout == "" and not list(tmp_path.iterdir())
    assert found.stderr.startswith("closure_jax: error: 'nowhere' is no folder")
