"""A generator of one network call, trained by a score, in a latent space trained for reconstruction only.

./launch.sh experiments/cs_recon.py:small
"""

import ml_collections

from closure_jax.config import base, in_one_call, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "recon")
    in_one_call(config)
    return config
