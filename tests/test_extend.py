"""The code in docs/extend.md runs: its experiments build, and take a training step with what they bring."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from closure_jax import config, devices
from closure_jax.config import build
from closure_jax.evaluation.a_priori import MEASURES, ExactLaw, judge
from closure_jax.training import phases, steps
from closure_jax.training.regularisers import REGULARISERS
from closure_jax.training.state import TrainState
from closure_jax.transport.paths import PATHS

REPOSITORY = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "extend.md").read_text(), flags=re.S)
EXPERIMENTS = [block for block in BLOCKS if "def get_config" in block]


@pytest.fixture(autouse=True)
def registries():
    """What an example enters in a table is taken out again."""
    tables = (PATHS, REGULARISERS, build.FLOWS, build.AUTOENCODERS, MEASURES)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_there_is_an_example_of_each_kind():
    assert len(EXPERIMENTS) == len(BLOCKS) == 5
    tables = ("PATHS[", "REGULARISERS[", "FLOWS[", "AUTOENCODERS[", "MEASURES[")
    assert all(any(word in block for block in EXPERIMENTS) for word in tables)


@pytest.mark.parametrize("number", range(len(EXPERIMENTS)))
def test_an_example_experiment_builds_and_trains(number, tmp_path):
    file = tmp_path / "example.py"
    file.write_text(EXPERIMENTS[number])
    c = config.load(f"{file}:tiny")
    build.validate(c, phases.latent_spaces())
    assert np.abs(build.solver_flow(c).forcing()).max() > 0
    rng = np.random.default_rng(0)
    n, r = c.data.resolution, build.latent_shape(c)
    fields = rng.standard_normal((8, n, n)).astype(np.float32)
    checksum = "0" * 64
    c.latent.ga.knn = 3
    regulariser, extras = REGULARISERS[c.latent.kind](c, "closure", fields, checksum, tmp_path)
    cases = {
        ("REGULARISERS[", "AUTOENCODERS["): (
            steps.autoencoder_loss(*build.autoencoder_pair(c), regulariser),
            build.init_autoencoder(c, jax.random.key(0)),
            {"field": fields} | ({} if extras is None else {"extra": extras}),
        ),
        ("PATHS[",): (
            steps.transport_loss(build.network(c), build.path(c), c.network.prediction),
            build.init_network(c, jax.random.key(0)),
            {"condition": rng.standard_normal((8, *r), np.float32), "target": rng.standard_normal((8, *r), np.float32)},
        ),
    }
    samples = rng.standard_normal((4, 3, n, n)).astype(np.float32)
    measures = judge(samples, ExactLaw(samples[:, 0], samples.mean(axis=1), 1.0, np.ones(n // 2 + 1)))
    assert measures.keys() >= MEASURES.keys() and np.isfinite(list(measures.values())).all()
    trained = [case for tables, case in cases.items() if any(table in EXPERIMENTS[number] for table in tables)]
    for loss, params, batch in trained:  # what the example brings; other steps are those of every experiment
        optimiser = build.optimiser(c.transport)
        step = devices.data_parallel(steps.make_train_step(loss, optimiser, 0.9))
        state = devices.replicate(TrainState.create(params, optimiser))
        _, metrics = step(state, devices.split({**batch, "position": np.arange(8)}), jax.random.key(1))
        assert np.isfinite(metrics["loss"]).all()
