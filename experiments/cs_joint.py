"""A generator of one network call, trained by a score, in a latent space trained jointly with it.

./launch.sh experiments/cs_joint.py:small

Three seeds, a CPU core each: 19 min 55 s of training; with one network call error over the floor 1.010, spread 1.01 and CRPS
1.009 times the exact law's; rollout error 0.010 after 10 time units, 1.05 without closure. See docs/results.md.
"""

import ml_collections

from closure_jax.config import base, in_one_call, trained_jointly, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "joint", closure_weight=1000.0, vorticity_weight=1.0, moment_weight=0.1)
    trained_jointly(config)
    in_one_call(config)
    return config
