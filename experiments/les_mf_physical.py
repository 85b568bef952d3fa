"""The subgrid term of 2D turbulence by average velocities: one call, or a few, from the same network.

./launch.sh experiments/les_mf_physical.py:small

See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, large_eddies, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config)
    use(config, "transport", "mean_flow", data_scale=0.4, equal_times=0.5)
    config.evaluation.update(steps=(1, 2, 5, 10), rollout_sampler_steps=1)
    return config
