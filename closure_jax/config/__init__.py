"""The configuration: experiments, presets, overrides, rules, and the objects that it stands for."""

from closure_jax.config.loading import (
    PRESETS,
    base,
    experiments,
    fields,
    from_dict,
    load,
    nearest,
    override,
    to_dict,
    typed,
)

__all__ = ["PRESETS", "base", "experiments", "fields", "from_dict", "load", "nearest", "override", "to_dict", "typed"]
