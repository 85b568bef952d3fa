"""The configuration: experiments, presets, overrides, rules, and the objects that they stand for."""

from closure_jax.config.experiment import Experiment, Trained, build
from closure_jax.config.loading import current_name, experiments, from_dict, load, override, to_dict
from closure_jax.config.names import nearest
from closure_jax.config.presets import (
    PRESETS,
    base,
    in_one_call,
    in_one_local_call,
    in_physical_space,
    large_eddies,
    trained_jointly,
)
from closure_jax.config.schema import leaves
from closure_jax.config.sections import add_measure, known_fields, own_source, use

__all__ = [
    "PRESETS",
    "Experiment",
    "Trained",
    "add_measure",
    "base",
    "build",
    "current_name",
    "experiments",
    "from_dict",
    "in_one_call",
    "in_one_local_call",
    "in_physical_space",
    "known_fields",
    "large_eddies",
    "leaves",
    "load",
    "nearest",
    "override",
    "own_source",
    "to_dict",
    "trained_jointly",
    "use",
]
