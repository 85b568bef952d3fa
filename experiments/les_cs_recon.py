"""The subgrid term of 2D turbulence: a generator of one network call, in a latent space trained for reconstruction only.

./launch.sh experiments/les_cs_recon.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, in_one_local_call, large_eddies


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config, "recon")
    in_one_local_call(config)
    return config
