"""Diffusion in a latent space trained for reconstruction only.

./launch.sh experiments/dm_recon.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax.config import base, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "recon")
    use(config, "transport", "diffusion", t_max=0.5)
    config.evaluation.rollout_sampler_steps = 10
    if preset == "paper":
        config.transport.steps = 81_000
    return config
