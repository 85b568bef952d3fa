"""Batches of neighbours: which examples stand beside each other, and what the geometry-aware term then does to a latent."""

import types

import numpy as np
import pytest
from helpers import built
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from closure_jax.closure import apply
from closure_jax.data import batches
from closure_jax.data.dataset import FIELDS, Dataset, Normalisation
from closure_jax.evaluation import latent_terms
from closure_jax.latent import distances, geometry_aware
from closure_jax.training import phase as phase_lib
from closure_jax.training import shared, two_phase
from closure_jax.workdir import WorkDir


def test_the_nearest_are_those_of_all_distances(monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 16)  # several blocks, the last of which reaches back
    points = np.random.default_rng(0).standard_normal((41, 5)).astype(np.float32) + 100
    between = cdist(points.astype(np.float64), points)
    expected = np.argsort(between, axis=1)[:, 1:8]
    np.testing.assert_array_equal(distances.nearest(points, 7), expected)
    assert distances.nearest(points[:3], 7).shape == (3, 2)


def test_half_of_a_batch_stands_beside_the_other_half():
    companions = np.arange(20)[:, None] * 100 + np.arange(3)  # no index of the 20: seen at once
    for size in (8, 9):
        rows = batches.paired_indices(3, 5, companions, size)
        half = size // 2
        assert len(rows) == size
        np.testing.assert_array_equal(rows[: size - half], batches.batch_indices(3, 5, 20, size - half))
        np.testing.assert_array_equal(rows[size - half :] // 100, rows[:half])
        np.testing.assert_array_equal(rows, batches.paired_indices(3, 5, companions, size))
    chosen = np.concatenate([batches.paired_indices(3, step, companions, 8)[4:] % 100 for step in range(60)])
    assert np.bincount(chosen).min() > 40  # 80 of each are expected


def test_what_a_term_did_is_counted_over_pairs_by_hand():
    rng = np.random.default_rng(0)
    fields, rows = rng.standard_normal((30, 4, 4)).astype(np.float32), rng.standard_normal((30, 9)).astype(np.float32)
    term = geometry_aware.GeometryAware(1.0, 0.7, 2.0, 1.5)
    batch = [rng.permutation(30)[:7] for _ in range(3)]
    encoders = (lambda x: 0.3 * x, lambda x: x**3)
    near, far, sums = [], [], np.zeros((2, 3))
    for chosen in batch:
        for i in range(7):
            for j in range(7):
                if i == j:
                    continue
                d = np.linalg.norm(rows[chosen[i]] - rows[chosen[j]]) / 2.0
                weight = np.exp(-0.7 * d)
                (near if abs(i - j) == 4 else far).append(weight)  # the fourth of seven stands alone
                for which, encode in enumerate(encoders):
                    latent = encode(fields[chosen])
                    d_latent = np.linalg.norm(latent[i] - latent[j]) / 1.5
                    sums[which] += weight * np.array([d * d, d * d_latent, d_latent * d_latent])
    left = sums[:, 0] - 2 * sums[:, 1] + sums[:, 2], sums[:, 0] - sums[:, 1] ** 2 / sums[:, 2]
    found = geometry_aware.effect(term, rows, fields, encoders, batch)
    expected = {
        "near_far_weight": np.mean(near) / np.mean(far),
        "term_ratio": left[0][0] / left[0][1],
        "term_ratio_best_factor": left[1][0] / left[1][1],
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert geometry_aware.effect(term, rows, fields, encoders[:1], [np.array([3, 4])])["near_far_weight"] is None
    alone = geometry_aware.effect(term, rows, fields, encoders[:1], batch)
    assert alone == {"near_far_weight": found["near_far_weight"], "term_ratio": None, "term_ratio_best_factor": None}


# --- a Swiss roll, lifted into fields --------------------------------------------------------------------------------

FIELD, LATENT = 16, 4
SHORT = ("data.resolution=16", "problem.resolution=16", f"autoencoder.latent_resolution={LATENT}", "network.modes=2")
SHORT += ("autoencoder.steps=130", "autoencoder.batch_size=32", "autoencoder.width=16", "autoencoder.blocks=2")
SHORT += ("training.log_every=65", "training.checkpoint_every=130")


@pytest.fixture(scope="module")
def roll(tmp_path_factory) -> tuple[Dataset, np.ndarray]:
    """Points of a rolled sheet as the weights of three waves, and their places on the sheet, (points, 2)."""
    rng, turns = np.random.default_rng(0), np.linspace(1.5 * np.pi, 4.5 * np.pi, 10_000)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(turns), turns[1:] * np.diff(turns)))])
    sheet = rng.uniform(0, 1, (1000, 2)) * (length[-1], 21.0)
    angle = np.interp(sheet[:, 0], length, turns)
    points = np.stack([angle * np.cos(angle), sheet[:, 1] - 10.5, angle * np.sin(angle)], axis=1)
    x, y = np.meshgrid(*[2 * np.pi * np.arange(FIELD) / FIELD] * 2, indexing="ij")
    fields = np.einsum("pk,kxy->pxy", points, np.stack([np.cos(x), np.sin(x + y), np.cos(y)]))
    fields = np.asarray(fields / fields.std(), np.float32).reshape(10, 100, FIELD, FIELD)
    split = {"train": fields, "validation": fields[:1], "test": fields[:1]}
    units = {field: Normalisation(0.0, 1.0) for field in FIELDS}
    file = tmp_path_factory.mktemp("roll") / "d.h5"
    return Dataset(np.arange(100.0), split, split, units, "c" * 64, file), sheet


def trained(roll: Dataset, folder, latent: str, *overrides: str) -> tuple[phase_lib.Run, types.SimpleNamespace]:
    """The run that trained the autoencoder of the vorticity, and the encoder as a closure has it."""
    experiment = built("tiny", "flow_matching", latent, *SHORT, *overrides)
    work = folder / f"run{len(list(folder.glob('run*')))}"
    work.mkdir()
    run = phase_lib.Run(experiment, roll, WorkDir(work), folder / "cache")
    phase = two_phase.autoencoder_phase(experiment, "vorticity")
    params = shared.once(phase, run, lambda: phase_lib.train(phase, run, {}))
    return run, types.SimpleNamespace(encoder=experiment.autoencoder_modules()[0], params={"vorticity": params})


def distortion(run: phase_lib.Run, model: types.SimpleNamespace, sheet: np.ndarray) -> float:
    """1 minus the rank correlation of latent distances with distances on the sheet."""
    latent = apply(model.encoder, model.params["vorticity"]["encoder"], run.fields("vorticity", "train")[:300])
    pairs = np.triu_indices(300, 1)
    of_latent, of_sheet = (cdist(x, x)[pairs] for x in (np.asarray(latent).reshape(300, -1), sheet[:300]))
    return 1 - spearmanr(of_latent, of_sheet)[0]


@pytest.mark.slow
def test_a_curved_manifold_is_unrolled_by_neighbours_and_not_by_the_published_constants(roll, tmp_path, monkeypatch):
    dataset, sheet = roll
    plain = distortion(*trained(dataset, tmp_path, "recon"), sheet)
    published = distortion(*trained(dataset, tmp_path, "ga", "latent.scale=published"), sheet)
    far = ("latent.pairs=neighbours", "latent.zeta=0.1", "latent.weight=1.0")  # weights reach over the sheet
    run, model = trained(dataset, tmp_path, "ga", *far)
    unrolled = distortion(run, model, sheet)
    assert plain > 0.6 and published == pytest.approx(plain, abs=0.01)
    assert unrolled < 0.35
    monkeypatch.setattr(latent_terms, "FIELDS", ("vorticity",))
    ((field, found),) = latent_terms.effects(run, model)
    assert field == "vorticity" and 1 < found["near_far_weight"] < 10
    assert found["term_ratio"] < 0.5 and found["term_ratio_best_factor"] < 0.7


@pytest.mark.slow
def test_neighbours_weigh_more_than_others_and_without_a_plain_latent_nothing_is_compared(roll, tmp_path, monkeypatch):
    dataset, _ = roll
    run, model = trained(dataset, tmp_path, "ga", "latent.pairs=neighbours", "autoencoder.steps=2")
    monkeypatch.setattr(latent_terms, "FIELDS", ("vorticity",))
    ((_, found),) = latent_terms.effects(run, model)
    assert found["near_far_weight"] > 10
    assert found["term_ratio"] is None and found["term_ratio_best_factor"] is None
    run, model = trained(dataset, tmp_path, "ga", "latent.pairs=random", "autoencoder.steps=2")
    assert not list(latent_terms.effects(run, model))
