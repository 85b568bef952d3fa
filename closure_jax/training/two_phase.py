"""Two phases: the autoencoders of vorticity and closure, frozen, then transport between their latents."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from closure_jax import random
from closure_jax.closure import apply, bind
from closure_jax.config.experiment import Experiment
from closure_jax.data import batches
from closure_jax.data.dataset import FIELDS
from closure_jax.parallel import processes, progress
from closure_jax.training import shared, steps
from closure_jax.training.phase import Params, Phase, Prepared, Run, evenly, validation_keys
from closure_jax.transport import Transport


@dataclasses.dataclass(frozen=True)
class TwoPhase:
    """The published program of all latent spaces but the joint one."""

    def phases(self, experiment: Experiment) -> list[Phase]:
        """Both autoencoders, then the transport network, its velocity first where that is asked for, then it again as often as
        the transport is rectified."""
        rounds = range(1, 1 + getattr(experiment.transport, "rectify", 0))
        first = [flow_phase(experiment)] if getattr(experiment.transport, "flow_steps", 0) else []
        return [
            *(autoencoder_phase(experiment, field) for field in FIELDS),
            *first,
            transport_phase(experiment),
            *(rectified_phase(experiment, number) for number in rounds),
        ]

    def closure(self, run: Run, trained: Mapping[str, Params]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
        """Parameters of the closure, and (mean, standard deviation) of each field's latent."""
        params = self.params(trained)
        return params, {field: latents(run, field, params[field])[1] for field in FIELDS}

    def params(self, trained: Mapping[str, Params]) -> dict[str, Any]:
        """{"vorticity", "closure", "network"}, from the phases' parameters."""
        last = [name for name in trained if name.startswith(("transport", "rectified_"))][-1]
        return {field: trained[f"autoencoder_{field}"] for field in FIELDS} | {"network": trained[last]}


def autoencoder_phase(experiment: Experiment, field: str) -> Phase:
    """The autoencoder of 'vorticity' or 'closure'."""
    n = experiment.data.resolution
    return Phase(
        name=f"autoencoder_{field}",
        section="autoencoder",
        training=experiment.autoencoder_training,
        start=lambda key, earlier: experiment.init_autoencoder(key),
        loss=steps.autoencoder_loss(*experiment.autoencoder_modules(), None),
        batch=lambda size: {"field": jax.ShapeDtypeStruct((size, n, n), jnp.float32)},
        prepare=lambda run, earlier: _prepare_autoencoder(run, field),
        shared_field=field,
    )


def _prepare_autoencoder(run: Run, field: str) -> Prepared:
    experiment = run.experiment
    encoder, decoder = experiment.autoencoder_modules()
    fields, held = run.fields(field, "train"), run.fields(field, "validation")
    setting = shared.setting(experiment, field, functools.partial(shared.cached, run, field))
    with run.work.timed("latent_distances"):
        term, extras = processes.main_first(lambda: experiment.latent.term(fields, setting))
        companions = processes.main_first(lambda: shared.companions(experiment.latent, fields, setting))

    @jax.jit
    def errors(params: Params, block: jax.Array) -> jax.Array:
        difference = apply(decoder, params["decoder"], apply(encoder, params["encoder"], block)) - block
        relative = jnp.linalg.norm(difference, axis=(1, 2)) / jnp.linalg.norm(block, axis=(1, 2))
        return jnp.stack([jnp.mean(difference**2, axis=(1, 2)), relative], axis=1)

    def validate(params: Params) -> dict[str, float]:
        loss, relative = np.mean(batches.in_blocks(lambda block: errors(params, block), held), axis=0)
        return {"validation_loss": float(loss), "relative_error": float(relative)}

    examples = {"field": fields} | ({} if extras is None else {"extra": extras})
    return Prepared(examples, steps.autoencoder_loss(encoder, decoder, term), validate, companions)


def transport_phase(experiment: Experiment, transport: Transport | None = None) -> Phase:
    """The transport network, between the latents of the frozen autoencoders; from that of the phase `flow` where there was one.

    Args:
      experiment: what is trained.
      transport: whose loss it learns; the experiment's where it is None.
    """
    shape = experiment.latent_shape
    loss = steps.transport_loss(experiment.network, transport or experiment.transport)

    def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((size, *shape), jnp.float32) for name in ("condition", "target")}

    def prepare(run: Run, earlier: Mapping[str, Params]) -> Prepared:
        made = {field: latents(run, field, earlier[f"autoencoder_{field}"]) for field in FIELDS}
        held = {"condition": made["vorticity"][0]["validation"], "target": made["closure"][0]["validation"]}
        keys = validation_keys(experiment, "transport", len(held["condition"]))
        held_loss = jax.jit(lambda params: loss(params, held, keys)[0])
        examples = {"condition": made["vorticity"][0]["train"], "target": made["closure"][0]["train"]}
        return Prepared(examples, loss, lambda params: {"validation_loss": float(held_loss(params))})

    return Phase(
        name="transport",
        section="transport",
        training=experiment.transport_training,
        start=lambda key, earlier: earlier["flow"] if "flow" in earlier else experiment.init_network(key),
        loss=loss,
        batch=batch,
        prepare=prepare,
    )


def flow_phase(experiment: Experiment) -> Phase:
    """The network of average velocities, of which only the velocity is learned."""
    transport: Any = experiment.transport
    training = experiment.transport_training
    few = dataclasses.replace(training, settings=dataclasses.replace(training.settings, steps=transport.flow_steps))
    return dataclasses.replace(transport_phase(experiment, transport.flow()), name="flow", training=few)


def rectified_phase(experiment: Experiment, number: int) -> Phase:
    """The network of the phase before, trained on noise and what that network makes of it."""
    before = "transport" if number == 1 else f"rectified_{number - 1}"
    first = transport_phase(experiment)
    loss, shape = first.loss, experiment.latent_shape

    def prepare(run: Run, earlier: Mapping[str, Params]) -> Prepared:
        conditions, _ = latents(run, "vorticity", earlier["autoencoder_vorticity"])
        train, held = (_pairs(experiment, number, earlier[before], conditions[s], s) for s in ("train", "validation"))
        keys = validation_keys(experiment, f"rectified_{number}", len(held["condition"]))
        held_loss = jax.jit(lambda params: loss(params, held, keys)[0])
        return Prepared(train, loss, lambda params: {"validation_loss": float(held_loss(params))})

    def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return first.batch(size) | {"source": jax.ShapeDtypeStruct((size, *shape), jnp.float32)}

    return dataclasses.replace(
        first, name=f"rectified_{number}", start=lambda key, earlier: earlier[before], batch=batch, prepare=prepare
    )


def _pairs(
    experiment: Experiment, number: int, params: Params, condition: np.ndarray, split: str
) -> dict[str, np.ndarray]:
    """{"condition", "source", "target"}: for each condition one noise, and the sample that the network makes of it."""
    transport: Any = experiment.transport
    key = random.stream(experiment.seed, "rectify", number, split)

    @jax.jit
    def draw(params: Params, rows: Array, condition: Array) -> Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        noise = transport.noise(keys, condition.shape[1:], transport.rectify_steps)
        field = bind(experiment.network, params, condition)
        return jnp.stack([noise["source"], transport.sample(field, noise, condition, transport.rectify_steps)], axis=1)

    with progress.bar(len(condition), f"pairs {number} ({split})", "field") as bar:

        def block(rows: np.ndarray) -> np.ndarray:
            made = np.asarray(draw(params, rows, condition[rows]))
            bar.update(len(rows))
            return made

        made = batches.in_blocks(block, np.arange(len(condition)))
    return {"condition": condition, "source": made[:, 0], "target": made[:, 1]}


def latents(run: Run, field: str, params: Params) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Standardised latents {"train", "validation": (N, r, r, c)} of a field, and (mean, standard deviation) before.

    With `transport.standardise` false they are in the units of the field.
    """
    experiment, norm = run.experiment, run.dataset.normalisation[field]
    encoder, _ = experiment.autoencoder_modules()

    def encode(split: str) -> np.ndarray:
        fields = run.dataset.fields(field, split)
        return batches.in_blocks(lambda block: _encoded(encoder, params["encoder"], norm.apply(block)), fields)

    trained, held = encode("train"), evenly(encode("validation"), experiment.training.validation_fields)
    mean, deviation = trained.mean(), trained.std()
    if not experiment.transport_training.settings.standardise:
        mean, deviation = -norm.mean / norm.std, 1 / norm.std
    scaled = {
        name: np.asarray((values - mean) / deviation, np.float32)
        for name, values in (("train", trained), ("validation", held))
    }
    return scaled, (float(mean), float(deviation))


@functools.partial(
    jax.jit, static_argnums=0
)  # a module is equal to one of the same fields: one program for both fields
def _encoded(encoder: Any, params: Params, block: Array) -> Array:
    return apply(encoder, params, block)
