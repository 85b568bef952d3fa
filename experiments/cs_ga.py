"""A generator of one network call, trained by a score, in a geometry-aware latent space.

./launch.sh experiments/cs_ga.py:small

Two CPU cores: 10 to 14 min with data. One network call, three seeds: error over the floor 1.008, spread 1.00 and CRPS 1.007 times
the exact law's. Drawn once in 20 steps its rollout error after 10 time units is 0.0086, 1.05 without closure, and its spread 1.08
times the true one. docs/one_step.md compares it.
"""

import ml_collections

from closure_jax.config import base, in_one_call, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    weight = 0.1 if preset == "medium" else 1e-3  # whose latents have a term to mend
    use(config, "latent", "ga", weight=weight, zeta=1.0, pairs="neighbours", knn=10, diffusion_time=10)
    in_one_call(config)
    return config
