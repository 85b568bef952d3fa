"""The subgrid term of 2D turbulence by its conditional mean: the deterministic closure beside les_cs_physical, by least squares.

./launch.sh experiments/les_mse_physical.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, in_one_local_call, large_eddies, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config)
    in_one_local_call(config)
    use(config, "transport", "conditional_mean")
    use(config, "coupling", "fresh")
    config.network.noise_width = 0
    return config
