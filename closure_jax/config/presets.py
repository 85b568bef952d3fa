"""Presets: the published sizes, an honest run on two CPU cores, and a toy. Each function reads from top to bottom.

A configuration is locked: a field that is misspelt, here or in an experiment, fails where it is set.
"""

import math
from collections.abc import Callable

import ml_collections

from closure_jax.config import names
from closure_jax.config.sections import published, use
from closure_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def paper() -> ConfigDict:
    """Sizes and schedules of arXiv 2602.17089; epochs are of 16,200 fields."""
    config = published()
    use(config, "autoencoder", "published", latent_resolution=16, latent_channels=1, width=64)
    use(config, "autoencoder.schedule", "plateau", decay_every=4_860, decay_factor=0.8)  # 30 epochs of patience
    config.autoencoder.update(batch_size=100, steps=162_000, learning_rate=1e-3)  # 1000 epochs
    config.network.update(width=20, modes=4, depth=4, hidden=128)
    use(config, "transport.schedule", "step", decay_every=16_200, decay_factor=0.5)  # 100 epochs
    config.transport.update(batch_size=100, steps=162_000, learning_rate=1e-3)
    config.autoencoder.standardise = config.transport.standardise = False
    config.autoencoder.keep = "best"
    use(config, "coupling", "held", period=5, white_noise=5e-5)
    return config


def small() -> ConfigDict:
    """Honest results in minutes on two CPU cores: a compact autoencoder, a gated network that predicts the data."""
    config = published()
    config.problem.resolution = 64
    config.data.update(trajectories=48, test_trajectories=8, chunk=48)
    use(config, "autoencoder", "compact", latent_resolution=16, width=32, blocks=3)
    use(config, "autoencoder.schedule", "cosine", warmup_steps=20)
    config.autoencoder.update(batch_size=32, steps=300, learning_rate=2e-3, clip_norm=1.0)
    use(config, "network", "fourier", width=12, modes=8, depth=2, hidden=64, time_scale=1.0)
    config.network.update(condition_width=24, condition_depth=3, condition_gated=True)
    use(config, "transport.schedule", "cosine", warmup_steps=50)
    config.transport.update(batch_size=32, steps=3_000, learning_rate=3e-3, clip_norm=1.0, ema_decay=0.99)
    config.transport.prediction = "data"
    use(config, "coupling", "extrapolated", period=5)
    config.training.update(log_every=20, checkpoint_every=200)
    config.evaluation.update(states=64, samples=64, geometry_states=400)
    config.evaluation.update(rollout_states=2, rollout_members=16, rollout_chunk=128, rollout_time=10.0)
    config.evaluation.rollout_sampler_steps = 4
    return config


def medium() -> ConfigDict:
    """The published networks and losses in hours on two CPU cores: an autoencoder of a quarter of the width, on the data of
    `small`. It has no linear path, so that its latents differ by what shapes them."""
    config = small()
    use(config, "autoencoder", "published", latent_resolution=16, latent_channels=1, width=16)
    config.autoencoder.update(batch_size=16, steps=1_000)
    use(config, "network", "published", width=20, modes=4, depth=4, hidden=128, time_scale=30.0)
    config.transport.prediction = "target"
    config.transport.learning_rate = 1e-3
    config.coupling.period = 20  # encoding and decoding are what a draw costs
    return config


def tiny() -> ConfigDict:
    """The whole job in under a minute, for tests: its figures mean nothing."""
    config = small()
    config.problem.update(resolution=32, dt=5e-3)
    config.data.update(resolution=32, trajectories=8, test_trajectories=2, chunk=8)
    config.data.update(burn_in=1.0, end=3.0, snapshot_every=10)
    config.autoencoder.update(latent_resolution=8, width=8, blocks=1, batch_size=16, steps=40, warmup_steps=5)
    config.latent.components = 20
    config.network.update(width=8, modes=4, depth=1, condition_width=8, condition_depth=1)
    config.network.update(hidden=16, time_features=32)
    config.transport.update(batch_size=16, steps=60, warmup_steps=5)
    config.training.update(log_every=5, checkpoint_every=20, validation_fields=32)
    config.evaluation.update(states=4, samples=8, steps=(1, 2, 10), geometry_states=24)
    config.evaluation.update(rollout_members=4, rollout_start=1.5, rollout_time=1.0)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {"paper": paper, "medium": medium, "small": small, "tiny": tiny}
"""Presets by name: flow matching in a geometry-aware latent; an experiment changes what differs."""


def base(preset: str = "paper") -> ConfigDict:
    """The configuration of a preset, which an experiment changes.

    Raises:
      UserError: unknown preset.
    """
    if preset not in PRESETS:
        raise UserError(f"preset '{preset}' is unknown: expected {', '.join(PRESETS)}{names.nearest(preset, PRESETS)}")
    config = PRESETS[preset]()
    config.preset = preset
    return config


def in_physical_space(config: ConfigDict) -> None:
    """No latent: the transport network works on fields. Smaller than published at `small`, and judged on fewer samples: a
    network at 64^2 costs sixteen times one at 16^2."""
    use(config, "latent", "physical")
    use(config, "autoencoder", "identity")
    config.network.modes = 6
    if config.preset == "paper":
        config.network.width = 40
    elif config.preset == "medium":  # narrowed to the time of an autoencoder pair and a latent network
        config.network.width = 16
        config.transport.update(batch_size=16, steps=3_000)
        config.evaluation.update(states=32, samples=32, rollout_members=4)
    elif config.preset == "small":
        config.network.update(width=8, modes=12, hidden=32, condition_width=16, condition_depth=2)
        config.transport.update(batch_size=16, steps=2_000)
        config.evaluation.update(states=32, samples=32, rollout_members=4)


def trained_jointly(config: ConfigDict) -> None:
    """Autoencoders and transport network train at once, in steps that cost several times one of the network alone."""
    use(config, "program", "joint")
    if config.preset == "medium":
        config.transport.update(batch_size=16, steps=1_000)
    elif config.preset == "small":
        config.transport.steps = 1_500


def in_one_call(config: ConfigDict) -> None:
    """A generator of one network call, made of products and trained by a score, in place of a transport over many steps."""
    physical, joint = config.latent.kind == "physical", config.latent.kind == "joint"
    use(config, "transport", "score", members=4, spectral_weight=1.0)
    use(config, "network", "products", width=16, depth=2, hidden=64)  # its modes are those of the network before
    use(config, "coupling", "extrapolated", mean="linear")  # this network is linear in its noise
    config.sampler.steps = config.evaluation.rollout_sampler_steps = 1
    config.evaluation.steps = (1,)
    if config.preset == "paper":
        config.transport.standardise = True
        config.network.modes = (
            16 if physical else 8
        )  # as many as carry the noise, which no state in transit brings along
    elif config.preset in ("small", "medium"):
        if config.preset == "medium":
            config.network.modes = 12 if physical else 8
        config.transport.learning_rate = 6e-3
        if not joint:
            config.transport.steps = 2_000 if physical else 6_000
        if not physical:  # where it was measured: as accurate as 5, at a quarter of the draws (docs/one_step.md)
            config.coupling.period = 20
    elif config.preset == "tiny":
        config.network.update(width=4, hidden=8)


def large_eddies(config: ConfigDict, latent: str = "physical") -> None:
    """The subgrid term of a filtered direct simulation, with a new draw each step whose noise remembers those before: in physical
    space, or in a latent space of half as many points a side and four channels, which can hold all of it; see docs/les.md."""
    use(config, "problem", "les", domain_length=2 * math.pi)
    if latent == "physical":
        in_physical_space(config)
    use(config, "coupling", "matern")
    config.autoencoder.standardise = config.transport.standardise = True
    config.evaluation.turnovers = 200.0
    if config.preset == "paper":  # Re = 5000
        config.problem.update(resolution=512, viscosity=2e-4, dt=1e-3, solver_dt=5e-3)
        config.data.update(resolution=64, burn_in=30.0, end=80.0, snapshot_every=100)
        config.evaluation.rollout_start = 40.0
    elif config.preset in ("small", "medium"):
        config.problem.update(resolution=256, viscosity=5e-4, dt=5e-3, solver_dt=2e-2)
        config.data.update(resolution=32, trajectories=8, test_trajectories=2)
        config.data.update(burn_in=30.0, end=80.0, snapshot_every=40)
        config.data.chunk = 1  # a step of 256^2 points on two cores: 7.8 ms alone, 12.5 each of eight
        config.evaluation.update(rollout_states=2, rollout_members=4, rollout_start=40.0, rollout_time=50.0)
    elif config.preset == "tiny":
        config.problem.update(resolution=64, viscosity=2e-3, dt=1e-2, solver_dt=2e-2)
        config.data.update(resolution=16, trajectories=6, test_trajectories=2, chunk=6)
        config.data.update(burn_in=4.0, end=6.0, snapshot_every=20)
        config.network.modes = 4
        config.evaluation.update(rollout_members=2, rollout_start=5.0, turnovers=0.0)
    if latent != "physical":
        side = config.data.resolution // 2
        use(config, "latent", latent)
        use(config, "autoencoder", "compact", latent_resolution=side, latent_channels=4)
        config.network.modes = side // 2


def in_one_local_call(config: ConfigDict) -> None:
    """A generator of one call for a local term, by residual convolutions; see docs/les.md."""
    rule = config.coupling
    in_one_call(config)
    config.coupling = rule
    use(config, "network", "local", width=32, depth=4, kernel=5, noise_width=8)
    if config.preset == "paper":
        config.network.update(width=64, depth=6)
    elif config.preset in ("small", "medium"):
        config.network.width = 24
        config.transport.update(batch_size=16, steps=2_000, learning_rate=2e-3)
    elif config.preset == "tiny":
        config.network.update(width=8, depth=1, kernel=3, noise_width=2)


for _preset in PRESETS.values():  # a field that is misspelt above fails when this module is imported
    _preset()
