"""Configuration into objects: the one place. Below it, functions take what they need by name."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from closure_jax import config as config_lib
from closure_jax.closure import Scaling, StochasticClosure
from closure_jax.config import validation
from closure_jax.data import dataset as dataset_lib
from closure_jax.data import generate
from closure_jax.models import autoencoder, velocity_field
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral
from closure_jax.transport import paths

ConfigDict = ml_collections.ConfigDict

AUTOENCODERS: dict[str, Callable[[ConfigDict, int], tuple[nn.Module, nn.Module]]] = {
    "identity": lambda ae, n: (autoencoder.IdentityEncoder(), autoencoder.IdentityDecoder()),
    "published": lambda ae, n: (
        autoencoder.PublishedEncoder(ae.latent_channels, ae.width),
        autoencoder.PublishedDecoder(ae.width),
    ),
    "compact": lambda ae, n: (
        autoencoder.CompactEncoder(ae.latent_resolution, ae.latent_channels, ae.width, ae.blocks),
        autoencoder.CompactDecoder(n, ae.width, ae.blocks),
    ),
}
"""(config.autoencoder, field resolution) -> (encoder, decoder), by name."""

NETWORKS: dict[str, Callable[[ConfigDict, int], nn.Module]] = {
    "fourier": lambda net, channels: velocity_field.FourierVelocityField(
        width=net.width,
        modes=net.modes,
        depth=net.depth,
        condition_width=net.condition_width,
        condition_depth=net.condition_depth,
        condition_gated=net.condition_gated,
        hidden=net.hidden,
        channels=channels,
        time_features=net.time_features,
        time_scale=net.time_scale,
    ),
}
"""(config.network, latent channels) -> module with `encode_condition` and `velocity`, by name."""

SCHEDULES: dict[str, Callable[[ConfigDict], optax.Schedule]] = {
    "cosine": lambda t: optax.warmup_cosine_decay_schedule(
        0.0 if t.warmup_steps else t.learning_rate,
        t.learning_rate,
        min(t.warmup_steps, t.steps - 1),
        t.steps,
        0.01 * t.learning_rate,
    ),
    "step": lambda t: optax.exponential_decay(t.learning_rate, t.decay_every, t.decay_factor, staircase=True),
    "plateau": lambda t: optax.constant_schedule(t.learning_rate),
}
"""Learning rate of a training section (config.autoencoder or config.transport), by name."""

FLOWS: dict[str, Callable[..., flow_lib.KolmogorovFlow]] = {"kolmogorov": flow_lib.KolmogorovFlow}
"""(grid, viscosity, forcing_amplitude, forcing_wavenumber) -> flow, by name."""

_CHOICES = {
    "flow.kind": FLOWS,
    "autoencoder.kind": AUTOENCODERS,
    "autoencoder.schedule": SCHEDULES,
    "transport.schedule": SCHEDULES,
    "network.kind": NETWORKS,
    "network.prediction": paths.PREDICTIONS,
    "latent.ga.scale": ("neighbourhood", "published"),
    "latent.mp.scale": ("entry", "published"),
    "transport.process": paths.PATHS,
    "diffusion.schedule": paths.SCHEDULES,
}


def validate(config: ConfigDict, latents: Iterable[str]) -> None:
    """Raises UserError, in one line, for the first impossible value; `latents` are the names of latent spaces."""
    validation.validate(config, _CHOICES | {"latent.kind": latents})


def solver_flow(config: ConfigDict) -> flow_lib.KolmogorovFlow:
    """The flow on the solver's grid (DNS)."""
    return _flow(config, config.flow.resolution)


def stored_flow(config: ConfigDict) -> flow_lib.KolmogorovFlow:
    """The flow on the grid of the stored fields, where the learned closure lives and rollouts run."""
    return _flow(config, config.data.resolution)


def _flow(config: ConfigDict, resolution: int) -> flow_lib.KolmogorovFlow:
    f = config.flow
    grid = spectral.make_grid(resolution, f.domain_length)
    return FLOWS[f.kind](grid, f.viscosity, f.forcing_amplitude, f.forcing_wavenumber)


def noise(config: ConfigDict, flow: flow_lib.KolmogorovFlow) -> noise_lib.QWienerNoise:
    """The stochastic part of the exact closure on a flow's grid."""
    f = config.flow
    return noise_lib.QWienerNoise(flow.grid, f.noise_sigma, f.noise_kappa, f.noise_alpha, f.dt)


def simulation(config: ConfigDict) -> generate.Simulation:
    """What makes the data file."""
    flow, data = solver_flow(config), config.data
    return generate.Simulation(
        flow=flow,
        noise=noise(config, flow),
        initial=noise_lib.GaussianRandomField(flow.grid, config.flow.initial_alpha, config.flow.initial_tau),
        seed=data.seed,
        trajectories=data.trajectories,
        test_trajectories=data.test_trajectories,
        resolution=data.resolution,
        burn_in=data.burn_in,
        end=data.end,
        every=data.snapshot_every,
        chunk=data.chunk,
    )


def training_trajectories(config: ConfigDict) -> int:
    """How many trajectories there are to train on, without those held out to validate or test."""
    count = config.data.trajectories - config.data.test_trajectories
    return count - dataset_lib.validation_trajectories(count)


def autoencoder_pair(config: ConfigDict) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) modules; one pair of parameters for vorticity and one for the closure."""
    return AUTOENCODERS[config.autoencoder.kind](config.autoencoder, config.data.resolution)


def network(config: ConfigDict) -> nn.Module:
    """The transport network."""
    return NETWORKS[config.network.kind](config.network, config.autoencoder.latent_channels)


def path(config: ConfigDict) -> paths.Path:
    """The transport process; a section of the configuration that has its name changes its numbers."""
    process = config.transport.process
    return dataclasses.replace(paths.PATHS[process], **config.get(process, {}))


def latent_shape(config: ConfigDict) -> tuple[int, int, int]:
    """(r, r, channels)."""
    ae = config.autoencoder
    return ae.latent_resolution, ae.latent_resolution, ae.latent_channels


def optimiser(section: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Adam with the section's schedule; `update` wants `value=loss` (used by the plateau schedule).

    "plateau" multiplies the rate by decay_factor where the loss, averaged over a thirtieth of `decay_every` steps (one epoch
    in the published setting), has not improved for 30 such averages.
    """
    parts = [optax.clip_by_global_norm(section.clip_norm)] if section.clip_norm else []
    parts.append(optax.adam(SCHEDULES[section.schedule](section)))
    if section.schedule == "plateau":
        epoch = max(1, section.decay_every // 30)
        parts.append(optax.contrib.reduce_on_plateau(factor=section.decay_factor, patience=30, accumulation_size=epoch))
    return optax.with_extra_args_support(optax.chain(*parts))


def learning_rate(section: ConfigDict, step: int) -> float:
    """The schedule's rate at a step."""
    return float(SCHEDULES[section.schedule](section)(step))


def run_key(config: ConfigDict, phase: str) -> jax.Array:
    """The random key of a phase: from the seed and the phase's name."""
    return jax.random.fold_in(jax.random.key(config.seed), sum(map(ord, phase)))


def describe(config: ConfigDict) -> dict[str, Any]:
    """Resolved configuration as a flat dict, for printing."""
    return dict(config_lib.fields(config))


def assemble(config: ConfigDict, leaves: dict[str, Any]) -> StochasticClosure:
    """A closure from its configuration and {"params", "scalings"} (scalings as {name: {"mean", "std"}})."""
    encoder, decoder = autoencoder_pair(config)
    return StochasticClosure(
        params=leaves["params"],
        scalings={name: Scaling(**numbers) for name, numbers in leaves["scalings"].items()},
        encoder=encoder,
        decoder=decoder,
        network=network(config),
        path=path(config),
        prediction=config.network.prediction,
        steps=config.sampler.steps,
    )


def template_of(config: ConfigDict) -> dict[str, Any]:
    """The structure and shapes of what `assemble` takes, without training: zeros."""

    def shapes():
        params = {name: init_autoencoder(config, jax.random.key(0)) for name in ("vorticity", "closure")}
        params["network"] = init_network(config, jax.random.key(0))
        return params

    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(shapes))
    names = ("vorticity", "closure", "latent_vorticity", "latent_closure")
    zero = np.zeros((), np.float32)
    return {"params": params, "scalings": {name: {"mean": zero, "std": zero} for name in names}}


def init_autoencoder(config: ConfigDict, key: jax.Array) -> dict[str, Any]:
    """Initial {"encoder", "decoder"} parameters."""
    encoder, decoder = autoencoder_pair(config)
    n = config.data.resolution

    @jax.jit  # op by op, an initialisation compiles a hundred programs
    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, n, n))),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, *latent_shape(config)))),
        }

    return init(key)


def init_network(config: ConfigDict, key: jax.Array) -> Any:
    """Initial parameters of the transport network."""
    latent = jnp.zeros((1, *latent_shape(config)))
    return jax.jit(network(config).init)(key, latent, jnp.zeros(1), latent)
