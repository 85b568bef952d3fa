"""Flow matching in a metric-preserving latent space.

./launch.sh experiments/fm_mp.py:small

Three seeds, a CPU core each: 5 min 40 s of training, shared autoencoders not counted; with 10 sampler steps error over the
floor 1.032, spread 0.78 and CRPS 1.054 times the exact law's; rollout error 0.015 after 10 time units, 1.05 without closure.
See docs/results.md.
"""

import ml_collections

from closure_jax.config import base, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    use(config, "latent", "mp", weight=1e-2, neighbours=5, scale="published" if preset == "paper" else "entry")
    if preset == "paper":  # 1000 epochs of 16,200 fields
        config.autoencoder.update(batch_size=180, steps=90_000, decay_every=2_700)
    use(config, "transport", "flow_matching")
    return config
