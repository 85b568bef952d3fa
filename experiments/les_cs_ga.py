"""The subgrid term of 2D turbulence: a generator of one network call, in a geometry-aware latent space.

./launch.sh experiments/les_cs_ga.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, in_one_local_call, large_eddies, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config, "ga")
    use(config, "latent", "ga", weight=1e-3, zeta=1.0, pairs="neighbours", knn=10, diffusion_time=10)
    in_one_local_call(config)
    return config
