"""Diffusion in a geometry-aware latent space.

./launch.sh experiments/dm_ga.py:small

Two CPU cores, which other work kept busy too: 22 min without data and autoencoders, which fm_ga had trained: error
over the floor 1.055 and spread 1.10 of the exact one at 10 sampler steps; rollout error 0.033 after 10 time units,
1.05 without closure (revision f04e8bd8446b).
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration of this process in this space, at a preset."""
    return config_lib.base(preset, process="diffusion", latent="ga")
