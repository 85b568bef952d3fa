"""Diffusion in a latent space trained jointly with it.

./launch.sh experiments/dm_joint.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax.config import base, trained_jointly, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "joint", closure_weight=100.0, vorticity_weight=1.0, moment_weight=0.1)
    trained_jointly(config)
    use(config, "transport", "diffusion", t_max=0.5)
    config.evaluation.rollout_sampler_steps = 10
    if preset == "paper":
        config.transport.steps = 81_000
    return config
