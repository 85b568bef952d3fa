"""Diffusion in a metric-preserving latent space.

./launch.sh experiments/dm_mp.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration of this process in this space, at a preset."""
    return config_lib.base(preset, process="diffusion", latent="mp")
