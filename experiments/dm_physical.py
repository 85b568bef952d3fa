"""Diffusion in physical space.

./launch.sh experiments/dm_physical.py:small

Two CPU cores, which other work kept busy too: 19 min without data: error over the floor 1.109 and spread 1.17 of the
exact one at 50 sampler steps; rollout error 0.079 after 10 time units, 1.05 without closure (revision 32f3707919d7).
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration of this process in this space, at a preset."""
    return config_lib.base(preset, process="diffusion", latent="physical")
