"""Trained closures that ship with the package: one .npz file each, with parameters, scalings and configuration.

Parameters are kept in half precision, which halves the file and moves a sample by about a thousandth of its size.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from closure_jax import config as config_lib
from closure_jax.closure import StochasticClosure
from closure_jax.config import build
from closure_jax.errors import UserError
from closure_jax.workdir import WorkDir

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """What there is."""
    return sorted(file.stem for file in FOLDER.glob("*.npz"))


def load(name: str = "fm_ga") -> tuple[StochasticClosure, ml_collections.ConfigDict, dict[str, Any]]:
    """A closure, the configuration that it was trained with, and facts: revision, device, results.

    Raises:
      UserError: there is none of that name.
    """
    file = FOLDER / f"{name}.npz"
    if not file.is_file():
        raise UserError(f"no trained closure '{name}' ships with the package: expected {', '.join(names()) or 'one'}")
    with np.load(file, allow_pickle=False) as stored:
        flat = {key: jnp.asarray(stored[key], jnp.float32) for key in stored.files if key not in ("config", "facts")}
        config, facts = json.loads(str(stored["config"])), json.loads(str(stored["facts"]))
    config = config_lib.from_dict(config)
    return build.assemble(config, traverse_util.unflatten_dict(flat, sep="/")), config, facts


def load_run(directory: str | pathlib.Path) -> StochasticClosure:
    """The closure that a finished run left in its work directory.

    Raises:
      UserError: no run there, or a phase that is not trained.
    """
    work = WorkDir(directory)
    config = work.config()
    checkpoints = work.checkpoints("closure")
    try:
        restored = checkpoints.restore(build.template_of(config))
    finally:
        checkpoints.close()
    return build.assemble(config, jax.tree.map(jnp.asarray, restored))


def pack(directory: pathlib.Path, folder: pathlib.Path = FOLDER) -> pathlib.Path:
    """Writes the closure of a finished run as a file that `load` reads, and returns its path.

    Raises:
      UserError: the run has not ended.
    """
    work = WorkDir(directory)
    results, config = work.results(), work.config()
    if results is None:
        raise UserError(f"'{directory}' has no results.json: expected a run that has ended; start it again")
    model = StochasticClosure.load(directory)
    scalings = {name: {"mean": s.mean, "std": s.std} for name, s in model.scalings.items()}
    halves = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), model.params)
    flat = traverse_util.flatten_dict({"params": halves, "scalings": jax.device_get(scalings)}, sep="/")
    facts = {name: results[name] for name in ("experiment", "preset", "trained_revision", "device")}
    facts["over_floor"] = {n: measures["over_floor"] for n, measures in results["a_priori"]["by_steps"].items()}
    folder.mkdir(exist_ok=True)
    file = folder / f"{config.experiment}.npz"
    texts = {"config": json.dumps(config_lib.to_dict(config)), "facts": json.dumps(facts)}
    np.savez_compressed(file, **flat, **{name: np.array(text) for name, text in texts.items()})
    return file
