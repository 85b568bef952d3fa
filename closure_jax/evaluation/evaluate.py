"""The whole evaluation: reconstruction, a priori, latent geometry, a posteriori."""

import shutil
from typing import Any

import jax
import ml_collections
import numpy as np

from closure_jax import config as config_lib
from closure_jax.closure import StochasticClosure
from closure_jax.data.batches import in_blocks
from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.evaluation import a_posteriori, a_priori, latent_geometry, metrics
from closure_jax.workdir import WorkDir


def settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What an evaluation depends on beside the model, as stored in results.json."""
    stored = config_lib.to_dict(config)
    stored["evaluation"].pop("rollout_chunk", None)  # changes the memory, not the numbers
    return {"evaluation": stored["evaluation"], "sampler": stored["sampler"]}


def is_stale(config: ml_collections.ConfigDict, work: WorkDir) -> bool:
    """Whether there is no results.json of these settings yet."""
    results = work.results()
    return results is None or results.get("settings") != settings(config)


PHASES = ("a_priori", "latent_geometry", "a_posteriori")
"""What an evaluation spends its time on, by name in wall_seconds."""


def run(
    config: ml_collections.ConfigDict, dataset: Dataset, model: StochasticClosure, work: WorkDir
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Judges a model: the measured parts of results.json, and arrays for the report; times go to the work directory."""
    print("evaluation: reconstruction and a priori")
    with work.timed("a_priori"):
        reconstruction = reconstruction_errors(dataset, model, work)
        prior, arrays = a_priori.evaluate(config, dataset, model)
    print("evaluation: latent geometry")
    with work.timed("latent_geometry"):
        geometry, shown = latent_geometry.evaluate(config, dataset, model)
    print("evaluation: a posteriori rollouts")
    with work.timed("a_posteriori"):
        scratch = work.path / "rollouts"
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed evaluation
        posterior, more = a_posteriori.evaluate(config, dataset, model, scratch)
        shutil.rmtree(scratch, ignore_errors=True)
    results = {
        "autoencoder": reconstruction,
        "a_priori": prior,
        "latent_geometry": geometry,
        "a_posteriori": posterior,
        "settings": settings(config),
    }
    return results, {name: np.float32(array) for name, array in (arrays | shown | more).items()}


def reconstruction_errors(dataset: Dataset, model: StochasticClosure, work: WorkDir) -> dict[str, Any]:
    """Per field: relative error of reconstruction on the test split, and the mean pair weight of the regulariser."""
    rebuild = jax.jit(StochasticClosure.reconstruct, static_argnums=1)
    errors = {}
    for field in FIELDS:
        values = dataset.fields(field, "test")
        rebuilt = in_blocks(lambda block, field=field: rebuild(model, field, block), values)
        weights = [
            record["regulariser_weight"]
            for record in work.records(f"autoencoder_{field}")
            if record.get("regulariser_weight") is not None
        ]
        errors[field] = {
            "relative_error": metrics.relative_error(rebuilt, values),
            "regulariser_weight": float(np.mean(weights)) if weights else None,
        }
    return errors
