"""The configuration: every field with its published value, the presets, overrides and validation.

`base(preset)` returns a plain ml_collections ConfigDict; an experiment changes what differs. `build.py` turns it into objects;
physics, models, transport and latent take what they need by name and never see it.
"""

import ast
import difflib
import importlib.util
import math
import pathlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections

from closure_jax.errors import UserError

PRESETS = ("paper", "small", "tiny")


def base(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration, changed by `preset`.

    Args:
      preset: paper (published sizes and schedule), small (minutes on two CPU cores) or tiny (under a minute; for tests).
    Raises:
      UserError: unknown preset.
    """
    if preset not in PRESETS:
        raise UserError(f"preset '{preset}' is unknown: expected {', '.join(PRESETS)}{_nearest(preset, PRESETS)}")
    config = _paper()
    config.preset = preset
    for field, value in {"paper": {}, "small": _SMALL, "tiny": _TINY}[preset].items():
        _assign(config, field, value)
    return config


def _paper() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {
            "experiment": "",
            "preset": "",
            "seed": 0,
            "flow": {  # arXiv 2602.17089, section 2; equations in physics/flow.py and physics/noise.py
                "kind": "kolmogorov",
                "resolution": 256,
                "domain_length": 1.0,
                "viscosity": 1e-3,
                "dt": 1e-3,
                "forcing_amplitude": 0.1,
                "forcing_wavenumber": 1,
                "noise_sigma": 5e-5,
                "noise_kappa": 10.0,
                "noise_alpha": 0.005,
                "initial_alpha": 2.5,
                "initial_tau": 7.0,
            },
            "data": {
                "path": "",  # an existing file, ours or in the authors' layout; empty: simulate
                "trajectories": 100,
                "test_trajectories": 10,
                "resolution": 64,
                "burn_in": 20.0,
                "end": 40.0,
                "snapshot_every": 100,  # steps
                "chunk": 50,  # trajectories simulated together
            },
            "autoencoder": {
                "kind": "published",
                "latent_resolution": 16,
                "latent_channels": 1,
                "width": 64,
                "blocks": 1,
                "batch_size": 100,
                "steps": 162_000,  # 1000 epochs of 16,200 fields
                "learning_rate": 1e-3,
                "schedule": "plateau",
                "decay_every": 4860,  # steps; for plateau the patience, 30 epochs
                "decay_factor": 0.8,
                "warmup_steps": 0,
                "clip_norm": 0.0,
                "ema_decay": 0.0,
            },
            "latent": {
                "kind": "ga",
                "ga": {
                    "weight": 1e-3,
                    "zeta": 1.0,
                    "scale": "neighbourhood",  # or "published", which is inert: see latent/geometry_aware.py
                    "knn": 10,
                    "diffusion_time": 10,
                    "components": 100,
                    "landmarks": 2000,
                },
            },
            "network": {
                "kind": "fourier",
                "prediction": "target",  # what the network puts out: the path's target, or the data itself
                "width": 20,
                "modes": 4,
                "depth": 4,
                "condition_width": 20,
                "condition_depth": 4,
                "condition_gated": False,
                "hidden": 128,
                "time_features": 256,
                "time_scale": 30.0,
            },
            "transport": {
                "process": "flow_matching",
                "batch_size": 100,
                "steps": 162_000,
                "learning_rate": 1e-3,
                "schedule": "step",
                "decay_every": 16_200,  # 100 epochs
                "decay_factor": 0.5,
                "warmup_steps": 0,
                "clip_norm": 0.0,
                "ema_decay": 0.999,
            },
            "sampler": {"steps": 10},
            "training": {"log_every": 50, "checkpoint_every": 1000, "validation_fields": 256},
            "evaluation": {
                "states": 64,
                "samples": 100,
                "steps": (1, 2, 5, 10, 50),
                "rollout_states": 10,
                "rollout_members": 100,
                "rollout_start": 30.0,
                "rollout_time": 20.0,
                "rollout_sampler_steps": 2,
                "rollout_hold": 5,
                "rollout_white_noise": 5e-5,
            },
        }
    )


_SMALL = {
    "flow.resolution": 64,
    "data.trajectories": 48,
    "data.test_trajectories": 8,
    "data.chunk": 48,
    "autoencoder.kind": "compact",
    "autoencoder.width": 32,
    "autoencoder.blocks": 3,
    "autoencoder.batch_size": 32,
    "autoencoder.steps": 300,
    "autoencoder.learning_rate": 2e-3,
    "autoencoder.schedule": "cosine",
    "autoencoder.warmup_steps": 20,
    "autoencoder.clip_norm": 1.0,
    "network.prediction": "data",
    "network.width": 12,
    "network.depth": 2,
    "network.condition_width": 24,
    "network.condition_depth": 3,
    "network.condition_gated": True,
    "network.modes": 8,
    "network.hidden": 64,
    "network.time_scale": 1.0,
    "transport.batch_size": 32,
    "transport.steps": 3000,
    "transport.learning_rate": 3e-3,
    "transport.schedule": "cosine",
    "transport.warmup_steps": 50,
    "transport.clip_norm": 1.0,
    "transport.ema_decay": 0.99,
    "training.log_every": 20,
    "training.checkpoint_every": 200,
    "evaluation.samples": 64,
    "evaluation.rollout_states": 2,
    "evaluation.rollout_members": 16,
    "evaluation.rollout_time": 10.0,
    "evaluation.rollout_sampler_steps": 4,
    "evaluation.rollout_white_noise": 0.0,
}

_TINY = _SMALL | {
    "flow.resolution": 32,
    "data.resolution": 32,
    "data.trajectories": 8,
    "data.test_trajectories": 2,
    "data.chunk": 8,
    "data.burn_in": 1.0,
    "data.end": 3.0,
    "data.snapshot_every": 50,
    "autoencoder.latent_resolution": 8,
    "autoencoder.width": 8,
    "autoencoder.blocks": 1,
    "autoencoder.batch_size": 16,
    "autoencoder.steps": 40,
    "autoencoder.warmup_steps": 5,
    "latent.ga.components": 20,
    "network.width": 8,
    "network.condition_width": 8,
    "network.modes": 4,
    "network.depth": 1,
    "network.condition_depth": 1,
    "network.hidden": 16,
    "network.time_features": 32,
    "transport.batch_size": 16,
    "transport.steps": 60,
    "transport.warmup_steps": 5,
    "training.log_every": 5,
    "training.checkpoint_every": 20,
    "training.validation_fields": 32,
    "evaluation.states": 4,
    "evaluation.samples": 8,
    "evaluation.rollout_members": 4,
    "evaluation.rollout_start": 1.5,
    "evaluation.rollout_time": 1.0,
}


# --- loading and overriding ------------------------------------------------------------------------------------------


def load(spec: str, default_preset: str = "paper") -> ml_collections.ConfigDict:
    """Loads `FILE.py[:preset]` by calling its `get_config(preset)`; the experiment is named after the file.

    Raises:
      UserError: no such file, no get_config in it, or unknown preset.
    """
    path_text, _, preset = spec.partition(":") if ":" in pathlib.Path(spec).name else (spec, "", "")
    path = pathlib.Path(path_text)
    if not path.is_file():
        raise UserError(f"configuration '{path_text}' is not a file: expected experiments/NAME.py[:preset]")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"configuration '{path_text}' is not a Python file: expected experiments/NAME.py[:preset]")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"configuration '{path_text}' has no get_config(preset): see experiments/fm_ga.py for one")
        config = module.get_config(preset or default_preset)
    except UserError:
        raise
    except Exception as error:  # the experiment is the user's own file
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 0)
        reason = " ".join(str(error).split())
        raise UserError(f"configuration '{path_text}', line {line}: {type(error).__name__}: {reason}") from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"configuration '{path_text}': get_config returned {type(config).__name__}, expected a ConfigDict"
        )
    config.experiment = path.stem
    return config


def override(config: ml_collections.ConfigDict, assignments: Iterable[str]) -> None:
    """Applies `field=value` texts (`--config.` already cut) in place, with the type that the field has.

    Raises:
      UserError: unknown field (the nearest known one is named) or a value of another type.
    """
    known = dict(fields(config))
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if field not in known:
            hint = _nearest(field, known)
            raise UserError(f"--config.{field}: no such field{hint}; --dry_run prints all fields")
        if not equals:
            raise UserError(f"--config.{field} has no value: expected --config.{field}=VALUE, now {known[field]!r}")
        if field in ("experiment", "preset"):
            raise UserError(f"--config.{field}={text} can't be overridden: choose it by experiments/NAME.py:PRESET")
        _assign(config, field, _parse(field, text, known[field]))


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves as (dotted name, value), in order."""
    for name in config:
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def to_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Nested plain dict, tuples as lists: what config.json holds."""
    return {
        name: to_dict(value)
        if isinstance(value, ml_collections.ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in config.items()
    }


def from_dict(stored: dict[str, Any]) -> ml_collections.ConfigDict:
    """Inverse of `to_dict`, in the order and with the types of the present `base`.

    Raises:
      UserError: a field that this version does not know.
    """
    config = base(stored.get("preset", "paper"))
    known = dict(fields(config))
    for field, value in fields(ml_collections.ConfigDict(stored)):
        if field not in known:
            raise UserError(f"stored configuration has the field '{field}', unknown to this version: train again")
        _assign(config, field, tuple(value) if isinstance(value, list | tuple) else value)
    return config


def _assign(config: ml_collections.ConfigDict, field: str, value: Any) -> None:
    *parents, leaf = field.split(".")
    for parent in parents:
        config = config[parent]
    config[leaf] = value


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if not close:  # the leaf may be right and the path wrong
        leaves = {field.rsplit(".", 1)[-1]: field for field in known}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1)]
    return f"; the nearest is '{close[0]}'" if close else ""


def _parse(field: str, text: str, current: Any) -> Any:
    kind = type(current)
    try:
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is tuple:
            values = ast.literal_eval(text if "," in text or text.startswith(("(", "[")) else f"({text},)")
            values = tuple(values)
            if not all(type(value) is int for value in values):
                raise ValueError(text)
            return values
        if kind is int:
            value = float(text)
            if value != int(value):
                raise ValueError(text)
            return int(value)
        return float(text)
    except (ValueError, KeyError, SyntaxError, OverflowError, TypeError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", tuple: "whole numbers like 1,10,50"}
        raise UserError(f"--config.{field}={text} is not {wanted[kind]}: expected one like {current!r}") from None


# --- validation ------------------------------------------------------------------------------------------------------

Rule = tuple[Callable[[Any], bool], str]
_POSITIVE: Rule = (lambda v: v > 0, "a number above 0")
_NON_NEGATIVE: Rule = (lambda v: v >= 0, "a number that is not negative")
_FRACTION: Rule = (lambda v: 0 <= v < 1, "a number from 0 up to, not including, 1")
_AT_LEAST_TWO: Rule = (lambda v: v >= 2, "a whole number of at least 2")
_EVEN: Rule = (lambda v: v >= 8 and v % 2 == 0, "an even whole number of at least 8")

_RULES: dict[str, Rule] = {
    "flow.resolution": _EVEN,
    "data.resolution": _EVEN,
    "data.trajectories": (lambda v: v >= 3, "a whole number of at least 3 (train, validation, test)"),
    "data.test_trajectories": _POSITIVE,
    "data.burn_in": _NON_NEGATIVE,
    "flow.noise_sigma": _NON_NEGATIVE,
    "flow.forcing_amplitude": (math.isfinite, "a finite number"),
    "flow.initial_tau": _POSITIVE,
    "seed": (lambda v: 0 <= v < 2**31, "a whole number from 0 to 2147483647"),
    "autoencoder.clip_norm": _NON_NEGATIVE,
    "transport.clip_norm": _NON_NEGATIVE,
    "autoencoder.warmup_steps": _NON_NEGATIVE,
    "transport.warmup_steps": _NON_NEGATIVE,
    "autoencoder.ema_decay": _FRACTION,
    "transport.ema_decay": _FRACTION,
    "autoencoder.batch_size": _AT_LEAST_TWO,
    "latent.ga.weight": _NON_NEGATIVE,
    "latent.ga.zeta": _NON_NEGATIVE,
    "evaluation.samples": _AT_LEAST_TWO,
    "evaluation.rollout_members": _AT_LEAST_TWO,
    "evaluation.rollout_start": _NON_NEGATIVE,
    "evaluation.rollout_white_noise": _NON_NEGATIVE,
    "evaluation.steps": (lambda v: len(v) > 0 and min(v) > 0, "at least one number of sampler steps, all above 0"),
}


def validate(config: ml_collections.ConfigDict, choices: dict[str, Iterable[str]]) -> None:
    """Checks every field, then what fields demand of each other.

    Args:
      config: resolved configuration.
      choices: allowed texts by field, e.g. {"transport.process": PROCESSES}; given by the caller, who knows the registries.
    Raises:
      UserError: the first impossible value, in one line.
    """
    for field, value in fields(config):
        if field in choices:
            if value not in choices[field]:
                expected = ", ".join(sorted(choices[field]))
                raise UserError(
                    f"--config.{field}={value}: expected one of {expected}{_nearest(value, choices[field])}"
                )
            continue
        if isinstance(value, str | bool):
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers):
            raise UserError(f"--config.{field}={value} is not finite: expected a finite number")
        holds, expected = _RULES.get(field, _POSITIVE)
        if not holds(value):
            raise UserError(f"--config.{field}={value}: expected {expected}")
    for holds, message in _relations(config):
        if not holds:
            raise UserError(message)


def _relations(c: ml_collections.ConfigDict) -> list[tuple[bool, str]]:
    flow, data, ae, ev = c.flow, c.data, c.autoencoder, c.evaluation
    interval = data.snapshot_every * flow.dt
    train = data.trajectories - data.test_trajectories
    snapshots = (data.end - data.burn_in) / interval
    rollout_steps = round(1.0 / flow.dt)
    return [
        (
            train >= 2,
            f"--config.data.test_trajectories={data.test_trajectories}: expected at most data.trajectories - 2 ="
            f" {data.trajectories - 2} (one to train on, one to validate)",
        ),
        (
            data.path != "" or flow.resolution % data.resolution == 0,
            f"--config.data.resolution={data.resolution} does not divide flow.resolution = {flow.resolution}:"
            " expected a divisor, since every n-th point is stored",
        ),
        (
            data.resolution % ae.latent_resolution == 0 and data.resolution > ae.latent_resolution,
            f"--config.autoencoder.latent_resolution={ae.latent_resolution} does not divide data.resolution ="
            f" {data.resolution}: expected a smaller divisor, such as {data.resolution // 4}",
        ),
        (
            ae.kind != "published" or data.resolution == 4 * ae.latent_resolution,
            f"--config.autoencoder.latent_resolution={ae.latent_resolution}: the published autoencoder halves twice,"
            f" expected data.resolution / 4 = {data.resolution // 4}",
        ),
        (
            2 * c.network.modes <= ae.latent_resolution,
            f"--config.network.modes={c.network.modes}: expected at most half of autoencoder.latent_resolution ="
            f" {ae.latent_resolution}",
        ),
        (
            data.burn_in < data.end,
            f"--config.data.burn_in={data.burn_in}: expected less than data.end = {data.end}",
        ),
        (
            snapshots >= 2,
            f"--config.data.snapshot_every={data.snapshot_every}: expected at least 2 snapshots between"
            f" data.burn_in = {data.burn_in} and data.end = {data.end}",
        ),
        (
            abs(snapshots - round(snapshots)) < 1e-6
            and abs(data.burn_in / interval - round(data.burn_in / interval)) < 1e-6,
            f"--config.data.snapshot_every={data.snapshot_every}: expected data.burn_in = {data.burn_in} and data.end ="
            f" {data.end} to be whole multiples of snapshot_every * flow.dt = {interval:g}",
        ),
        (
            c.training.checkpoint_every % c.training.log_every == 0,
            f"--config.training.checkpoint_every={c.training.checkpoint_every}: expected a multiple of training.log_every ="
            f" {c.training.log_every}",
        ),
        (
            abs(rollout_steps * flow.dt - 1) < 1e-6 and rollout_steps % ev.rollout_hold == 0,
            f"--config.evaluation.rollout_hold={ev.rollout_hold}: expected a divisor of the steps in one time unit,"
            f" 1 / flow.dt = {1 / flow.dt:g}",
        ),
        (
            abs(ev.rollout_time - round(ev.rollout_time)) < 1e-6,
            f"--config.evaluation.rollout_time={ev.rollout_time}: expected a whole number of time units",
        ),
        (
            data.burn_in < ev.rollout_start + 1e-9 <= data.end + 2e-9,
            f"--config.evaluation.rollout_start={ev.rollout_start}: expected a stored time, after data.burn_in ="
            f" {data.burn_in} and up to data.end = {data.end}",
        ),
        (
            ev.rollout_states <= data.test_trajectories,
            f"--config.evaluation.rollout_states={ev.rollout_states}: expected at most data.test_trajectories ="
            f" {data.test_trajectories}",
        ),
    ]
