"""The subgrid term of 2D turbulence: a generator of one network call, trained by a score.

./launch.sh experiments/les_cs_physical.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, in_one_call, large_eddies, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config)
    in_one_call(config)
    config.network.noise_width = 2 if preset == "tiny" else 16  # what is random depends on the resolved field
    use(config, "coupling", "fresh")
    return config
