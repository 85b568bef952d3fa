"""The phases of training: autoencoders of vorticity and closure, then transport between their latents; or all at once."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from closure_jax import closure, devices
from closure_jax.config import build
from closure_jax.data import batches
from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.training import loop, shared, steps
from closure_jax.training.regularisers import REGULARISERS
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir


def train(
    config: ml_collections.ConfigDict, dataset: Dataset, work: WorkDir, cache: pathlib.Path
) -> closure.StochasticClosure:
    """All phases, each from where it stopped; the closure is saved as the checkpoint 'closure'.

    Args:
      config: validated.
      dataset: trajectories.
      work: records and checkpoints.
      cache: folder for what several runs share (diffusion potentials, autoencoders).
    """
    program = program_of(config)
    checkpoints = work.checkpoints("closure")
    if devices.on_main(checkpoints.latest) is not None:
        checkpoints.close()
        for phase, section in program.phases.items():
            print(f"{phase}: already trained, {config[section].steps} steps")
        return closure.StochasticClosure.load(work.path)
    params, latent_scalings = program.train(config, dataset, work, cache)
    scalings = {field: (norm.mean, norm.std) for field, norm in dataset.normalisation.items()}
    scalings |= {f"latent_{field}": numbers for field, numbers in latent_scalings.items()}
    leaves = {
        "params": params,
        "scalings": {name: {"mean": jnp.float32(m), "std": jnp.float32(s)} for name, (m, s) in scalings.items()},
    }
    checkpoints.save(0, leaves)
    checkpoints.close()
    return build.assemble(config, leaves)


def train_two_phase(
    config: ml_collections.ConfigDict, dataset: Dataset, work: WorkDir, cache: pathlib.Path
) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Autoencoders, frozen, then transport between encoded pairs: (params, {field: (mean, std) of its latent})."""
    params: dict[str, Any] = {
        field: shared.once(
            config,
            field,
            dataset,
            work,
            cache,
            lambda field=field: train_autoencoder(config, field, dataset, work, cache),
        )
        for field in FIELDS
    }
    latents: dict[str, dict[str, np.ndarray]] = {"train": {}, "validation": {}}
    scalings = {}
    for field in FIELDS:
        trained = encode(config, params[field], field, dataset, "train")
        held = _evenly(encode(config, params[field], field, dataset, "validation"), config.training.validation_fields)
        mean, std, norm = trained.mean(), trained.std(), dataset.normalisation[field]
        if not config.transport.standardise:  # back to the units of the field
            mean, std = -norm.mean / norm.std, 1 / norm.std
        scalings[field] = (mean, std)
        for split, latent in (("train", trained), ("validation", held)):
            latents[split][field] = np.float32((latent - mean) / std)
    params["network"] = train_transport(config, latents["train"], latents["validation"], work)
    return params, scalings


def train_joint(
    config: ml_collections.ConfigDict, dataset: Dataset, work: WorkDir, cache: pathlib.Path
) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Autoencoders and transport network at once, by `config.transport`'s schedule; latents keep the scale they get.

    The published weights belong to errors in the units of the fields; they are taken to normalised fields here.
    """
    del cache
    section, joint = config.transport, config.latent.joint
    devices.check_batch("transport.batch_size", section.batch_size)
    fields = {field: dataset.normalisation[field].apply(dataset.fields(field, "train")) for field in FIELDS}
    held = {
        field: dataset.normalisation[field].apply(
            _evenly(dataset.fields(field, "validation"), config.training.validation_fields)
        )
        for field in FIELDS
    }
    weights = {field: joint[f"{field}_weight"] * dataset.normalisation[field].std ** 2 for field in FIELDS}
    weights["moments"] = joint.moment_weight
    network, path = build.network(config), build.path(config)
    loss = steps.joint_loss(*build.autoencoder_pair(config), network, path, config.network.prediction, weights)
    keys = {name: build.run_key(config, name) for name in ("autoencoder_vorticity", "autoencoder_closure", "transport")}
    params: dict[str, Any] = {field: build.init_autoencoder(config, keys[f"autoencoder_{field}"]) for field in FIELDS}
    params["network"] = build.init_network(config, keys["transport"])
    optimiser = build.optimiser(section)
    held_keys = jax.random.split(jax.random.key(config.seed), len(held["vorticity"]))
    held_loss = jax.jit(lambda params: devices.alone(loss)(params, held, held_keys))

    def validate(params):
        total, measures = held_loss(params)
        errors = {
            f"relative_error_{field}": float(jnp.sqrt(measures[f"reconstruction_{field}"] / np.mean(held[field] ** 2)))
            for field in FIELDS
        }
        return {"validation_loss": float(total), "validation_transport": float(measures["transport"]), **errors}

    def batch_at(step):
        rows = batches.batch_indices(config.seed, step, len(fields["vorticity"]), section.batch_size)
        return {field: values[rows] for field, values in fields.items()} | {"position": np.arange(section.batch_size)}

    phase = loop.Phase(
        name="joint",
        section="transport",
        steps=section.steps,
        batch_at=batch_at,
        train_step=steps.make_train_step(loss, optimiser, section.ema_decay),
        key=build.run_key(config, "joint"),
        learning_rate=lambda step: build.learning_rate(section, step),
        validate=validate,
    )
    state = TrainState.create(params, optimiser)
    state = loop.run(phase, state, work, config.training.log_every, config.training.checkpoint_every)
    return state.ema, {field: (0.0, 1.0) for field in FIELDS}


@dataclasses.dataclass(frozen=True)
class Program:
    """How a closure is trained: `phases` maps the phases' names to the sections of the configuration that hold their
    schedules; `train` is (config, dataset, work, cache) -> (params, {field: (mean, std) of its latent})."""

    phases: dict[str, str]
    train: Callable[..., tuple[dict[str, Any], dict[str, tuple[float, float]]]]


TWO_PHASE = Program(
    {"autoencoder_vorticity": "autoencoder", "autoencoder_closure": "autoencoder", "transport": "transport"},
    train_two_phase,
)
PROGRAMS: dict[str, Program] = {"joint": Program({"joint": "transport"}, train_joint)}
"""Latent spaces (config.latent.kind) that are not trained in two phases, by name."""


def program_of(config: ml_collections.ConfigDict) -> Program:
    """How the configuration's latent space is trained."""
    return PROGRAMS.get(config.latent.kind, TWO_PHASE)


def latent_spaces() -> list[str]:
    """Names of all latent spaces."""
    return [*REGULARISERS, *PROGRAMS]


def train_autoencoder(
    config: ml_collections.ConfigDict, field: str, dataset: Dataset, work: WorkDir, cache: pathlib.Path
) -> dict[str, Any]:
    """{"encoder", "decoder"} parameters (moving average) for one of the two fields."""
    section, name = config.autoencoder, f"autoencoder_{field}"
    devices.check_batch("autoencoder.batch_size", section.batch_size)
    normalise = dataset.normalisation[field].apply
    fields = normalise(dataset.fields(field, "train"))
    held = normalise(_evenly(dataset.fields(field, "validation"), config.training.validation_fields))
    encoder, decoder = build.autoencoder_pair(config)
    optimiser = build.optimiser(section)
    params = build.init_autoencoder(config, build.run_key(config, name))
    if not jax.tree.leaves(params):
        print(f"{name}: nothing to train")
        return params
    initial = TrainState.create(params, optimiser)

    with work.timed("latent_distances"):
        make = REGULARISERS[config.latent.kind]
        regulariser, extras = devices.main_first(lambda: make(config, field, fields, dataset.checksum, cache))

    @jax.jit
    def errors(params, block):
        difference = decoder.apply(params["decoder"], encoder.apply(params["encoder"], block)) - block
        relative = jnp.linalg.norm(difference, axis=(1, 2)) / jnp.linalg.norm(block, axis=(1, 2))
        return jnp.stack([jnp.mean(difference**2, axis=(1, 2)), relative], axis=1)

    def validate(params):
        loss, relative = np.mean(batches.in_blocks(lambda block: errors(params, block), held), axis=0)
        return {"validation_loss": float(loss), "relative_error": float(relative)}

    def batch_at(step):
        rows = batches.batch_indices(config.seed, step, len(fields), section.batch_size)
        batch = {"field": fields[rows], "position": np.arange(section.batch_size)}
        return batch if extras is None else {**batch, "extra": extras[rows]}

    phase = loop.Phase(
        name=name,
        section="autoencoder",
        steps=section.steps,
        batch_at=batch_at,
        train_step=steps.make_train_step(
            steps.autoencoder_loss(encoder, decoder, regulariser), optimiser, section.ema_decay
        ),
        key=build.run_key(config, name),
        learning_rate=lambda step: build.learning_rate(section, step),
        validate=validate,
    )
    return loop.run(phase, initial, work, config.training.log_every, config.training.checkpoint_every).ema


def train_transport(
    config: ml_collections.ConfigDict, latents: dict[str, np.ndarray], held: dict[str, np.ndarray], work: WorkDir
) -> Any:
    """Parameters (moving average) of the transport network, trained on standardised latents (N, r, r, c) of both fields."""
    section = config.transport
    devices.check_batch("transport.batch_size", section.batch_size)
    network, path, prediction = build.network(config), build.path(config), config.network.prediction
    loss = steps.transport_loss(network, path, prediction)
    optimiser = build.optimiser(section)
    initial = TrainState.create(build.init_network(config, build.run_key(config, "transport")), optimiser)
    held_batch = {"condition": held["vorticity"], "target": held["closure"]}
    held_keys = jax.random.split(jax.random.key(config.seed), len(held["vorticity"]))
    validation_loss = jax.jit(lambda params: loss(params, held_batch, held_keys)[0])

    def batch_at(step):
        rows = batches.batch_indices(config.seed, step, len(latents["vorticity"]), section.batch_size)
        return {
            "condition": latents["vorticity"][rows],
            "target": latents["closure"][rows],
            "position": np.arange(section.batch_size),
        }

    phase = loop.Phase(
        name="transport",
        section="transport",
        steps=section.steps,
        batch_at=batch_at,
        train_step=steps.make_train_step(loss, optimiser, section.ema_decay),
        key=build.run_key(config, "transport"),
        learning_rate=lambda step: build.learning_rate(section, step),
        validate=lambda params: {"validation_loss": float(validation_loss(params))},
    )
    return loop.run(phase, initial, work, config.training.log_every, config.training.checkpoint_every).ema


def _evenly(values: np.ndarray, count: int) -> np.ndarray:
    """About `count` entries, spread evenly over the first axis."""
    return values[:: max(1, len(values) // count)]


def encode(config: ml_collections.ConfigDict, params: Any, field: str, dataset: Dataset, split: str) -> np.ndarray:
    """Latents (N, r, r, c) of all fields of a split, not standardised."""
    encoder, _ = build.autoencoder_pair(config)
    apply = jax.jit(encoder.apply)
    normalise = dataset.normalisation[field].apply
    return batches.in_blocks(lambda block: apply(params["encoder"], normalise(block)), dataset.fields(field, split))
