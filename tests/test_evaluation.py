"""The evaluation of any problem: one whose law nobody knows, with baselines of its own, and one without a solver."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built

from closure_jax import files
from closure_jax.coupling import Fresh
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.draw import NoClosure
from closure_jax.data.dataset import Dataset, Normalisation
from closure_jax.evaluation import a_posteriori, a_priori, evaluate, measures, metrics, reference
from closure_jax.physics import spectral
from closure_jax.problems import Kolmogorov
from closure_jax.problems.base import Law, Solver
from closure_jax.transport.conditional_mean import ConditionalMean
from closure_jax.workdir import WorkDir

N, DT, RATE, AMPLITUDE = 32, 0.1, 1.0, 0.5


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """H = -rate w + amplitude z, z one standard normal number for each field: its mean is random."""

    amplitude: float

    def noise(self, keys, vorticity):
        if self.amplitude == 0:
            return ()
        return jax.vmap(lambda key: jax.random.normal(key, ()))(keys)

    def draw(self, noise, vorticity):
        return self.mean(vorticity) + (self.amplitude * noise[:, None, None] if self.amplitude else 0)

    def mean(self, vorticity):
        return -RATE * vorticity


@dataclasses.dataclass(frozen=True)
class Toy:
    """dw/dt = H with the closure above, whose law is kept secret; data are given."""

    solved: bool = True
    stored_resolution: int = N
    dt: float = DT

    def reference(self):
        return None

    def solver(self):
        if not self.solved:
            return None
        return Solver(lambda w_hat, closure_hat: w_hat + DT * closure_hat, DT, spectral.make_grid(N, 1.0))

    def truth(self):
        return Coupled(self.solver().step, DT, Relaxation(AMPLITUDE), Fresh()) if self.solved else None

    def law(self, vorticity):
        return None

    def baselines(self, pairs):
        assert pairs.fields("closure", "train").shape[1:] == (N, N)
        return {"none": NoClosure(), "damping": Relaxation(0.0), "true": Relaxation(AMPLITUDE)}

    def identity(self):
        return {"problem": "toy"}

    def physics(self):
        return {}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Two trajectories to train, one to validate, two to test, of twelve snapshots."""
    rng = np.random.default_rng(0)
    shape = {"train": (2, 12, N, N), "validation": (1, 12, N, N), "test": (2, 12, N, N)}
    vorticity = {split: rng.standard_normal(size).astype(np.float32) for split, size in shape.items()}
    closure = {
        split: -RATE * w + AMPLITUDE * rng.standard_normal((*w.shape[:2], 1, 1)).astype(np.float32)
        for split, w in vorticity.items()
    }
    unit = {"vorticity": Normalisation(0.0, 1.0), "closure": Normalisation(0.0, 1.0)}
    return Dataset(0.1 * np.arange(1, 13), vorticity, closure, unit, "0" * 64, pathlib.Path("toy.h5"))


@pytest.fixture(scope="module")
def untrained():
    """(experiment, closure with initial weights), in physical space."""
    return _untrained("flow_matching", "evaluation.steps=1,2")


def _untrained(process: str, *more: str):
    experiment = built("tiny", process, "physical", "evaluation.states=4", "evaluation.samples=4", *more)
    params = {field: experiment.init_autoencoder(jax.random.key(1)) for field in ("vorticity", "closure")}
    params["network"] = experiment.init_network(jax.random.key(2))
    numbers = {"mean": jnp.float32(0), "std": jnp.float32(1)}
    scalings = dict.fromkeys(("vorticity", "closure", "latent_vorticity", "latent_closure"), numbers)
    return experiment, experiment.assemble({"params": params, "scalings": scalings})


@pytest.mark.slow
def test_a_problem_without_law_or_solver_is_judged_by_its_samples_alone(dataset, untrained, tmp_path):
    tables = {name: dict(getattr(measures, name)) for name in ("OF_SAMPLES", "OF_LAW", "OF_ROLLOUTS")}
    more = {"share_below": lambda samples, truth: float(np.mean(samples < truth[:, None]))}
    experiment, closure = untrained
    alone = dataclasses.replace(experiment, problem=Toy(solved=False), measures=more)
    results, arrays = evaluate.run(alone, dataset, closure, WorkDir(tmp_path))
    assert results["settings"]["measures"] == measures.VERSION
    assert tables == {name: getattr(measures, name) for name in tables}  # nothing is entered for good
    prior = results["a_priori"]
    assert prior["by_steps"].keys() == {"1", "2"}
    for found in prior["by_steps"].values():
        assert {"relative_error", "spread", "mean_squared_error", "crps", "share_below"} <= found.keys()
        assert not found.keys() & measures.OF_LAW.keys()
        assert 0 <= found["share_below"] <= 1 and found["crps"] > 0
        assert found["coverage"].keys() == {"50", "80", "90"} and found["energy_score"] > 0
    assert not prior.keys() & {"floor", "exact_standard_deviation"} and prior["noise_spectrum"].keys() == {"model"}
    assert not arrays.keys() & {"a_priori_exact_mean", "noise_spectrum_exact", "noise_standard_deviation"}
    assert arrays["a_priori_samples"].shape == (3, 2, N, N)
    assert "a_posteriori" not in results
    assert not any(name.startswith(("field_", "pdf_", "animation_")) for name in arrays)
    with pytest.raises(ValueError, match="expected a problem with a solver"):
        settings = reference.Settings(2, 4, 0.3, 1, 50)
        a_posteriori.evaluate(Toy(solved=False), Fresh(), dataset, NoClosure(), 0, settings)


@pytest.mark.slow
def test_a_number_of_steps_is_chosen_on_states_that_judge_nothing(dataset, untrained):
    _, closure = untrained
    w, other = dataset.vorticity, dataset.closure | {"validation": 3 + dataset.closure["validation"]}
    elsewhere = dataclasses.replace(dataset, vorticity=w | {"validation": 2 * w["validation"]}, closure=other)
    found = [a_priori.evaluate(Toy(solved=False), data, closure, 0, 4, 4, (1, 2))[0] for data in (dataset, elsewhere)]
    runs = [one["by_steps"] for one in found]
    assert found[0]["path"] == found[1]["path"]
    for one, moved in zip(*(run.values() for run in runs), strict=True):
        assert 0 < one["validation_crps"] < moved["validation_crps"]
        named = [name for name in one if "milliseconds" not in name and name != "validation_crps"]
        assert json.dumps([one[name] for name in named]) == json.dumps([moved[name] for name in named])  # nan is nan
    alone = a_priori.evaluate(Toy(solved=False), dataset, closure, 0, 4, 4, (2,))[0]["by_steps"]["2"]
    assert "validation_crps" not in alone  # nothing to choose
    assert alone["crps"] == pytest.approx(runs[0]["2"]["crps"], rel=1e-4)  # the samples are those of before


@pytest.mark.slow
def test_a_known_law_adds_its_measures_and_its_own_draws_have_perfect_ones():
    states, count = 6, 150
    rng = np.random.default_rng(1)
    mean = rng.standard_normal((states, N, N))
    truth = mean + 0.1 * rng.standard_normal(mean.shape)
    samples = mean[:, None] + 0.1 * rng.standard_normal((states, count, N, N))
    index = np.fft.fftfreq(N, 1 / N)
    shells = np.bincount(np.rint(np.hypot(index[:, None], index[None, :])).astype(int).ravel())[: N // 2 + 1]
    law = Law(mean, 0.1, 0.1**2 * shells / N**2)
    found = measures.judge(samples, truth, mean, measures.JudgingLaw(law, truth), {})
    without = measures.OF_SAMPLES.keys() | measures.OF_STATES.keys()
    assert found.keys() == without | measures.OF_LAW.keys()
    # 6,144 points: floor and CRPS are the same draws in both, so that the ratios differ from 1 by the samples' noise alone
    assert found["over_floor"] == pytest.approx(1, abs=5 / np.sqrt(count * states * N * N))
    assert found["crps_ratio"] == pytest.approx(1, abs=0.01)
    assert found["spread_ratio"] == pytest.approx(1, abs=5 / np.sqrt(2 * states * count * N * N))
    assert 0 <= found["excess_error"] < 5 * 0.1 / np.sqrt(count) * (2 / N**2) ** 0.25 / np.sqrt(states)
    assert found["spread_over_error"] == pytest.approx(1, abs=5 / np.sqrt(2 * states * N * N))
    for level, covered in found["coverage"].items():
        assert covered == pytest.approx(int(level) / 100, abs=5 * 0.5 / np.sqrt(states * N * N))
    np.testing.assert_allclose(found["rank_histogram"]["share"], 0.1, atol=5 * 0.3 / np.sqrt(states * N * N))
    np.testing.assert_allclose(found["deviation_by_shell"][1:], np.sqrt(law.spectrum)[1:], rtol=0.05)
    assert found["noise_spectrum_error"] < 0.02
    assert measures.judge(samples, truth, mean, None, {}).keys() == without


@pytest.mark.slow
def test_a_closure_without_noise_is_not_said_to_be_held(dataset, tmp_path):
    experiment, closure = _untrained("score", "evaluation.steps=1")
    assert experiment.config.coupling.kind != "fresh"
    mean = closure.replace(transport=ConditionalMean())
    results, _ = evaluate.run(dataclasses.replace(experiment, problem=Toy()), dataset, mean, WorkDir(tmp_path))
    assert results["a_posteriori"]["coupling"]["kind"] == "fresh"


@pytest.mark.slow
def test_baselines_are_judged_as_the_model_is(dataset):
    settings = reference.Settings(states=2, members=64, start=0.3, units=2, chunk=50)
    draw, seed = Relaxation(AMPLITUDE), 4
    more = {"final_size": lambda fields, truth, problem: [float(np.abs(one).max()) for one in fields]}
    results, arrays = a_posteriori.evaluate(Toy(), Fresh(), dataset, draw, seed, settings, measures=more)
    assert results["start_time"] == pytest.approx(0.3) and results["time"] == [0, 1, 2] and results["hold"] == 1
    assert results["coupling"] == {"white_noise": 0.0}
    none, damping, true = (results["baselines"][name] for name in ("none", "damping", "true"))
    for name in (*measures.OF_ROLLOUTS, *more):
        assert all(len(one[name]) == 3 for one in (results, none, damping, true)), name
    assert not measures.OF_SPREAD.keys() & (none.keys() | damping.keys())
    assert results["relative_error_no_closure"] == none["relative_error"]
    assert (none["members"], damping["members"], true["members"]) == (1, 1, 64)
    # the mean of a field gets dt^2 amplitude^2 (1 + r^2 + ... ) of variance, r = 1 - rate dt, over 10 and 20 steps
    r = 1 - RATE * DT
    expected = [DT * AMPLITUDE * np.sqrt((1 - r ** (2 * steps)) / (1 - r**2)) for steps in (0, 10, 20)]
    for one in (results["spread"], results["spread_truth"], true["spread"]):
        np.testing.assert_allclose(one, expected, rtol=5 / np.sqrt(2 * 2 * 63))
    assert damping["spread"] == none["spread"] == [0, 0, 0]
    for one in (results, true):  # variances of 2 states with 63 degrees of freedom each, and as many for the error
        np.testing.assert_allclose(one["spread_over_error"][1:], 1, atol=5 / np.sqrt(2 * 63))
        for level, covered in one["coverage"].items():
            p = int(level) / 100  # 128 true numbers among as many members
            np.testing.assert_allclose(covered[1:], p, atol=5 * np.sqrt(p * (1 - p) / 64))
        stored = json.loads(json.dumps(files.plain(one), allow_nan=False))  # all members are one at the start
        assert [stored["spread_over_error"][0], *(covered[0] for covered in stored["coverage"].values())] == [None] * 4
    start = dataset.vorticity["test"][:2, 2]
    decayed = start * r**20
    # two means of 64 numbers, of which the field has one at each point, against the norm of what is left of the start
    size = np.mean([N * expected[-1] / np.linalg.norm(one * r**20) for one in start])
    assert results["relative_error_floor"][0] == 0
    assert 0 < results["relative_error_floor"][-1] < 5 * np.sqrt(2 / 64) * size
    np.testing.assert_allclose(arrays["field_no_closure"][-1], start[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays["field_damping"][-1], decayed[0], rtol=1e-4, atol=1e-6)
    # a second true ensemble is a normal number for each state, judged by others of its law: its deviation over root pi
    for one in (results["crps_floor"], true["crps"]):
        np.testing.assert_allclose(one[1:], np.array(expected[1:]) / np.sqrt(np.pi), rtol=0.2)
    # members that agree score their mean distance to a true member, |normal| of the spread
    np.testing.assert_allclose(damping["crps"][1:], np.array(expected[1:]) * np.sqrt(2 / np.pi), rtol=0.3)
    assert none["crps"][-1] > 5 * damping["crps"][-1] > 5 * results["crps"][-1] > 0
    for kind in ("field", "energy", "enstrophy", "pdf"):
        assert {f"{kind}_{name}" for name in ("truth", "model", "no_closure", "damping", "true")} <= arrays.keys()


@pytest.mark.slow
def test_what_no_model_changes_is_run_once_for_all_runs_on_the_data(dataset, tmp_path, monkeypatch, capsys):
    settings = reference.Settings(states=2, members=4, start=0.3, units=2, chunk=50, turnovers=0.5)
    run, seen = reference._run, []

    def counted(dynamics, initial, members, keys, *more):
        seen.extend(keys)
        return run(dynamics, initial, members, keys, *more)

    monkeypatch.setattr(reference, "_run", counted)

    def judged(seed, identity="data", settings=settings):
        seen.clear()
        shared = reference.Shared(tmp_path / "ensembles", identity, 0)
        results, arrays = a_posteriori.evaluate(
            Toy(), Fresh(), dataset, Relaxation(AMPLITUDE), seed, settings, shared=shared
        )
        own = ("spread", "seconds_per_time_unit")
        return files.plain({name: value for name, value in results.items() if name not in own}), arrays, list(seen)

    of_model = ["model ensemble", "model ensemble endured", "baseline true", "baseline true endured"]
    of_none = [f"baseline {name}{more}" for name in ("none", "damping") for more in ("", " endured")]
    first, arrays, ran = judged(0)
    assert sorted(ran) == sorted([*of_model, *of_none, "true ensemble", "second true ensemble"])
    assert first["stability"] == {"turnovers": 0.5, "time_units": 4, "runs": 8}
    assert first["stable_fraction"] == first["baselines"]["none"]["stable_fraction"] == 1
    again, others, ran = judged(0)
    assert ran == of_model and capsys.readouterr().out == ""
    for name in ("relative_error", "spread_truth", "spectrum_error", "tail_error_floor", "stable_fraction"):
        assert again[name] == first[name], name
    assert again["baselines"]["damping"] == first["baselines"]["damping"]
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, others[name])
    other, _, ran = judged(1)  # another model: the truth stays
    assert ran == of_model
    assert other["spread_truth"] == first["spread_truth"] and other["relative_error"] != first["relative_error"]
    # other data, another length: made anew, the closures without noise for the other length alone
    assert "true ensemble" in judged(0, "other data")[2]
    longer = judged(0, settings=dataclasses.replace(settings, units=3))[2]
    assert {"true ensemble", "baseline none"} <= set(longer)
    more = judged(0, settings=dataclasses.replace(settings, members=5))[2]
    assert "true ensemble" in more and "baseline none" not in more
    # a damaged one
    for file in (tmp_path / "ensembles").glob("true_ensemble-*.h5"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(bytes(content))
    capsys.readouterr()
    mended, _, ran = judged(0)
    assert "true ensemble" in ran and "is damaged" in capsys.readouterr().out
    assert mended["spread_truth"] == first["spread_truth"]


@pytest.mark.slow
def test_the_kolmogorov_law_is_that_of_its_exact_closure(dataset):
    problem = Kolmogorov(stored_resolution=16, resolution=16, noise_sigma=5e-3)
    w = np.random.default_rng(2).standard_normal((2, 16, 16)).astype(np.float32)
    law, exact, count = problem.law(w), problem.exact(), 500
    keys = jax.random.split(jax.random.key(0), count)
    draws = []
    for state in w:
        states = jnp.broadcast_to(jnp.asarray(state), (count, 16, 16))
        draws.append(np.asarray(exact.draw(exact.noise(keys, states), states)))
    samples = np.stack(draws)
    error = np.sqrt(2 * np.pi * 0.005 / (2 * count))  # 1 / (2 pi alpha) independent modes a field
    assert metrics.rms_spread(samples) / law.deviation == pytest.approx(1, abs=5 * error / np.sqrt(2))
    at_points = (samples.mean(axis=1) - law.mean) * np.sqrt(count) / law.deviation
    assert np.abs(at_points).max() < 6
    np.testing.assert_allclose(exact.mean(jnp.asarray(w)), law.mean, rtol=1e-5)
    mirrored = exact.draw(-exact.noise(keys, states), states)  # noise is symmetric: its mirror image is a draw, too
    np.testing.assert_allclose(mirrored - law.mean[1], law.mean[1] - samples[1], atol=1e-4 * np.abs(samples).max())
    baselines = problem.baselines(dataset)
    np.testing.assert_allclose(baselines["exact_mean"].draw((), jnp.asarray(w)), law.mean, rtol=1e-5)
    assert not np.any(baselines["none"].draw((), jnp.asarray(w)))
