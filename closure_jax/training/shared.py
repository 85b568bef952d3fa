"""What several runs share, kept beside the data: autoencoders, trained once for what makes them, and potentials of the data."""

import contextlib
import copy
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from closure_jax import config as config_lib
from closure_jax import files, random
from closure_jax.config.experiment import Experiment
from closure_jax.config.optimisers import optimiser
from closure_jax.data import batches
from closure_jax.data.generate import exclusive
from closure_jax.data.once import once as arrays_once
from closure_jax.errors import UserError
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
            facts["latent"] = experiment.config.latent.kind
            work.export_phase(phase.name, folder, facts)

    with exclusive(folder):
        processes.on_main(take)
        params = train()
        processes.on_main(give)
    return params


def reconstructing(phase_of: Callable[[Experiment], "Phase"], run: "Run") -> "Params | None":
    """The autoencoder that differs from a run's by being trained for reconstruction alone, where another run has left it.

    Args:
      phase_of: the phase that trains it, of an experiment.
      run: that of the other latent.
    """
    left_by = (run.cache / "autoencoders").glob(f"{phase_of(run.experiment).shared_field}-*/trained_by.json")
    left = [file.parent for file in left_by if _left_by(file) == ("recon", run.experiment.seed)]
    if not left:
        return None
    from closure_jax.workdir import WorkDir

    config = copy.deepcopy(run.experiment.config)
    config_lib.use(config, "latent", "recon")
    experiment = config_lib.build(config)
    phase = phase_of(experiment)
    name = f"{phase.shared_field}-{address(phase, experiment, run.dataset.checksum)}"
    adam = optimiser(phase.training.settings, phase.training.schedule)
    with tempfile.TemporaryDirectory() as scratch:
        work = WorkDir(pathlib.Path(scratch))
        for folder in left:
            if folder.name == name and work.import_phase(phase.name, folder) is not None:
                state = TrainState.create(phase.start(jax.random.key(0), {}), adam)
                checkpoints = work.checkpoints(phase.name)
                try:
                    return checkpoints.restore(state.as_dict())["ema"]
                finally:
                    checkpoints.close()
    return None


def _left_by(file: pathlib.Path) -> tuple[str | None, int | None]:
    """Kind of the latent, and seed, of the run that left a shared autoencoder; releases that did not say so: None."""
    with contextlib.suppress(UserError):
        facts = files.read_json(file, "") or {}
        return facts.get("latent"), facts.get("seed")
    return None, None


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
    of_probe = setting(experiment, str(phase.shared_field), lambda name, numbers, make: make())
    with contextlib.redirect_stdout(None):
        term, extras = experiment.latent.term(probe, of_probe)
        beside = companions(experiment.latent, probe, of_probe)
    batch = {"field": probe, "position": np.arange(_PROBE)} | ({} if extras is None else {"extra": extras})
    adam, key = optimiser(training.settings, training.schedule), jax.eval_shape(lambda: jax.random.key(0))
    loss = steps.autoencoder_loss(*experiment.autoencoder_modules(), term)
    train_step = devices.alone(steps.make_train_step(loss, adam, training.settings.ema_decay))

    def initial(key: jax.Array) -> TrainState:
        return TrainState.create(phase.start(key, {}), adam)

    paired = [] if beside is None else [str(batches.paired_indices(experiment.seed, 1, beside, _PROBE).tolist())]
    return [
        identity.program_digest(initial, key),
        identity.program_digest(train_step, jax.eval_shape(initial, key), batch, key),
        *paired,
    ]


def setting(experiment: Experiment, field: str, cached: Callable[..., np.ndarray]) -> Setting:
    """What the latent of 'vorticity' or 'closure' may depend on."""
    return Setting(
        field=field,
        latent_shape=experiment.latent_shape,
        batch_size=experiment.autoencoder_training.settings.batch_size,
        seed=experiment.seed,
        cached=cached,
    )


def companions(latent: Any, fields: np.ndarray, setting: Setting) -> np.ndarray | None:
    """Which training fields may stand beside each in a batch, (N, k); None where the latent draws batches at random."""
    found = getattr(latent, "companions", None)
    return None if found is None else found(fields, setting)


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
