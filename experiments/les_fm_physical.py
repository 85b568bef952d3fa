"""The subgrid term of 2D turbulence by flow matching.

./launch.sh experiments/les_fm_physical.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, large_eddies


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config)
    return config
