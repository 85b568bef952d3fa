"""The subgrid term of 2D turbulence: the generator of les_cs_physical, trained further through the solver on short trajectories.

./launch.sh experiments/les_cs_online.py:small

With --config.program.start=runs/les_cs_physical-small it goes on from a run of it. See docs/les.md.
"""

import ml_collections

from closure_jax.config import base, in_one_local_call, large_eddies, use


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """What differs from the preset in `config/presets.py`."""
    config = base(preset)
    large_eddies(config)
    in_one_local_call(config)
    use(config, "program", "online", batch_size=8, steps=60, learning_rate=5e-4, leads=3, members=2)
    if preset == "tiny":
        config.program.update(batch_size=4, steps=10, leads=1)
    return config
