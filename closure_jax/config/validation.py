"""What a configuration must satisfy: each field by itself, then fields among themselves; one line for the first that fails."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from closure_jax import config as config_lib
from closure_jax.config import presets
from closure_jax.errors import UserError

Rule = tuple[Callable[[Any], bool], str]
_POSITIVE: Rule = (lambda v: v > 0, "a number above 0")
_NON_NEGATIVE: Rule = (lambda v: v >= 0, "a number that is not negative")
_FRACTION: Rule = (lambda v: 0 <= v < 1, "a number from 0 up to, not including, 1")
_AT_LEAST_TWO: Rule = (lambda v: v >= 2, "a whole number of at least 2")
_EVEN: Rule = (lambda v: v >= 8 and v % 2 == 0, "an even whole number of at least 8")

_RULES: dict[str, Rule] = {
    "flow.resolution": _EVEN,
    "data.resolution": _EVEN,
    "data.trajectories": (lambda v: v >= 3, "a whole number of at least 3 (train, validation, test)"),
    "data.seed": (lambda v: 0 <= v < 2**31, "a whole number from 0 to 2147483647"),
    "data.test_trajectories": _POSITIVE,
    "data.train_trajectories": _NON_NEGATIVE,
    "data.burn_in": _NON_NEGATIVE,
    "flow.noise_sigma": _NON_NEGATIVE,
    "flow.forcing_amplitude": (math.isfinite, "a finite number"),
    "flow.initial_tau": _POSITIVE,
    "seed": (lambda v: 0 <= v < 2**31, "a whole number from 0 to 2147483647"),
    "flow.dt": (lambda v: v >= 1e-9, "a time step of at least 1e-9"),
    "data.end": (lambda v: 0 < v <= 1e9, "a time above 0, up to 1e9"),
    "autoencoder.decay_factor": (lambda v: 0 < v < 1, "a factor between 0 and 1"),
    "transport.decay_factor": (lambda v: 0 < v < 1, "a factor between 0 and 1"),
    "network.time_features": (lambda v: v >= 2 and v % 2 == 0, "an even whole number of at least 2"),
    "autoencoder.clip_norm": _NON_NEGATIVE,
    "transport.clip_norm": _NON_NEGATIVE,
    "autoencoder.warmup_steps": _NON_NEGATIVE,
    "transport.warmup_steps": _NON_NEGATIVE,
    "autoencoder.ema_decay": _FRACTION,
    "transport.ema_decay": _FRACTION,
    "autoencoder.batch_size": _AT_LEAST_TWO,
    "diffusion.sigma": (lambda v: v > 1, "a number above 1"),
    "latent.mp.weight": _NON_NEGATIVE,
    "latent.ga.weight": _NON_NEGATIVE,
    "latent.joint.closure_weight": _NON_NEGATIVE,
    "latent.joint.vorticity_weight": _NON_NEGATIVE,
    "latent.joint.moment_weight": _NON_NEGATIVE,
    "latent.ga.zeta": _NON_NEGATIVE,
    "evaluation.samples": _AT_LEAST_TWO,
    "evaluation.geometry_states": (lambda v: v >= 8, "a whole number of at least 8"),
    "evaluation.rollout_members": _AT_LEAST_TWO,
    "evaluation.rollout_start": _NON_NEGATIVE,
    "evaluation.rollout_white_noise": _NON_NEGATIVE,
    "evaluation.rollout_t_max": _NON_NEGATIVE,
    "evaluation.steps": (lambda v: len(v) > 0 and min(v) > 0, "at least one number of sampler steps, all above 0"),
}


def validate(config: ml_collections.ConfigDict, choices: dict[str, Iterable[str]]) -> None:
    """Checks every field, then what fields demand of each other.

    Args:
      config: resolved configuration.
      choices: allowed texts by field, e.g. {"transport.process": PROCESSES}; given by the caller, who knows the registries.
    Raises:
      UserError: the first impossible value, in one line.
    """
    known, given = dict(config_lib.fields(presets.paper())), dict(config_lib.fields(config))
    for field in known:
        if field not in given:
            raise UserError(f"--config.{field} is missing from the experiment: expected one like {known[field]!r}")
    for field, value in given.items():
        if field not in known:
            raise UserError(f"--config.{field}: no such field{config_lib.nearest(field, known)}; expected a known one")
        config_lib.typed(field, value, known[field])
        if field in choices:
            if value not in choices[field]:
                expected = ", ".join(sorted(choices[field]))
                raise UserError(
                    f"--config.{field}={value}: expected one of {expected}{config_lib.nearest(value, choices[field])}"
                )
            continue
        if isinstance(value, str | bool):
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers):
            raise UserError(f"--config.{field}={value} is not finite: expected a finite number")
        holds, expected = _RULES.get(field, _POSITIVE)
        if not holds(value):
            raise UserError(f"--config.{field}={value}: expected {expected}")
    for holds, message in _sizes(config) + _times(config) + _rollout(config):
        if not holds:
            raise UserError(message)


def _sizes(c: ml_collections.ConfigDict) -> list[tuple[bool, str]]:
    flow, data, ae = c.flow, c.data, c.autoencoder
    train = data.trajectories - data.test_trajectories
    return [
        (
            3 * flow.forcing_wavenumber < min(flow.resolution, data.resolution),
            f"--config.flow.forcing_wavenumber={flow.forcing_wavenumber}: expected less than a third of flow.resolution ="
            f" {flow.resolution} and data.resolution = {data.resolution}, the modes that are kept",
        ),
        (
            ae.kind != "published" or ae.width == 16 or ae.width % 32 == 0,
            f"--config.autoencoder.width={ae.width}: the published autoencoder normalises in groups and has 8 heads,"
            " expected 16 or a multiple of 32",
        ),
        (
            train >= 2,
            f"--config.data.test_trajectories={data.test_trajectories}: expected at most data.trajectories - 2 ="
            f" {data.trajectories - 2} (one to train on, one to validate)",
        ),
        (
            data.path != "" or data.train_trajectories <= train - max(1, train // 10),
            f"--config.data.train_trajectories={data.train_trajectories}: expected at most {train - max(1, train // 10)}, the"
            " training trajectories without those held out to validate (0 for all)",
        ),
        (
            data.path != "" or flow.resolution % data.resolution == 0,
            f"--config.data.resolution={data.resolution} does not divide flow.resolution = {flow.resolution}:"
            " expected a divisor, since every n-th point is stored",
        ),
        (
            (data.resolution == ae.latent_resolution)
            if ae.kind == "identity"
            else (data.resolution % ae.latent_resolution == 0 and data.resolution > ae.latent_resolution),
            f"--config.autoencoder.latent_resolution={ae.latent_resolution} does not divide data.resolution ="
            f" {data.resolution}: expected a smaller divisor, such as {data.resolution // 4}, and with autoencoder.kind ="
            " identity data.resolution itself",
        ),
        (
            ae.kind != "identity" or ae.latent_channels == 1,
            f"--config.autoencoder.latent_channels={ae.latent_channels}: expected 1 with autoencoder.kind = identity",
        ),
        (
            ae.kind != "published" or data.resolution == 4 * ae.latent_resolution,
            f"--config.autoencoder.latent_resolution={ae.latent_resolution}: the published autoencoder halves twice,"
            f" expected data.resolution / 4 = {data.resolution // 4}",
        ),
        (
            2 * c.network.modes <= ae.latent_resolution,
            f"--config.network.modes={c.network.modes}: expected at most half of autoencoder.latent_resolution ="
            f" {ae.latent_resolution}",
        ),
        (
            c.training.checkpoint_every % c.training.log_every == 0,
            f"--config.training.checkpoint_every={c.training.checkpoint_every}: expected a multiple of training.log_every ="
            f" {c.training.log_every}",
        ),
    ]


def _times(c: ml_collections.ConfigDict) -> list[tuple[bool, str]]:
    data = c.data
    interval = data.snapshot_every * c.flow.dt
    snapshots = (data.end - data.burn_in) / interval
    return [
        (
            data.burn_in < data.end,
            f"--config.data.burn_in={data.burn_in}: expected less than data.end = {data.end}",
        ),
        (
            snapshots >= 2,
            f"--config.data.snapshot_every={data.snapshot_every}: expected at least 2 snapshots between"
            f" data.burn_in = {data.burn_in} and data.end = {data.end}",
        ),
        (
            abs(snapshots - round(snapshots)) < 1e-6
            and abs(data.burn_in / interval - round(data.burn_in / interval)) < 1e-6,
            f"--config.data.snapshot_every={data.snapshot_every}: expected data.burn_in = {data.burn_in} and data.end ="
            f" {data.end} to be whole multiples of snapshot_every * flow.dt = {interval:g}",
        ),
    ]


def _rollout(c: ml_collections.ConfigDict) -> list[tuple[bool, str]]:
    flow, data, ev = c.flow, c.data, c.evaluation
    interval = data.snapshot_every * flow.dt
    rollout_steps = round(1.0 / flow.dt)
    return [
        (
            abs(rollout_steps * flow.dt - 1) < 1e-6,
            f"--config.flow.dt={flow.dt}: expected a time unit to be a whole number of steps, such as 1e-3",
        ),
        (
            rollout_steps % ev.rollout_hold == 0,
            f"--config.evaluation.rollout_hold={ev.rollout_hold}: expected a divisor of the steps in one time unit,"
            f" 1 / flow.dt = {1 / flow.dt:g}",
        ),
        (
            abs(ev.rollout_time - round(ev.rollout_time)) < 1e-6,
            f"--config.evaluation.rollout_time={ev.rollout_time}: expected a whole number of time units",
        ),
        (
            data.burn_in + interval <= ev.rollout_start + 1e-9
            and ev.rollout_start <= data.end + 1e-9
            and abs(ev.rollout_start / interval - round(ev.rollout_start / interval)) < 1e-6,
            f"--config.evaluation.rollout_start={ev.rollout_start}: expected a stored time, from data.burn_in + {interval:g} ="
            f" {data.burn_in + interval:g} to data.end = {data.end} in steps of {interval:g}",
        ),
        (
            ev.rollout_states <= data.test_trajectories,
            f"--config.evaluation.rollout_states={ev.rollout_states}: expected at most data.test_trajectories ="
            f" {data.test_trajectories}",
        ),
    ]
