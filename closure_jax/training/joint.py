"""One phase: both autoencoders and the transport network at once (arXiv 2602.17089)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax.config.experiment import Experiment
from closure_jax.data.dataset import FIELDS
from closure_jax.parallel import devices
from closure_jax.training import steps
from closure_jax.training.phase import Params, Phase, Prepared, Run, validation_keys


@dataclasses.dataclass(frozen=True)
class Joint:
    """Autoencoders and transport network learn together, by the transport's schedule; latents keep the scale they get."""

    def phases(self, experiment: Experiment) -> list[Phase]:
        """The one phase."""
        return [joint_phase(experiment)]

    def closure(self, run: Run, trained: Mapping[str, Params]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
        """Parameters of the closure, and (mean, standard deviation) of each field's latent: 0 and 1."""
        del run
        return self.params(trained), {field: (0.0, 1.0) for field in FIELDS}

    def params(self, trained: Mapping[str, Params]) -> dict[str, Any]:
        """{"vorticity", "closure", "network"}, from the phase's parameters."""
        return dict(trained["joint"])


def joint_phase(experiment: Experiment) -> Phase:
    """The phase; its weights are those of the latent space `joint`."""
    n = experiment.data.resolution

    def start(key: jax.Array, earlier: Mapping[str, Params]) -> Params:
        del earlier
        keys = jax.random.split(key, len(FIELDS) + 1)
        params = {field: experiment.init_autoencoder(one) for field, one in zip(FIELDS, keys[1:], strict=True)}
        return params | {"network": experiment.init_network(keys[0])}

    def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {field: jax.ShapeDtypeStruct((size, n, n), jnp.float32) for field in FIELDS}

    return Phase(
        name="joint",
        section="transport",
        training=experiment.transport_training,
        start=start,
        loss=_loss(experiment, dict.fromkeys(FIELDS, 1.0)),
        batch=batch,
        prepare=lambda run, earlier: _prepare(run),
    )


def _loss(experiment: Experiment, variances: Mapping[str, float]) -> steps.Loss:
    """The loss of normalised fields; the published weights belong to errors in the units of the fields, whose variances these
    are."""
    latent: Any = experiment.latent
    weights = {
        "vorticity": latent.vorticity_weight * variances["vorticity"],
        "closure": latent.closure_weight * variances["closure"],
        "moments": latent.moment_weight,
    }
    return steps.joint_loss(*experiment.autoencoder_modules(), experiment.network, experiment.transport, weights)


def _prepare(run: Run) -> Prepared:
    experiment = run.experiment
    loss = _loss(experiment, {field: run.dataset.normalisation[field].std ** 2 for field in FIELDS})
    fields = {field: run.fields(field, "train") for field in FIELDS}
    held = {field: run.fields(field, "validation") for field in FIELDS}
    keys = validation_keys(experiment, "joint", len(held["vorticity"]))
    held_loss = jax.jit(lambda params: devices.alone(loss)(params, held, keys))

    def validate(params: Params) -> dict[str, float]:
        total, measures = held_loss(params)
        errors = {
            f"relative_error_{field}": float(jnp.sqrt(measures[f"reconstruction_{field}"] / np.mean(held[field] ** 2)))
            for field in FIELDS
        }
        return {"validation_loss": float(total), "validation_transport": float(measures["transport"]), **errors}

    return Prepared(fields, loss, validate)
