"""What several runs share, kept beside the data: autoencoders, trained once for what makes them, and potentials of the data."""

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from closure_jax import config as config_lib
from closure_jax import random
from closure_jax.config.experiment import Experiment
from closure_jax.config.optimisers import optimiser
from closure_jax.data import batches
from closure_jax.data.generate import exclusive
from closure_jax.data.once import once as arrays_once
from closure_jax.latent.spaces import Setting
from closure_jax.parallel import devices, processes
from closure_jax.training import identity, steps
from closure_jax.training.state import TrainState

if TYPE_CHECKING:
    from closure_jax.training.phase import Params, Phase, Run

_PROBE = 16  # fields on which the programs are written down


def once(phase: "Phase", run: "Run", train: Callable[[], "Params"]) -> "Params":
    """What `train()` returns, with the phase's checkpoint and records taken from the cache where another run left them.

    A run that has begun the phase itself goes on by itself. The folder is locked meanwhile, so that a second run waits. A phase
    that trains no autoencoder, or one without parameters, is not shared.
    """
    experiment, field, work = run.experiment, phase.shared_field, run.work
    if field is None or not jax.tree.leaves(jax.eval_shape(phase.start, jax.random.key(0), {})):
        return train()
    folder = run.cache / "autoencoders" / f"{field}-{address(phase, experiment, run.dataset.checksum)}"

    def take() -> None:
        if not work.has_begun(phase.name) and (folder / "trained_by.json").is_file():
            by = work.import_phase(phase.name, folder)
            if by is None:
                print(f"{phase.name}: what another run left in {folder} is damaged, trains anew")
                shutil.rmtree(folder)
            else:
                print(f"{phase.name}: trained by {by['experiment']}-{by['preset']} before, copied from {folder}")

    def give() -> None:
        if not folder.exists():
            facts = {"experiment": experiment.name, "preset": experiment.preset, "seed": experiment.seed}
            work.export_phase(phase.name, folder, facts)

    with exclusive(folder):
        processes.on_main(take)
        params = train()
        processes.on_main(give)
    return params


def address(phase: "Phase", experiment: Experiment, checksum: str) -> str:
    """Content address of a trained autoencoder: data, configuration, number of devices, draws, and the programs that make it."""
    stored = config_lib.to_dict(experiment.config)
    makes = {
        "field": phase.shared_field,
        "data": checksum,
        "seed": experiment.seed,
        "autoencoder": stored["autoencoder"],
        "latent": stored["latent"],
        "training": stored["training"],
        "devices": devices.count(),
        "programs": _programs(phase, experiment),
        "key": jax.random.key_data(random.stream(experiment.seed, "initialise", phase.name)).tolist(),
        "batch": batches.batch_indices(experiment.seed, 1, 1000, 10).tolist(),
    }
    return hashlib.sha256(json.dumps(makes, sort_keys=True).encode()).hexdigest()[:12]


def _programs(phase: "Phase", experiment: Experiment) -> list[str]:
    """Digests of what is computed: the initialisation, and the training step on a probe batch of random fields."""
    n, training = experiment.data.resolution, phase.training
    probe = np.random.default_rng(0).standard_normal((_PROBE, n, n)).astype(np.float32)
    setting = Setting(
        field=str(phase.shared_field),
        latent_shape=experiment.latent_shape,
        batch_size=training.settings.batch_size,
        seed=experiment.seed,
        cached=lambda name, numbers, make: make(),
    )
    with contextlib.redirect_stdout(None):
        term, extras = experiment.latent.term(probe, setting)
    batch = {"field": probe, "position": np.arange(_PROBE)} | ({} if extras is None else {"extra": extras})
    adam, key = optimiser(training.settings, training.schedule), jax.eval_shape(lambda: jax.random.key(0))
    loss = steps.autoencoder_loss(*experiment.autoencoder_modules(), term)
    train_step = devices.alone(steps.make_train_step(loss, adam, training.settings.ema_decay))

    def initial(key: jax.Array) -> TrainState:
        return TrainState.create(phase.start(key, {}), adam)

    return [
        identity.program_digest(initial, key),
        identity.program_digest(train_step, jax.eval_shape(initial, key), batch, key),
    ]


def cached(run: "Run", field: str, name: str, numbers: dict[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that depends on the training fields and on numbers, made once for all runs that see the same data.

    Args:
      run: its cache and data.
      field: 'vorticity' or 'closure'.
      name: what it is, such as 'potential'.
      numbers: everything else that it depends on, the version of the method included.
      make: computes it.
    """
    parts = [name, field, run.dataset.checksum[:12], *(str(value) for value in numbers.values())]
    file: pathlib.Path = run.cache / f"{'-'.join(parts)}.h5"

    def made() -> dict[str, np.ndarray]:
        print(f"latent_distances: {name} of the {field} fields")
        return {"array": make()}

    facts = {"field": field, "data_checksum": run.dataset.checksum, **numbers}
    return arrays_once(file, ["array"], made, "latent_distances", facts)["array"]
