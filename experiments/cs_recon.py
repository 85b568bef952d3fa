"""A generator of one network call, trained by a score, in a latent space trained for reconstruction only.

./launch.sh experiments/cs_recon.py:small

Three seeds, a CPU core each: 4 min 42 s of training, shared autoencoders not counted; with one network call error over the
floor 1.007, spread 1.00 and CRPS 1.007 times the exact law's; rollout error 0.0086 after 10 time units, 1.05 without closure.
See docs/results.md.
"""

import ml_collections

from closure_jax.config import base, in_one_call, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "recon")
    in_one_call(config)
    return config
