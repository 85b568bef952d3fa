"""Trained closures: those that runs left, and those that ship with the package.

A shipped one is an .npz file in this folder with parameters, scalings and configuration.
Its parameters are kept in half precision, which halves the file and moves a sample by about a thousandth of its size.
"""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from closure_jax import config as config_lib
from closure_jax.closure import StochasticClosure
from closure_jax.config import Experiment
from closure_jax.errors import UserError
from closure_jax.workdir import WorkDir

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """Names of the closures that ship with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.npz"))


def load(where: str | pathlib.Path) -> StochasticClosure:
    """A trained closure, see `opened`."""
    return opened(where)[0]


def opened(where: str | pathlib.Path) -> tuple[StochasticClosure, Experiment]:
    """A trained closure, and the experiment that it is from.

    Args:
      where: the name of one that ships with the package, such as 'fm_ga', as text; or the work directory of a run that has ended.
    Raises:
      UserError: no text or path; there is none, or two, a phase of the run is not trained, or a piece of the run is missing.
    """
    given: Any = where  # whatever it is
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        shown = " ".join(repr(given).split())[:80]
        raise UserError(
            f"where={shown}: expected, as text or a path, the name of a closure that ships with the package"
            f" ({', '.join(names())}), or the work directory of a run"
        )
    work = WorkDir(text)
    if isinstance(where, str) and where in names():
        if (work.path / "config.json").is_file():
            raise UserError(
                f"'{where}' is a closure that ships with the package and a run in this folder too: expected one of them;"
                f" ./{where} is the run, and from another folder {where} the one that ships"
            )
        model, experiment, _ = shipped(where)
        return model, experiment
    if not os.path.isdir(
        text or "."
    ):  # a pathlib.Path raises where a name is too long, or a folder can't be looked into
        raise UserError(
            f"{text[:200]!r} is no closure that ships with the package ({', '.join(names())}) and no folder: expected one of"
            " those names, or the work directory of a run"
        )
    experiment = config_lib.build(work.config())
    checkpoints = work.checkpoints("closure")
    try:
        restored = checkpoints.restore(experiment.template())
    finally:
        checkpoints.close()
    return experiment.assemble(jax.tree.map(jnp.asarray, restored)), experiment


def shipped(name: str) -> tuple[StochasticClosure, Experiment, dict[str, Any]]:
    """A closure that ships with the package, the experiment that it is from, and facts: revision, device, results.

    Raises:
      UserError: there is none of that name.
    """
    file = FOLDER / f"{name}.npz"
    if not file.is_file():
        raise UserError(f"no trained closure '{name}' ships with the package: expected {', '.join(names()) or 'one'}")
    with np.load(file, allow_pickle=False) as stored:
        flat = {key: jnp.asarray(stored[key], jnp.float32) for key in stored.files if key not in ("config", "facts")}
        config, facts = json.loads(str(stored["config"])), json.loads(str(stored["facts"]))
    experiment = config_lib.build(config_lib.from_dict(config))
    return experiment.assemble(traverse_util.unflatten_dict(flat, sep="/")), experiment, facts


def pack(directory: pathlib.Path, folder: pathlib.Path = FOLDER) -> pathlib.Path:
    """Writes the closure of a finished run as a file that `shipped` reads, and returns its path.

    Raises:
      UserError: the run has not ended.
    """
    work = WorkDir(directory)
    results, config = work.results(), work.config()
    if results is None:
        raise UserError(f"'{directory}' has no results.json: expected a run that has ended; start it again")
    model = load(directory)
    scalings = {name: {"mean": s.mean, "std": s.std} for name, s in model.scalings.items()}
    halves = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), model.params)
    flat = traverse_util.flatten_dict({"params": halves, "scalings": jax.device_get(scalings)}, sep="/")
    facts = {name: results[name] for name in ("experiment", "preset", "trained_revision", "device")}
    facts["over_floor"] = {n: measures["over_floor"] for n, measures in results["a_priori"]["by_steps"].items()}
    folder.mkdir(exist_ok=True)
    file = folder / f"{config.experiment}.npz"
    texts = {"config": json.dumps(config_lib.to_dict(config)), "facts": json.dumps(facts)}
    arrays: dict[str, Any] = {**flat} | {name: np.array(text) for name, text in texts.items()}
    np.savez_compressed(file, **arrays)
    return file
