"""The generator of cs_ga, trained further through the solver: short coupled ensembles are scored against true trajectories.

./launch.sh experiments/cs_ga_online.py:small

Two CPU cores, three seeds: 10 to 14 min on top of cs_ga (--config.program.start=runs/cs_ga-small goes on from a run of it). One
network call: error over the floor 1.006, spread 1.00 and CRPS 1.005 times the exact law's; rollout error 0.0056 after 10 time
units, drawn once in 20 steps, 0.0087 before. docs/one_step.md has what each part of it gave.
"""

import ml_collections

from closure_jax.config import base, in_one_call, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    weight = 0.1 if preset == "medium" else 1e-3  # whose latents have a term to mend
    use(config, "latent", "ga", weight=weight, zeta=1.0, pairs="neighbours", knn=10, diffusion_time=10)
    in_one_call(config)
    use(config, "program", "online", batch_size=8, steps=600, learning_rate=5e-4, leads=1, members=2, period=20)
    config.coupling.period = 20
    if preset == "tiny":
        config.program.update(batch_size=4, steps=20, period=10)
    return config
