"""The configuration: loading an experiment, overrides, and its forms as text and JSON.

`base(preset)` returns a plain ml_collections ConfigDict; an experiment changes what differs. `build.py` turns it into objects;
physics, models, transport and latent take what they need by name and never see it.
"""

import ast
import difflib
import fnmatch
import importlib.util
import os
import pathlib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ml_collections

from closure_jax.config import presets
from closure_jax.errors import UserError

PRESETS = tuple(presets.CHANGES)


def base(preset: str = "paper", process: str = "flow_matching", latent: str = "ga") -> ml_collections.ConfigDict:
    """The published configuration of a process in a latent space, changed by `preset`.

    Args:
      preset: paper (published sizes and schedule), small (minutes on two CPU cores) or tiny (under a minute; for tests).
      process, latent: names; what they change beside themselves stands in `presets`.
    Raises:
      UserError: unknown preset.
    """
    if preset not in PRESETS:
        raise UserError(f"preset '{preset}' is unknown: expected {', '.join(PRESETS)}{nearest(preset, PRESETS)}")
    config = presets.paper()
    config.preset = preset
    of_latent, of_process = presets.LATENTS.get(latent, {}), presets.PROCESSES.get(process, {})
    changes = [presets.CHANGES[preset], of_latent.get("", {}), of_latent.get(preset, {})]
    changes += [of_process.get(case, {}) for case in ("", preset, latent, f"{preset} {latent}")]
    for change in [*changes, {"transport.process": process, "latent.kind": latent}]:
        for field, value in change.items():
            _assign(config, field, value)
    return config


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
    except (Exception, SystemExit) as error:  # the experiment is the user's own file
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == module_spec.origin]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f", line {line}" if line else ""
        reason = " ".join(str(error).split())
        raise UserError(f"configuration '{path_text}'{where}: {type(error).__name__}: {reason}") from None
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
            hint = nearest(field, known)
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
    if not isinstance(stored, dict):
        raise UserError(f"stored configuration is a {type(stored).__name__}: expected an object of fields")
    config = base(typed("preset", stored.get("preset", "paper"), ""))
    known = dict(fields(config))
    for field, value in _leaves(stored):
        if field not in known:
            raise UserError(f"stored configuration has the field '{field}', unknown to this version: train again")
        _assign(config, field, typed(field, tuple(value) if isinstance(value, list) else value, known[field]))
    return config


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def typed(field: str, value: Any, like: Any) -> Any:
    """`value` with the type of `like`; a whole number may stand for a float.

    Raises:
      UserError: it has another type.
    """
    if type(like) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(like) or (type(like) is tuple and not all(type(one) is int for one in value)):
        raise UserError(f"--config.{field}={value!r} is a {type(value).__name__}: expected one like {like!r}")
    return value


def _assign(config: ml_collections.ConfigDict, field: str, value: Any) -> None:
    *parents, leaf = field.split(".")
    for parent in parents:
        config = config[parent]
    config[leaf] = value


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; the nearest is ..." for a name that is not among the known ones; empty where none is near."""
    known = list(known)
    same_leaf = [field for field in known if field.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    close = same_leaf[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
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


def experiments(patterns: Sequence[str] = ("*",)) -> list[pathlib.Path]:
    """Files in experiments/ beside launch.sh whose names match one of the patterns, such as `fm_*`.

    Raises:
      UserError: a pattern that matches none.
    """
    folder = pathlib.Path(os.environ.get("CLOSURE_JAX_HOME", ".")) / "experiments"
    files = sorted(folder.glob("*.py"))
    if not files:
        raise UserError(f"'{folder}' has no experiments: expected to be started by launch.sh, or in the repository")
    for pattern in patterns:
        if not any(fnmatch.fnmatch(file.stem, pattern) for file in files):
            hint = nearest(pattern, [file.stem for file in files])
            raise UserError(
                f"'{pattern}' matches no experiment in '{folder}'{hint}; expected a name or a pattern like fm_*"
            )
    return [file for file in files if any(fnmatch.fnmatch(file.stem, pattern) for pattern in patterns)]
