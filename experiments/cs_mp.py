"""A generator of one network call, trained by a score, in a metric-preserving latent space.

./launch.sh experiments/cs_mp.py:small
"""

import ml_collections

from closure_jax.config import base, in_one_call, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "mp", weight=1e-2, neighbours=5, scale="published" if preset == "paper" else "entry")
    if preset == "paper":  # 1000 epochs of 16,200 fields
        config.autoencoder.update(batch_size=180, steps=90_000, decay_every=2_700)
    in_one_call(config)
    return config
