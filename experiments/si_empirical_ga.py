"""Stochastic interpolant from the encoded vorticity in a geometry-aware latent space.

./launch.sh experiments/si_empirical_ga.py:small

Two CPU cores, which other work kept busy too: 14 min without data and autoencoders, which fm_ga had trained: error
over the floor 1.040 and spread 0.99 of the exact one at 10 sampler steps; rollout error 0.018 after 10 time units,
1.05 without closure (revision f04e8bd8446b).
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration of this process in this space, at a preset."""
    return config_lib.base(preset, process="interpolant_empirical", latent="ga")
