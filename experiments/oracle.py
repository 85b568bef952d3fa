"""The exact law in place of a model: what no closure can beat, by the same measures. Nothing is trained.

./launch.sh experiments/oracle.py:small
"""

import ml_collections

from closure_jax.config import base, in_one_call, in_physical_space, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    in_physical_space(config)
    in_one_call(config)
    use(config, "network", "oracle")
    config.transport.standardise = False  # the law is in physical units
    return config
