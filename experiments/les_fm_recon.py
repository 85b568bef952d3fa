"""The subgrid term of 2D turbulence by flow matching, in a latent space trained for reconstruction only.

./launch.sh experiments/les_fm_recon.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, large_eddies


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config, "recon")
    return config
