"""Stochastic interpolant from a Gaussian source in a latent space trained for reconstruction only.

./launch.sh experiments/si_gaussian_recon.py:small

Run at tiny only so far.
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published configuration of this process in this space, at a preset."""
    return config_lib.base(preset, process="interpolant_gaussian", latent="recon")
