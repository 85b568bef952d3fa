"""Autoencoders that several experiments share: trained once for a configuration, kept beside the data, copied into each run."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

import closure_jax
from closure_jax import config as config_lib
from closure_jax import devices
from closure_jax.config import build
from closure_jax.data.dataset import Dataset
from closure_jax.data.generate import exclusive
from closure_jax.training.regularisers import REGULARISERS
from closure_jax.workdir import WorkDir

_SOURCES = ("models/*.py", "latent/*.py", "training/steps.py", "training/loop.py", "training/regularisers.py")


def once(
    config: ml_collections.ConfigDict,
    field: str,
    dataset: Dataset,
    work: WorkDir,
    cache: pathlib.Path,
    train: Callable[[], Any],
) -> Any:
    """What `train()` returns, with the phase's checkpoint and records taken from `cache` where another run left them.

    A run that has begun the phase itself goes on by itself. The folder is locked meanwhile, so that a second run waits.
    """
    phase = f"autoencoder_{field}"
    if config.autoencoder.kind == "identity":
        return train()
    folder = cache / "autoencoders" / f"{field}-{address(config, field, dataset.checksum)}"

    def take() -> None:
        if not work.has_begun(phase) and (folder / "trained_by.json").is_file():
            work.import_phase(phase, folder)
            by = json.loads((folder / "trained_by.json").read_text())
            print(f"{phase}: trained by {by['experiment']}-{by['preset']} before, copied from {folder}")

    def give() -> None:
        if not folder.exists():
            facts = {"experiment": config.experiment, "preset": config.preset, "seed": config.seed}
            work.export_phase(phase, folder, facts)

    with exclusive(folder):
        devices.on_main(take)
        params = train()
        devices.on_main(give)
    return params


def address(config: ml_collections.ConfigDict, field: str, checksum: str) -> str:
    """Content address of a trained autoencoder: data, configuration, number of devices, and the code that makes it."""
    stored = config_lib.to_dict(config)
    makes = {
        "field": field,
        "data": checksum,
        "seed": config.seed,
        "autoencoder": stored["autoencoder"],
        "latent": [config.latent.kind, stored["latent"].get(config.latent.kind)],
        "training": stored["training"],
        "devices": jax.device_count(),
        "code": _code(REGULARISERS[config.latent.kind], build.AUTOENCODERS[config.autoencoder.kind]),
    }
    return hashlib.sha256(json.dumps(makes, sort_keys=True).encode()).hexdigest()[:12]


def _code(*pieces: Callable) -> str:
    """Digest of the modules that an autoencoder's training runs through, and of the files that define `pieces`."""
    package = pathlib.Path(closure_jax.__file__).parent
    files = {file for pattern in _SOURCES for file in package.glob(pattern)}
    files |= {pathlib.Path(piece.__code__.co_filename) for piece in pieces if hasattr(piece, "__code__")}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
