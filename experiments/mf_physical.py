"""Flow matching by average velocities in physical space: one call, or a few, from the same network.

./launch.sh experiments/mf_physical.py:small

See docs/one_step.md.
"""

import ml_collections

from closure_jax.config import base, in_physical_space, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    in_physical_space(config)
    use(config, "transport", "mean_flow", data_scale=0.1, equal_times=0.5)
    config.evaluation.update(steps=(1, 2, 5, 10), rollout_sampler_steps=1)
    return config
