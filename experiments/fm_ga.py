"""Flow matching in a geometry-aware latent space.

./launch.sh experiments/fm_ga.py:small
"""

import ml_collections

from closure_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The published base, flow matching between geometry-aware latents."""
    config = config_lib.base(preset)
    config.transport.process = "flow_matching"
    config.latent.kind = "ga"
    return config
