"""What the term of a latent space did to it, beside a latent that was trained without."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from closure_jax.closure import StochasticClosure, apply
from closure_jax.data import batches
from closure_jax.data.dataset import FIELDS
from closure_jax.training import shared
from closure_jax.training.phase import Run
from closure_jax.training.two_phase import autoencoder_phase

_BATCHES = 16  # of the training, over which the term is taken


def effects(run: Run, model: StochasticClosure) -> Iterator[tuple[str, dict[str, float | None]]]:
    """(field, what the latent's `effect` says of it), see `latent.spaces`; of a latent whose batches are random nothing.

    The latent without the term is that of a run with the same data and seed, where one has left it in the cache.
    """
    experiment = run.experiment
    if getattr(experiment.latent, "companions", None) is None:
        return
    for field in FIELDS:
        fields = run.fields(field, "train")
        setting = shared.setting(experiment, field, functools.partial(shared.cached, run, field))
        beside = shared.companions(experiment.latent, fields, setting)
        if beside is None:
            continue
        plain = shared.reconstructing(functools.partial(autoencoder_phase, field=field), run)
        encoders = [_encoder(model.encoder, model.params[field]["encoder"])]
        encoders += [] if plain is None else [_encoder(model.encoder, plain["encoder"])]
        rows = [batches.paired_indices(experiment.seed, step, beside, setting.batch_size) for step in range(_BATCHES)]
        latent: Any = experiment.latent
        yield field, latent.effect(fields, setting, encoders, rows)


def _encoder(module: nn.Module, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    encode = jax.jit(functools.partial(apply, module))
    return lambda fields: np.asarray(encode(params, fields))
