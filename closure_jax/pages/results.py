"""What a run left, as nested mappings: numbers out of results.json, fields of config.json under their present names.

Runs may be of older versions: what a file does not have, or has as null, is None here and a dash on a page.
"""

import math
from collections.abc import Mapping
from typing import Any

from closure_jax.pages.tables import value_text

RENAMED = {
    "problem.dt": "flow.dt",
    "problem.domain_length": "flow.domain_length",
    "coupling.period": "evaluation.rollout_hold",
    "transport.prediction": "network.prediction",
}
"""Fields of the configuration by their present names, and what older runs call them."""

NO_CLOSURE = "no closure"
"""What pages call the solver alone, the baseline `none`."""


def look_up(tree: Any, *keys: str | int) -> Any:
    """The value at a path of keys (names, places in lists); None where the path ends early."""
    for key in keys:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def number(tree: Any, *keys: str | int) -> float | None:
    """The finite number at a path, or None."""
    value = look_up(tree, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def setting(config: Mapping[str, Any], name: str) -> Any:
    """A field of a run's configuration by its present dotted name, also where the run has it under its old one.

    None where it has neither.
    """
    for known in (name, RENAMED.get(name)):
        value = None if known is None else look_up(config, *known.split("."))
        if value is not None:
            return value
    return None


ADDED = (
    ("autoencoder.keep", "last", None),
    ("autoencoder.standardise", True, None),
    ("transport.keep", "last", None),
    ("latent.pairs", "random", ("latent.kind", "ga")),
)
"""Fields that runs of earlier revisions do not have: name, how these were made, and the (selector, name) that the field needs."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a run's configuration by their present dotted names, with what fields meant before there were any."""
    present = {old: new for new, old in RENAMED.items()}
    found = {present.get(name, name): value for name, value in flat(config).items()}
    sections = {name.partition(".")[0] for name in found}
    before = {
        name: value
        for name, value, where in ADDED
        if name.partition(".")[0] in sections and (where is None or found.get(where[0]) == where[1])
    }
    return before | found


def member_milliseconds(
    results: Mapping[str, Any], seconds: float | None, members: float | None = None
) -> float | None:
    """Wall time of a rollout by member and time unit, of the seconds that all its states and members take for one.

    Args:
      results: of the run.
      seconds: by time unit; None where unknown.
      members: of each state; by default as many as the model's ensemble has.
    """
    states = number(results, "a_posteriori", "states")
    members = members or number(results, "a_posteriori", "members")
    return 1e3 * seconds / (states * members) if seconds is not None and states and members else None


def measures_version(results: Mapping[str, Any]) -> int:
    """Version of the measures that a run was judged by; 1 where its file is older than versions."""
    return int(number(results, "settings", "measures") or 1)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves


def baselines(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Measures of what else was run in the solver, by the name that pages show, the solver alone first.

    They are `a_posteriori.baselines.NAME` of results.json; an older run has the error of the solver alone under
    `a_posteriori.relative_error_no_closure`.
    """
    rollout = look_up(results, "a_posteriori") or {}
    found: dict[str, Mapping[str, Any]] = {
        name: dict(values) for name, values in (rollout.get("baselines") or {}).items() if values
    }
    alone: Mapping[str, Any] = found.pop("none", {})
    if not alone and rollout.get("relative_error_no_closure"):
        alone = {"relative_error": rollout["relative_error_no_closure"]}
    return ({NO_CLOSURE: alone} if alone else {}) | {name.replace("_", " "): one for name, one in found.items()}


def coupling_rule(results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The rule for the closure's noise in time, with its numbers but for the period, as 'ar1 (correlation_steps 30.0)'.

    Numbers by shell of wavenumbers are left out. They are `a_posteriori.coupling` of results.json; an older run has the
    configuration alone, or knows one rule only.
    """
    rule = look_up(results, "a_posteriori", "coupling") or look_up(config, "coupling") or {}
    shown = {name: value for name, value in rule.items() if name not in ("kind", "period") and not _is_list(value)}
    fields = ", ".join(f"{name} {value_text(value)}" for name, value in shown.items())
    kind = value_text(rule.get("kind")) if rule else "held"
    return kind + (f" ({fields})" if fields else "")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def first_middle_last(time: Any) -> list[int]:
    """Places in a list of times of the first after the start, the middle one and the last; fewer where it is short."""
    if not isinstance(time, list) or len(time) < 2:
        return []
    return sorted({1, len(time) // 2, len(time) - 1} - {0})
