"""Diffusion in a metric-preserving latent space.

./launch.sh experiments/dm_mp.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax.config import base, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "mp", weight=1e-2, neighbours=5, scale="published" if preset == "paper" else "entry")
    if preset == "paper":  # 1000 epochs of 16,200 fields
        config.autoencoder.update(batch_size=180, steps=90_000, decay_every=2_700)
    use(config, "transport", "diffusion", t_max=0.5)
    config.evaluation.rollout_sampler_steps = 10
    if preset == "paper":
        config.transport.steps = 81_000
    return config
