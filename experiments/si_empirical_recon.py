"""Stochastic interpolant from the encoded vorticity in a latent space trained for reconstruction only.

./launch.sh experiments/si_empirical_recon.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax.config import base, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "recon")
    use(config, "transport", "interpolant_empirical")
    config.evaluation.rollout_sampler_steps = 10
    return config
