"""Latent geometry: each measure against a case worked by hand, an invariance, or a known space."""

import dataclasses
import functools
import math
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built

from closure_jax.data.dataset import Dataset, Normalisation
from closure_jax.evaluation import latent_geometry as geometry
from closure_jax.evaluation import topology

MEASURES = {
    *("distance_correlation", "distance_rank_correlation", "distance_ratio_spread", "trustworthiness", "continuity"),
    *("condition_number", "distortion", "effective_rank"),
}


def cloud(count: int = 60, size: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size))


def line(*places: float) -> np.ndarray:
    """Distances of points on a line."""
    return np.abs(np.subtract.outer(places, places)).astype(float)


# --- distances -------------------------------------------------------------------------------------------------------


def test_distances_are_root_mean_squares_over_entries():
    points = cloud(20, 12).reshape(20, 3, 4)
    expected = [[np.sqrt(np.mean((a - b) ** 2)) for b in points] for a in points]
    np.testing.assert_allclose(geometry.pairwise_distances(points), expected, atol=1e-12)


def test_near_points_far_from_the_origin_keep_their_distance():
    points = 10 + 1e-6 * cloud(5, 4096)
    expected = np.sqrt(np.mean((points[0] - points[1]) ** 2))
    assert geometry.pairwise_distances(points)[0, 1] == pytest.approx(expected, rel=1e-6)


def test_a_similarity_is_perfect_at_any_scale():
    points = cloud()
    turned = 7.0 * points @ np.linalg.qr(cloud(5, 5, seed=1))[0]
    measures = geometry.distance_measures(*map(geometry.pairwise_distances, (points, turned)), neighbours=10)
    assert measures.pop("distance_ratio_spread") == pytest.approx(0, abs=1e-7)
    assert all(value == pytest.approx(1, abs=1e-9) for value in measures.values())


def test_monotone_distances_keep_their_ranks_only():
    distances = geometry.pairwise_distances(cloud())
    measures = geometry.distance_measures(distances, distances**3, neighbours=10)
    assert measures["distance_rank_correlation"] == pytest.approx(1)
    assert measures["trustworthiness"] == measures["continuity"] == 1
    assert measures["distance_correlation"] < 0.97
    upper = distances[np.triu_indices(60, 1)]
    assert measures["distance_ratio_spread"] == pytest.approx(np.std(2 * np.log(upper)))


def test_distances_of_unrelated_clouds_do_not_correlate():
    pair = [geometry.pairwise_distances(cloud(300, 5, seed)) for seed in (0, 1)]
    measures = geometry.distance_measures(*pair, neighbours=10)
    assert abs(measures["distance_correlation"]) < 0.1 and abs(measures["distance_rank_correlation"]) < 0.1
    assert measures["trustworthiness"] == pytest.approx(0.5, abs=0.05)  # ranks of chance


def test_a_collapsed_latent_is_measured_without_a_warning(recwarn):
    full = geometry.pairwise_distances(cloud())
    measures = geometry.distance_measures(full, np.zeros_like(full), neighbours=10)
    assert math.isnan(measures["distance_correlation"]) and not math.isfinite(measures["distance_ratio_spread"])
    assert not recwarn.list


# --- neighbourhoods --------------------------------------------------------------------------------------------------


def test_trustworthiness_and_continuity_worked_by_hand():
    """Four points a, b, c, d at k = 1, where 2 / (N k (2N - 3k - 1)) = 1/8.

    Nearest in the latent space: a-c, b-d, c-a, d-c, of ranks 2, 3, 2, 1 in the full space: 1 - (1 + 2 + 1 + 0) / 8.
    Nearest in the full space: a-b, b-a, c-b, d-c, of ranks 3, 3, 3, 1 in the latent space: 1 - (2 + 2 + 2 + 0) / 8.
    """
    full, latent = line(0, 1, 3, 7), line(0, 10, 1, 4)
    assert geometry.trustworthiness(full, latent, 1) == pytest.approx(1 / 2)
    assert geometry.trustworthiness(latent, full, 1) == pytest.approx(1 / 4)


def test_trustworthiness_is_that_of_scikit_learn():
    for neighbours in (1, 5, 10):
        manifold = pytest.importorskip("sklearn.manifold")
        full = cloud(50, 6)
        latent = full[:, :2]
        expected = manifold.trustworthiness(full, latent, n_neighbors=neighbours)
        pair = geometry.pairwise_distances(full), geometry.pairwise_distances(latent)
        assert geometry.trustworthiness(*pair, neighbours) == pytest.approx(expected)


def test_smoothness_is_the_slope_between_states_of_different_trajectories():
    """The nearest state at all is always of the same trajectory, and there H jumps."""
    vorticity, trajectory = np.array([0.0, 0.1, 1.0, 1.1, 2.0, 2.1]), np.array([0, 0, 1, 1, 2, 2])
    value = 3 * vorticity + 50 * np.array(
        [0, 1, 1, 0, 0, 1]
    )  # b and c, d and e: neighbours across, 50 apart from a and f
    pairs = {0: 2, 1: 2, 2: 1, 3: 4, 4: 3, 5: 3}
    expected = np.mean([abs(value[i] - value[j]) / abs(vorticity[i] - vorticity[j]) for i, j in pairs.items()])
    found = geometry.conditional_smoothness(line(*vorticity), line(*value), trajectory)
    assert found == pytest.approx(expected)
    assert geometry.conditional_smoothness(line(*vorticity), line(*(3 * vorticity)), trajectory) == pytest.approx(3)


def test_smoothness_of_a_single_trajectory_is_unknown():
    assert math.isnan(geometry.conditional_smoothness(line(0, 1, 3), line(0, 1, 3), np.zeros(3)))


# --- the decoder -----------------------------------------------------------------------------------------------------


def test_singular_values_are_those_of_the_derivative(x64):
    matrix, z = jnp.asarray(cloud(7, 4)), cloud(3, 4, seed=2)
    found = geometry.singular_values(lambda m, z: jnp.sin(m @ z), matrix, z)
    for values, point in zip(found, z, strict=True):
        jacobian = np.cos(matrix @ point)[:, None] * np.asarray(matrix)
        np.testing.assert_allclose(values, np.linalg.svd(jacobian, compute_uv=False), rtol=1e-10)


class Stretch(nn.Module):
    """(batch, r, r, 1) -> (batch, n, n): latent entries times fixed factors, then zeros."""

    resolution: int
    factors: tuple[float, ...]

    @nn.compact
    def __call__(self, latent):
        scale = self.param("scale", lambda _: jnp.asarray(self.factors))
        flat = latent.reshape(len(latent), -1) * scale
        padded = jnp.pad(flat, ((0, 0), (0, self.resolution**2 - flat.shape[1])))
        return padded.reshape(-1, self.resolution, self.resolution)


@functools.cache
def untrained(latent: str = "ga") -> tuple:
    """(experiment, model) at `tiny` with initial weights."""
    experiment = built("tiny", "flow_matching", latent)
    params = {field: experiment.init_autoencoder(jax.random.key(i)) for i, field in enumerate(("vorticity", "closure"))}
    params["network"] = {}  # not asked for
    numbers = {"mean": jnp.float32(0.1), "std": jnp.float32(0.5)}
    scalings = dict.fromkeys(("vorticity", "closure", "latent_vorticity", "latent_closure"), numbers)
    return experiment, experiment.assemble({"params": params, "scalings": scalings})


def stretched(factors: np.ndarray):
    experiment, model = untrained()
    decoder = Stretch(experiment.data.resolution, tuple(factors.tolist()))
    latents = np.zeros((2, *experiment.latent_shape), np.float32)
    params = decoder.init(jax.random.key(0), latents)
    return model.replace(decoder=decoder, params=model.params | {"closure": {"decoder": params}}), latents


def test_condition_number_distortion_and_rank_of_a_known_decoder():
    factors = np.exp(np.linspace(-1, 2, 64))
    measures = geometry.decoder_measures(*_with_field(stretched(factors)))
    assert measures["condition_number"] == pytest.approx(math.exp(3), rel=1e-4)
    assert measures["distortion"] == pytest.approx(np.std(np.linspace(-1, 2, 64)), rel=1e-4)
    share = factors / factors.sum()
    assert measures["effective_rank"] == pytest.approx(math.exp(-np.sum(share * np.log(share))), rel=1e-4)


def test_one_direction_that_vanishes_rules_the_condition_number_only():
    factors = np.ones(64)
    factors[0] = 0
    measures = geometry.decoder_measures(*_with_field(stretched(factors)))
    assert 1e6 < measures["condition_number"] < 1e8  # as far as float32 can tell
    assert measures["distortion"] < 2.1 and measures["effective_rank"] == pytest.approx(63, rel=1e-3)


def _with_field(case):
    model, latents = case
    return model, "closure", latents


# --- topology --------------------------------------------------------------------------------------------------------


def circle(count: int, radius: float = 1.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(count) / count
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def test_a_circle_has_one_loop_born_at_a_side_and_dead_at_the_triangle():
    """n points, n a multiple of 3: the loop closes at the side 2 sin(pi / n) and fills at the triangle's side, sqrt 3."""
    pytest.importorskip("ripser")
    distances = geometry.pairwise_distances(circle(60)) * math.sqrt(2)  # per entry; two entries
    classes = topology.persistence(distances) * (1, *2 * [np.median(distances[np.triu_indices(60, 1)])])
    loops, components = classes[classes[:, 0] == 1], classes[classes[:, 0] == 0]
    np.testing.assert_allclose(loops, [[1, 2 * math.sin(math.pi / 60), math.sqrt(3)]], rtol=1e-5)
    assert len(components) == 59  # one never dies
    np.testing.assert_allclose(components[:, 2], 2 * math.sin(math.pi / 60), rtol=1e-5)


def test_scaled_copies_have_the_same_topology_and_a_disc_has_not():
    pytest.importorskip("ripser"), pytest.importorskip("persim")
    ring = geometry.pairwise_distances(circle(60))
    measures, diagrams = topology.compare(ring, 7 * ring)
    assert all(value == pytest.approx(0, abs=1e-5) for name, value in measures.items() if "longest" not in name)
    np.testing.assert_allclose(diagrams["full"], diagrams["latent"], atol=1e-5)
    disc = geometry.pairwise_distances(circle(60) * np.sqrt(np.linspace(0.01, 1, 60))[np.arange(60) * 23 % 60, None])
    measures, _ = topology.compare(ring, disc)
    assert measures["longest_h1_full"] > 3 * measures["longest_h1_latent"]
    assert measures["bottleneck_h1"] > 0.3 * measures["longest_h1_full"]


def test_large_clouds_are_thinned():
    pytest.importorskip("ripser")
    classes = topology.persistence(geometry.pairwise_distances(cloud(450, 2)))
    assert np.sum(classes[:, 0] == 0) == 199


def test_without_the_packages_the_result_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "persim", None)  # what an import of a package that is not there finds
    distances = geometry.pairwise_distances(cloud())
    assert topology.compare(distances, distances) == ({"missing": topology.MISSING}, {})


# --- the whole -------------------------------------------------------------------------------------------------------


def flow_data(trajectories: int = 3, snapshots: int = 20, n: int = 32) -> Dataset:
    """Smooth fields that wander; the closure is a function of the vorticity."""
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None, :])
    steps = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=(trajectories, snapshots, n, n))) * np.exp(-((k / 3) ** 2)), (n, n)
    )
    vorticity = {"test": np.cumsum(steps, axis=1).astype(np.float32)}
    fields = {"vorticity": vorticity, "closure": {"test": np.roll(vorticity["test"], 1, axis=2) ** 2}}
    norm = {name: Normalisation(0.1, 0.5) for name in fields}
    return Dataset(np.linspace(1, 3, snapshots), **fields, normalisation=norm, checksum="", path=pathlib.Path())


def test_physical_space_is_perfect():
    results, _ = geometry.evaluate(*_arguments("physical"))
    for field in ("vorticity", "closure"):
        measures = results[field]
        assert measures["condition_number"] == 1 and measures["distortion"] == 0
        assert measures["effective_rank"] == 32 * 32
        assert measures["distance_ratio_spread"] < 1e-4
        for name in ("distance_correlation", "distance_rank_correlation", "trustworthiness", "continuity"):
            assert measures[name] == pytest.approx(1, abs=1e-5)
    assert results["conditional_smoothness"] == pytest.approx(1, abs=1e-4)


def test_a_latent_space_has_every_measure_and_array():
    results, arrays = geometry.evaluate(*_arguments("ga"))
    assert results["states"] == 24 and results["neighbours"] == 6
    for field in ("vorticity", "closure"):
        assert results[field].keys() == MEASURES
        assert np.isfinite(list(results[field].values())).all()
        assert results[field]["condition_number"] >= 1 and results[field]["effective_rank"] <= 64
        assert arrays[f"geometry_{field}_distances"].shape == (2, 24 * 23 // 2)
        for space in ("full", "latent"):
            assert arrays[f"geometry_{field}_embedding_{space}"].shape == (3, 8, 2)
        assert ((arrays[f"geometry_{field}_explained"] > 0) & (arrays[f"geometry_{field}_explained"] <= 1)).all()
    assert results["conditional_smoothness"] > 0
    assert arrays["geometry_time"].shape == (8,)


def test_smoothness_does_not_depend_on_the_unit_of_a_latent():
    dataset, model, states = _arguments("recon")
    found = geometry.evaluate(dataset, model, states)[0]
    unit = model.scalings["latent_vorticity"]
    stretched = model.scalings | {"latent_vorticity": dataclasses.replace(unit, std=7 * unit.std)}
    stretched = model.replace(scalings=stretched)
    some = dataset.vorticity["test"][0, :2]
    np.testing.assert_allclose(7 * stretched.encode(some), model.encode(some), rtol=1e-5)
    other = geometry.evaluate(dataset, stretched, states)[0]
    assert other["conditional_smoothness"] == pytest.approx(found["conditional_smoothness"], rel=1e-4)


def test_latents_that_are_not_finite_are_said_to_be():
    dataset, model, states = _arguments("ga")
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), model.params["closure"])
    results = geometry.evaluate(dataset, model.replace(params=model.params | {"closure": broken}), states)
    assert results == ({"missing": "latents of the closure are not finite"}, {})


def test_too_few_fields_are_said_to_be():
    _, model, states = _arguments("physical")
    results, arrays = geometry.evaluate(flow_data(trajectories=1, snapshots=7), model, states)
    assert "7 test fields" in results["missing"] and not arrays


def test_states_are_spread_over_all_trajectories_and_times():
    for trajectories, snapshots, count in ((8, 200, 400), (10, 200, 8), (1, 40, 24), (2, 5, 400)):
        rows, columns = geometry.spread(trajectories, snapshots, count)
        assert 0.7 * min(count, trajectories * snapshots) <= len(rows) * len(columns) <= count
        assert rows[0] == 0 and rows[-1] == trajectories - 1 and len(set(rows)) == len(rows)
        assert columns[0] == 0 and columns[-1] == snapshots - 1 and np.ptp(np.diff(columns)) <= 1


def _arguments(latent: str) -> tuple:
    """(data, model, how many states)."""
    experiment, model = untrained(latent)
    return flow_data(), model, experiment.evaluation.geometry_states
