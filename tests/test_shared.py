"""Autoencoders shared between experiments: when they are, when they are not, and that sharing changes nothing."""

import json

import jax
import numpy as np
import pytest

from closure_jax import config
from closure_jax.data.dataset import FIELDS, Dataset, Normalisation
from closure_jax.training import phases, shared
from closure_jax.training.regularisers import REGULARISERS
from closure_jax.workdir import WorkDir


def small_config(**changes):
    c = config.base("tiny", latent="mp")
    config.override(c, ["autoencoder.steps=4", "training.log_every=2", "training.checkpoint_every=2"])
    config.override(c, [f"{field}={value}" for field, value in changes.items()])
    c.experiment = "one"
    return c


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    rng = np.random.default_rng(0)
    fields = {
        split: rng.standard_normal((2, 12, 32, 32)).astype(np.float32) for split in ("train", "validation", "test")
    }
    one = Normalisation(0.0, 1.0)
    return Dataset(
        np.arange(12.0), fields, fields, {f: one for f in FIELDS}, "a" * 64, tmp_path_factory.mktemp("data") / "d.h5"
    )


def train(c, dataset, folder, cache, field="closure"):
    folder.mkdir(exist_ok=True)
    work = WorkDir(folder)
    return shared.once(c, field, dataset, work, cache, lambda: phases.train_autoencoder(c, field, dataset, work, cache))


def records(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


def test_a_second_run_takes_what_the_first_trained_and_says_so(dataset, tmp_path, capsys):
    first = train(small_config(), dataset, tmp_path / "first", tmp_path / "cache")
    assert "trained by" not in capsys.readouterr().out
    second_config = small_config()
    second_config.experiment = "two"
    second = train(second_config, dataset, tmp_path / "second", tmp_path / "cache")
    said = capsys.readouterr().out
    assert "autoencoder_closure: trained by one-tiny before, copied from" in said
    assert "already trained, 4 steps" in said
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert records(tmp_path / "first") == records(tmp_path / "second")
    alone = train(small_config(), dataset, tmp_path / "alone", tmp_path / "elsewhere")
    jax.tree.map(np.testing.assert_array_equal, first, alone)


def test_a_run_that_has_begun_goes_on_by_itself(dataset, tmp_path, capsys):
    train(small_config(), dataset, tmp_path / "first", tmp_path / "cache")
    begun = tmp_path / "begun"
    train(small_config(), dataset, begun, tmp_path / "elsewhere")
    before = records(begun)
    capsys.readouterr()
    train(small_config(), dataset, begun, tmp_path / "cache")
    assert "trained by" not in capsys.readouterr().out
    assert records(begun) == before


def test_an_export_cut_short_is_not_taken(dataset, tmp_path, capsys):
    c = small_config()
    folder = tmp_path / "cache" / "autoencoders" / f"closure-{shared.address(c, 'closure', dataset.checksum)}"
    partial = folder.with_name(folder.name + ".partial")
    (partial / "checkpoint" / "4").mkdir(parents=True)
    train(c, dataset, tmp_path / "first", tmp_path / "cache")
    assert "trained by" not in capsys.readouterr().out
    assert (folder / "trained_by.json").is_file() and not partial.exists()


def test_physical_space_shares_nothing(dataset, tmp_path):
    c = config.base("tiny", latent="physical")
    train(c, dataset, tmp_path / "first", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"autoencoder.steps": 6},
        {"autoencoder.width": 16},
        {"latent.mp.weight": 0.5},
        {"training.log_every": 1},
    ],
    ids=str,
)
def test_another_autoencoder_has_another_address(change):
    assert shared.address(small_config(), "closure", "d") != shared.address(small_config(**change), "closure", "d")


def test_what_does_not_make_the_autoencoder_does_not_change_its_address():
    changes = {"transport.steps": 7, "network.width": 16, "evaluation.states": 5, "latent.ga.weight": 0.5}
    other = small_config(**changes)
    other.transport.process, other.experiment = "diffusion", "other"
    assert shared.address(small_config(), "closure", "d") == shared.address(other, "closure", "d")


def test_data_field_and_code_change_the_address(monkeypatch, tmp_path):
    c = small_config()
    addresses = {
        shared.address(c, "closure", "d"),
        shared.address(c, "vorticity", "d"),
        shared.address(c, "closure", "e"),
    }
    source = tmp_path / "fork.py"
    for text in ("weight = 1", "weight = 2"):
        source.write_text(text + "\ndef term(config, field, fields, checksum, cache):\n    return None, None\n")
        namespace = {}
        exec(compile(source.read_text(), str(source), "exec"), namespace)
        monkeypatch.setitem(REGULARISERS, "mp", namespace["term"])
        addresses.add(shared.address(c, "closure", "d"))
    assert len(addresses) == 5
