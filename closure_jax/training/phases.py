"""The two phases: autoencoders of vorticity and closure, then transport between their latents."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from closure_jax import build, closure, devices
from closure_jax.data import batches
from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.training import loop, steps
from closure_jax.training.regularisers import REGULARISERS
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir

_BLOCK = 256


def train(
    config: ml_collections.ConfigDict, dataset: Dataset, work: WorkDir, cache: pathlib.Path
) -> closure.StochasticClosure:
    """All phases, each from where it stopped; the closure is saved as the checkpoint 'closure'.

    Args:
      config: validated.
      dataset: trajectories.
      work: records and checkpoints.
      cache: folder for what depends on the data only (diffusion potentials).
    """
    checkpoints = work.checkpoints("closure")
    if checkpoints.latest() is not None:
        checkpoints.close()
        for field in FIELDS:
            print(f"autoencoder_{field}: already trained, {config.autoencoder.steps} steps")
        print(f"transport: already trained, {config.transport.steps} steps")
        return closure.StochasticClosure.load(work.path)
    params: dict[str, Any] = {field: train_autoencoder(config, field, dataset, work, cache) for field in FIELDS}
    scalings = {
        field: closure.Scaling(jnp.float32(norm.mean), jnp.float32(norm.std))
        for field, norm in dataset.normalisation.items()
    }
    latents: dict[str, dict[str, np.ndarray]] = {"train": {}, "validation": {}}
    for field in FIELDS:
        trained = encode(config, params[field], field, dataset, "train")
        held = _evenly(encode(config, params[field], field, dataset, "validation"), config.training.validation_fields)
        mean, std, norm = trained.mean(), trained.std(), dataset.normalisation[field]
        if not config.transport.standardise:  # back to the units of the field
            mean, std = -norm.mean / norm.std, 1 / norm.std
        scaling = scalings[f"latent_{field}"] = closure.Scaling(jnp.float32(mean), jnp.float32(std))
        latents["train"][field], latents["validation"][field] = (np.asarray(scaling.apply(z)) for z in (trained, held))
    params["network"] = train_transport(config, latents["train"], latents["validation"], work)
    leaves = {"params": params, "scalings": {k: {"mean": s.mean, "std": s.std} for k, s in scalings.items()}}
    checkpoints.save(0, leaves)
    checkpoints.close()
    return closure.assemble(config, leaves)


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
    params = closure.init_autoencoder(config, build.run_key(config, name))
    if not jax.tree.leaves(params):
        print(f"{name}: nothing to train")
        return params
    initial = TrainState.create(params, optimiser)

    with work.timed("latent_distances"):
        regulariser, extras = REGULARISERS[config.latent.kind](config, field, fields, dataset.checksum, cache)

    @jax.jit
    def errors(params, block):
        difference = decoder.apply(params["decoder"], encoder.apply(params["encoder"], block)) - block
        relative = jnp.linalg.norm(difference, axis=(1, 2)) / jnp.linalg.norm(block, axis=(1, 2))
        return jnp.stack([jnp.mean(difference**2, axis=(1, 2)), relative], axis=1)

    def validate(params):
        loss, relative = np.mean(in_blocks(lambda block: errors(params, block), held), axis=0)
        return {"validation_loss": float(loss), "relative_error": float(relative)}

    def batch_at(step):
        rows = batches.batch_indices(config.seed, step, len(fields), section.batch_size)
        batch = {"field": fields[rows], "position": np.arange(section.batch_size)}
        return batch if extras is None else {**batch, "extra": extras[rows]}

    phase = loop.Phase(
        name=name,
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
    initial = TrainState.create(closure.init_network(config, build.run_key(config, "transport")), optimiser)
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


def in_blocks(function: Any, values: np.ndarray, size: int = _BLOCK) -> np.ndarray:
    """function over blocks of the first axis, joined; the last block is padded, so that one program serves."""
    size = min(size, len(values))
    parts = []
    for start in range(0, len(values), size):
        first = min(start, len(values) - size)
        parts.append(np.asarray(function(values[first : first + size]))[start - first :])
    return np.concatenate(parts)


def encode(config: ml_collections.ConfigDict, params: Any, field: str, dataset: Dataset, split: str) -> np.ndarray:
    """Latents (N, r, r, c) of all fields of a split, not standardised."""
    encoder, _ = build.autoencoder_pair(config)
    apply = jax.jit(encoder.apply)
    normalise = dataset.normalisation[field].apply
    return in_blocks(lambda block: apply(params["encoder"], normalise(block)), dataset.fields(field, split))
