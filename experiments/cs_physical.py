"""A generator of one network call, trained by a score, in physical space.

./launch.sh experiments/cs_physical.py:small

Two CPU cores: 11 min of training. One network call, three seeds: error over the floor 1.021, spread 1.04 and CRPS 1.026 times the
exact law's; of one seed, rollout error 0.012 after 10 time units. See docs/one_step.md.
"""

import ml_collections

from closure_jax.config import base, in_one_call, in_physical_space


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    in_physical_space(config)
    in_one_call(config)
    return config
