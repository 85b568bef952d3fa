"""Experiments as files, overrides from the command line, and stored configurations."""

import fnmatch
import importlib.util
import os
import pathlib
import traceback
import types
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections

from closure_jax.config import names, schema, sections
from closure_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def load(spec: str, default_preset: str = "paper") -> ConfigDict:
    """Loads `FILE.py[:preset]` by calling its `get_config(preset)`; the experiment is named after the file.

    Raises:
      UserError: no such file, no get_config in it, or unknown preset.
    """
    path_text, _, preset = spec.rpartition(":") if ":" in pathlib.Path(spec).name else (spec, "", "")
    file = pathlib.Path(path_text)
    if not file.is_file():
        raise UserError(f"configuration '{path_text}' is not a file: expected experiments/NAME.py[:preset]")
    module = execute(file)
    if not hasattr(module, "get_config"):
        raise UserError(f"configuration '{path_text}' has no get_config(preset): see experiments/fm_ga.py for one")
    config = _guarded(file, lambda: module.get_config(preset or default_preset))
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"configuration '{path_text}': get_config returned {type(config).__name__}, expected a ConfigDict"
        )
    for part in (*sections.HEAD, *sections.SECTIONS):
        if part not in config:
            raise UserError(
                f"configuration '{path_text}': get_config returned one without '{part}', expected base(preset), changed"
            )
    with config.unlocked():
        config.experiment = file.stem
    return config


def execute(file: pathlib.Path, name: str = "") -> types.ModuleType:
    """Runs an experiment's file, so that pieces that it defines can be found by name.

    Args:
      file: the file, or a run's copy of it.
      name: of the experiment; the file's own where none is given.

    Raises:
      UserError: it is no Python, or fails; the message names the line.
    """
    resolved = file.resolve()
    spec = importlib.util.spec_from_file_location(sections.module_name(name or file.stem), resolved)
    if spec is None or spec.loader is None:
        raise UserError(f"configuration '{file}' is not a Python file: expected experiments/NAME.py[:preset]")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sections.register(module)
    _guarded(file, lambda: loader.exec_module(module))
    return module


def _guarded(file: pathlib.Path, run: Any) -> Any:
    """Calls what stands in the user's own file; what it raises becomes one line."""
    try:
        return run()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file.resolve())]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f", line {line}" if line else ""
        reason = " ".join(str(error).split())
        raise UserError(f"configuration '{file}'{where}: {type(error).__name__}: {reason}") from None


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
            hint = names.nearest(pattern, [file.stem for file in files])
            raise UserError(
                f"'{pattern}' matches no experiment in '{folder}'{hint}; expected a name or a pattern like fm_*"
            )
    return [file for file in files if any(fnmatch.fnmatch(file.stem, pattern) for pattern in patterns)]


# --- overrides -------------------------------------------------------------------------------------------------------


def override(config: ConfigDict, assignments: Iterable[str]) -> None:
    """Applies `field=value` texts (`--config.` already cut) in place; fields that name classes come first.

    Raises:
      UserError: unknown field (the nearest known one is named) or a value of another type.
    """
    given = [assignment.partition("=") for assignment in assignments]
    for field, equals, text in given:
        choosing = sections.selectors(config)
        if field in choosing and equals:
            section, choice = choosing[field]
            sections.use(config, f"{section}.{choice.selector}", text)
    for field, equals, text in given:
        known = sections.known_fields(config)
        name = current_name(config, field)
        if name not in known:
            raise UserError(
                f"--config.{field}: no such field{names.nearest(field, known)}; --dry_run prints all fields"
            )
        now = dict(schema.leaves(config))[name]
        if not equals:
            raise UserError(f"--config.{field} has no value: expected --config.{field}=VALUE, now {now!r}")
        if name in ("experiment", "experiment_file", "preset"):
            raise UserError(f"--config.{field}={text} can't be overridden: choose it by experiments/NAME.py:PRESET")
        if name in sections.selectors(config):
            continue
        try:
            sections.assign(config, {name: schema.parse(field, text, known[name].type)})
        except UserError as error:
            raise UserError(f"{error}; now {now!r}") from None


def current_name(config: ConfigDict, field: str) -> str:
    """The name that a field has now, from the one that it had in an earlier version, or from itself.

    Raises:
      UserError: the earlier version read it only under another choice than this configuration's.
    """
    where = names.only_where(field)
    if field not in names.RENAMED:
        return field
    if where is not None:
        section, leaf = where[0].split(".")
        if config[section][leaf] != where[1]:
            raise UserError(
                f"--config.{field} is read only where {where[0]} = {where[1]}: here it is {config[section][leaf]}; leave it out"
            )
    return names.RENAMED[field]


# --- stored configurations -------------------------------------------------------------------------------------------


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Nested plain dict, tuples as lists: what config.json holds."""
    return {
        name: to_dict(value) if isinstance(value, ConfigDict) else list(value) if isinstance(value, tuple) else value
        for name, value in config.items()
    }


_ONCE_EVERYWHERE = {
    *(f"autoencoder.{name}" for name in ("latent_resolution", "latent_channels", "width", "blocks")),
    *(
        f"{section}.{name}"
        for section in ("autoencoder", "transport")
        for name in ("decay_every", "decay_factor", "warmup_steps")
    ),
}
"""Fields that release 0.1 stored whether they were read or not."""


def from_dict(stored: Any, own_file: pathlib.Path | None = None) -> ConfigDict:
    """Inverse of `to_dict`; reads what release 0.1 stored as well.

    Args:
      stored: nested dict of fields.
      own_file: the run's copy of the experiment's file, where its pieces stand in it.
    Raises:
      UserError: a field that this version does not know, or a piece that is missing.
    """
    if not isinstance(stored, dict):
        raise UserError(f"stored configuration is a {type(stored).__name__}: expected an object of fields")
    given = dict(_leaves(stored))
    earlier = "problem" not in stored
    if earlier:
        given["program.kind"] = "joint" if given.get("latent.kind") == "joint" else "two_phase"
        given.setdefault("network.kind", "fourier")
    config = sections.published()
    if own_file is not None and given.get("experiment_file"):
        given["experiment_file"] = str(own_file.resolve())
        if own_file.is_file():
            execute(own_file, str(given.get("experiment", "")))
    with config.unlocked():
        config.experiment_file = given.get("experiment_file", "")
    for _ in range(2):  # a problem may bring parts of its own, which are chosen in turn
        for field, (section, choice) in sections.selectors(config).items():
            if field in given and config[section][choice.selector] != given[field]:
                name = schema.typed(field, given[field], str)
                sections.use(config, f"{section}.{choice.selector}", name)
    known = sections.known_fields(config)
    for field, value in given.items():
        where = names.only_where(field) if earlier else None
        if where is not None and given.get(where[0]) != where[1]:
            continue
        name = names.RENAMED.get(field, field) if earlier else field
        if earlier and name not in known and name in _ONCE_EVERYWHERE:
            continue
        if name not in known:
            raise UserError(f"stored configuration has the field '{field}', unknown to this version: train again")
        sections.assign(config, {name: value})
    return config


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
