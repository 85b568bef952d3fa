"""A phase of training: what starts it, what it learns from, by which loss; and how any phase is run."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from closure_jax import random
from closure_jax.config.experiment import Experiment, Trained
from closure_jax.config.optimisers import optimiser
from closure_jax.config.settings import Optimisation
from closure_jax.data import batches
from closure_jax.data.dataset import Dataset
from closure_jax.parallel import devices
from closure_jax.training import loop, steps
from closure_jax.training.state import TrainState

if TYPE_CHECKING:
    from closure_jax.workdir import WorkDir

Params = Any
"""A pytree of arrays."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Where training happens.

    Attributes:
      experiment: what is trained.
      dataset: trajectories.
      work: folder for records and checkpoints.
      cache: folder for what several runs share: diffusion potentials, autoencoders.
    """

    experiment: Experiment
    dataset: Dataset
    work: "WorkDir"
    cache: pathlib.Path

    def fields(self, name: str, split: str) -> np.ndarray:
        """Normalised fields (N, n, n) of 'vorticity' or 'closure'; about `training.validation_fields` of the split 'validation',
        spread evenly over it."""
        values = self.dataset.fields(name, split)
        if split == "validation":
            values = evenly(values, self.experiment.training.validation_fields)
        return self.dataset.normalisation[name].apply(values)

    def leaves(self, params: Params, latent_scalings: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        """What `Experiment.assemble` makes a closure of.

        Args:
          params: {"vorticity", "closure", "network"}.
          latent_scalings: (mean, standard deviation) of each field's latent.
        """
        scalings = {field: (norm.mean, norm.std) for field, norm in self.dataset.normalisation.items()}
        scalings |= {f"latent_{field}": numbers for field, numbers in latent_scalings.items()}
        return {
            "params": params,
            "scalings": {name: {"mean": jnp.float32(m), "std": jnp.float32(s)} for name, (m, s) in scalings.items()},
        }


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a phase trains with, made from the data.

    Attributes:
      examples: arrays (N, ...); a batch holds the same rows of each, and "position", the place in the global batch.
      loss: see `steps.Loss`.
      validate: parameters -> measures, one of them "validation_loss".
      companions: (N, k), of each example those of which one stands beside it in its batch; None: batches at random.
    """

    examples: dict[str, np.ndarray]
    loss: steps.Loss
    validate: Callable[[Params], dict[str, float]]
    companions: np.ndarray | None = None

    def rows(self, seed: int, step: int, size: int) -> np.ndarray:
        """Which examples make up the batch of a step, (size,)."""
        if self.companions is not None:
            return batches.paired_indices(seed, step, self.companions, size)
        return batches.batch_indices(seed, step, len(next(iter(self.examples.values()))), size)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a program.

    Attributes:
      name: of its checkpoints, and of its lines in metrics.jsonl.
      section: of the configuration that holds its learning rate, batch and steps; named in errors.
      training: those numbers, and the schedule.
      start: (key, parameters of earlier phases by name) -> first parameters; without leaves, nothing is trained.
      loss: the loss without what only the data give, for the estimate of its cost.
      batch: size -> shapes of a batch for that loss.
      prepare: (run, parameters of earlier phases by name) -> what the phase trains with.
      shared_field: the field whose autoencoder this trains, if other experiments may share it.
    """

    name: str
    section: str
    training: Trained[Optimisation]
    start: Callable[[jax.Array, Mapping[str, Params]], Params]
    loss: steps.Loss
    batch: Callable[[int], dict[str, jax.ShapeDtypeStruct]]
    prepare: Callable[[Run, Mapping[str, Params]], Prepared]
    shared_field: str | None = None


def train(phase: Phase, run: Run, earlier: Mapping[str, Params]) -> Params:
    """Runs a phase from where it stopped: the moving average of its parameters.

    Raises:
      UserError: the batch does not divide over the devices, or the loss is not finite.
    """
    experiment, settings = run.experiment, phase.training.settings
    params = phase.start(random.stream(experiment.seed, "initialise", phase.name), earlier)
    if not jax.tree.leaves(params):
        print(f"{phase.name}: nothing to train")
        return params
    devices.check_batch(f"{phase.section}.batch_size", settings.batch_size)
    adam = optimiser(settings, phase.training.schedule)
    state = TrainState.create(params, adam)
    trained = loop.finished(phase.name, settings.steps, state, run.work)
    if trained is not None:  # what it was trained with is not made again
        return trained.ema
    prepared = phase.prepare(run, earlier)
    rate = jax.jit(phase.training.schedule.rate(settings))

    def batch_at(step: int) -> dict[str, np.ndarray]:
        rows = prepared.rows(experiment.seed, step, settings.batch_size)
        batch = {name: values[rows] for name, values in prepared.examples.items()}
        return batch | {"position": np.arange(settings.batch_size)}

    log, keeps_best = experiment.training, settings.keep == "best"
    looped = loop.Loop(
        name=phase.name,
        section=phase.section,
        steps=settings.steps,
        batch_at=batch_at,
        train_step=steps.make_train_step(prepared.loss, adam, None if keeps_best else settings.ema_decay),
        key=random.stream(experiment.seed, "train", phase.name),
        learning_rate=lambda step, state: float(rate(step)) * plateau_factor(state),
        validate=prepared.validate,
        keeps_best=keeps_best,
    )
    return loop.run(looped, state, run.work, log.log_every, log.checkpoint_every).ema


def state_shapes(phase: Phase, params: Params) -> dict[str, Any]:
    """Shapes of what checkpoints of a phase hold; `params` are those of its parameters."""
    adam = optimiser(phase.training.settings, phase.training.schedule)
    return jax.eval_shape(lambda params: TrainState.create(params, adam).as_dict(), params)


def plateau_factor(state: TrainState) -> float:
    """What a plateau has made of the rate, 1 under another schedule; of a state that all devices hold."""
    plateau = optax.contrib.ReduceLROnPlateauState

    def found(node: Any) -> bool:
        return isinstance(node, plateau)

    states = [node for node in jax.tree.leaves(state.opt_state, is_leaf=found) if found(node)]
    return float(devices.first(states[0].scale)) if states else 1.0


def validation_keys(experiment: Experiment, phase: str, count: int) -> jax.Array:
    """Keys of the held-out examples of a phase, (count,)."""
    key = random.stream(experiment.seed, "validate", phase)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(count))


def evenly(values: np.ndarray, count: int) -> np.ndarray:
    """About `count` entries, spread evenly over the first axis."""
    return values[:: max(1, len(values) // count)]
