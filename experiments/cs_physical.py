"""A generator of one network call, trained by a score, in physical space.

./launch.sh experiments/cs_physical.py:small

Three seeds, a CPU core each: 9 min 10 s of training; with one network call error over the floor 1.021, spread 1.04 and CRPS
1.026 times the exact law's; rollout error 0.012 after 10 time units, 1.05 without closure. See docs/results.md and
docs/one_step.md.
"""

import ml_collections

from closure_jax.config import base, in_one_call, in_physical_space


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    in_physical_space(config)
    in_one_call(config)
    return config
