"""Autoencoders shared between experiments: when they are, when they are not, and that sharing changes nothing."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import built, configured

import closure_jax
from closure_jax import config
from closure_jax.data.dataset import FIELDS, Dataset, Normalisation
from closure_jax.errors import UserError
from closure_jax.latent.spaces import MetricPreserving
from closure_jax.training import phase as phase_lib
from closure_jax.training import programs, shared, two_phase
from closure_jax.workdir import WorkDir

SHORT = ("autoencoder.steps=4", "training.log_every=2", "training.checkpoint_every=2")


def small(name: str = "one", **changes) -> config.Experiment:
    """A metric-preserving experiment of four steps."""
    c = configured("tiny", "flow_matching", "mp", *SHORT, *(f"{field}={value}" for field, value in changes.items()))
    c.experiment = name
    return config.build(c)


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


def train(experiment, dataset, folder, cache):
    """The closure's autoencoder, trained or taken from the cache."""
    folder.mkdir(exist_ok=True)
    run = phase_lib.Run(experiment, dataset, WorkDir(folder), cache)
    phase = two_phase.autoencoder_phase(experiment, "closure")
    return shared.once(phase, run, lambda: phase_lib.train(phase, run, {}))


def records(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


@pytest.fixture(scope="module")
def first(dataset, tmp_path_factory):
    """(parameters, folder, cache) of a run that trained for itself; tests copy the folder, and leave the cache alone."""
    home = tmp_path_factory.mktemp("first")
    return train(small(), dataset, home / "run", home / "cache"), home / "run", home / "cache"


@pytest.mark.slow
def test_a_second_run_takes_what_the_first_trained_and_says_so(dataset, first, tmp_path, capsys):
    trained, folder, cache = first
    capsys.readouterr()
    second = train(small("two"), dataset, tmp_path / "second", cache)
    said = capsys.readouterr().out
    assert "autoencoder_closure: trained by one-tiny before, copied from" in said
    assert "already trained, 4 steps" in said
    jax.tree.map(np.testing.assert_array_equal, trained, second)
    assert records(folder) == records(tmp_path / "second")


@pytest.mark.slow
def test_what_was_left_and_is_damaged_is_trained_anew(dataset, first, tmp_path, capsys):
    trained, _, cache = first
    shutil.copytree(cache, tmp_path / "cache")
    (manifest,) = (tmp_path / "cache").rglob("checkpoint/4/default/manifest.ocdbt")
    content = bytearray(manifest.read_bytes())
    content[len(content) // 2] ^= 1
    manifest.write_bytes(content)
    for name, word in (("anew", "is damaged, trains anew"), ("after", "trained by anew-tiny before")):
        capsys.readouterr()
        again = train(small(name), dataset, tmp_path / name, tmp_path / "cache")
        assert word in capsys.readouterr().out
        jax.tree.map(np.testing.assert_array_equal, trained, again)


@pytest.mark.slow
def test_a_finished_closure_that_is_damaged_is_made_again_from_its_phases(dataset, first, tmp_path, capsys):
    experiment, work = small(**{"transport.steps": 2}), WorkDir(tmp_path / "run")
    work.path.mkdir()

    def finish():
        return programs.train(phase_lib.Run(experiment, dataset, work, first[2])), capsys.readouterr().out

    def damage():
        for file in (work.path / "checkpoints" / "closure" / "0" / "default").glob("d/*"):
            file.write_bytes(b"")

    model, _ = finish()
    damage()
    again, said = finish()
    assert "can't be read: it is made again from the checkpoints of its phases" in said
    jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
    assert "made again" not in finish()[1]
    damage()
    shutil.rmtree(work.path / "checkpoints" / "transport")
    with pytest.raises(UserError, match="checkpoint 0 of 'closure' .* can't be read"):
        finish()


@pytest.mark.slow
def test_a_run_that_has_begun_goes_on_by_itself(dataset, first, tmp_path, capsys):
    begun = tmp_path / "begun"
    alone = train(small(), dataset, begun, tmp_path / "elsewhere")
    jax.tree.map(np.testing.assert_array_equal, first[0], alone)
    before = records(begun)
    train(small(), dataset, begun, first[2])
    assert "trained by" not in capsys.readouterr().out
    assert records(begun) == before


@pytest.mark.slow
def test_an_export_cut_short_is_not_taken(dataset, first, tmp_path, capsys):
    shutil.copytree(first[1], tmp_path / "run")
    folder = tmp_path / "cache" / "autoencoders" / f"closure-{address(small(), checksum=dataset.checksum)}"
    partial = folder.with_name(folder.name + ".partial")
    (partial / "checkpoint" / "4").mkdir(parents=True)
    capsys.readouterr()
    train(small(), dataset, tmp_path / "run", tmp_path / "cache")
    assert "trained by" not in capsys.readouterr().out
    assert (folder / "trained_by.json").is_file() and not partial.exists()


def test_physical_space_shares_nothing(dataset, tmp_path):
    train(built("tiny", "flow_matching", "physical"), dataset, tmp_path / "first", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


# --- addresses -------------------------------------------------------------------------------------------------------


def address(experiment, field="closure", checksum="d") -> str:
    return shared.address(two_phase.autoencoder_phase(experiment, field), experiment, checksum)


@dataclasses.dataclass(frozen=True)
class Weighted(MetricPreserving):
    """A fork's latent space, whose term is not what its fields say.

    Attributes:
      factor: of the latents' squares.
    """

    factor: float = 1.0

    def term(self, fields, setting):
        """`factor` times the sum of squares."""
        return lambda latent, extra: (self.factor * (latent**2).sum(), {}), fields


@pytest.mark.slow
def test_what_makes_the_autoencoder_makes_its_address():
    experiment = small()
    different = [address(experiment), address(experiment, field="vorticity"), address(experiment, checksum="e")]
    changes = {
        "seed": 1,
        "autoencoder.steps": 6,
        "autoencoder.width": 16,
        "latent.weight": 0.5,
        "training.log_every": 1,
    }
    different += [address(small(**{field: value})) for field, value in changes.items()]
    # the same configuration with another program, as after an edit of a latent space
    different += [address(dataclasses.replace(experiment, latent=Weighted(factor=f))) for f in (1.0, 2.0)]
    assert len(set(different)) == len(different)


def test_what_does_not_make_the_autoencoder_does_not_change_its_address():
    changes = {"transport.steps": 7, "network.width": 16, "evaluation.states": 5, "transport.process": "diffusion"}
    assert address(small()) == address(small("other", **changes))


WORDS = (
    ("models/layers.py", '"""Scaled dot-product attention', '"""Attention of queries to keys'),
    ("models/layers.py", "    def __call__", "    # a comment\n    def __call__"),
    ("training/steps.py", "error = jnp.mean", "mean_squared = jnp.mean"),
    ("training/steps.py", "return error, {}", "return mean_squared, {}"),
    ("training/steps.py", "return error + term", "return mean_squared + term"),
    ("training/steps.py", '"reconstruction": error', '"reconstruction": mean_squared'),
)
LOSS = (("training/steps.py", '- batch["field"]) ** 2)', '- batch["field"]) ** 4)'),)
INITIALISER = (("random.py", "math.prod(shape[:-1]) ** -0.5", "math.prod(shape[:-1]) ** -0.4"),)

ADDRESS = """
from closure_jax import config
from closure_jax.training import programs, shared, two_phase
c = config.base("tiny")
config.use(c, "latent", "recon")
experiment = config.build(c)
print(shared.address(two_phase.autoencoder_phase(experiment, "closure"), experiment, "d"))
"""


@pytest.mark.slow
def test_edits_of_words_keep_the_address_and_edits_of_the_mathematics_do_not(tmp_path):
    processes = []
    for number, edits in enumerate((WORDS, LOSS, INITIALISER)):
        copy = tmp_path / str(number) / "closure_jax"
        shutil.copytree(pathlib.Path(closure_jax.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in edits:
            text = (copy / name).read_text()
            assert old in text
            (copy / name).write_text(text.replace(old, new))
        command, environment = [sys.executable, "-c", ADDRESS], os.environ | {"PYTHONPATH": ""}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=copy.parent, env=environment, **pipes))
    found = []
    for process in processes:
        said, errors = process.communicate()
        assert process.returncode == 0, errors
        found.append(said.strip())
    c = config.base("tiny")
    config.use(c, "latent", "recon")
    here = address(config.build(c))
    assert found[0] == here
    assert len({here, *found[1:]}) == 3
