"""What fields of different sections demand of each other; a rule on one field stands in its class."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from closure_jax.coupling.draw import FixedSteps, is_random
from closure_jax.errors import UserError

if TYPE_CHECKING:
    from closure_jax.config.experiment import Experiment


def check(experiment: "Experiment") -> None:
    """Raises UserError, in one line, for the first rule that does not hold."""
    of_program = getattr(experiment.program, "rules", lambda experiment: [])
    found = (
        *_sizes(experiment),
        *_calls(experiment),
        *_oracle(experiment),
        *_rectified(experiment),
        *_times(experiment),
        *_rollouts(experiment),
    )
    for holds, message in (*found, *of_program(experiment)):
        if not holds:
            raise UserError(f"--config.{message}")
    _check_coupling(experiment)


def _sizes(e: "Experiment") -> list[tuple[bool, str]]:
    resolution, modes = e.latent_shape[0], getattr(e.network, "modes", 0)
    joint = (e.config.latent.kind == "joint", e.config.program.kind == "joint")
    return [
        (
            2 * modes <= resolution,
            f"network.modes={modes}: expected at most half of the latent's {resolution} points a side",
        ),
        (
            joint != (True, False) or e.config.program.kind == "online" or ":" in e.config.program.kind,
            f"latent.kind=joint with program.kind = {e.config.program.kind}: expected program.kind = joint as well",
        ),
        (
            joint != (False, True),
            f"program.kind=joint with latent.kind = {e.config.latent.kind}: expected latent.kind = joint as well",
        ),
    ]


def _rectified(e: "Experiment") -> list[tuple[bool, str]]:
    moving = "with latent.kind = joint, whose latents move while the flow is learned"
    numbers = {name: getattr(e.transport, name, 0) for name in ("rectify", "flow_steps")}
    return [
        (number == 0 or e.config.latent.kind != "joint", f"transport.{name}={number}: expected 0 {moving}")
        for name, number in numbers.items()
    ]


def _calls(e: "Experiment") -> list[tuple[bool, str]]:
    if e.transport.times > 0:
        return []
    one = "the transport makes a sample in one network call, expected"
    numbers = {"sampler.steps": e.sampler.steps, "evaluation.rollout_sampler_steps": e.evaluation.rollout_sampler_steps}
    return [
        *((number == 1, f"{field}={number}: {one} 1") for field, number in numbers.items()),
        (tuple(e.evaluation.steps) == (1,), f"evaluation.steps={e.evaluation.steps}: {one} (1,)"),
    ]


def _oracle(e: "Experiment") -> list[tuple[bool, str]]:
    if e.config.network.kind != "oracle":
        return []
    autoencoder, standardise = e.config.autoencoder.kind, e.transport_training.settings.standardise
    return [
        (
            autoencoder == "identity",
            f"network.kind=oracle with autoencoder.kind = {autoencoder}: the law is of fields, expected latent.kind = physical"
            " and autoencoder.kind = identity",
        ),
        (
            not standardise,
            f"transport.standardise={standardise}: expected false with network.kind = oracle, whose law is in the field's units",
        ),
    ]


def _times(e: "Experiment") -> list[tuple[bool, str]]:
    data = e.data
    interval = data.snapshot_every * e.problem.dt
    snapshots = (data.end - data.burn_in) / interval
    return [
        (
            snapshots >= 2,
            f"data.snapshot_every={data.snapshot_every}: expected at least 2 snapshots between data.burn_in ="
            f" {data.burn_in} and data.end = {data.end}",
        ),
        (
            abs(snapshots - round(snapshots)) < 1e-6
            and abs(data.burn_in / interval - round(data.burn_in / interval)) < 1e-6,
            f"data.snapshot_every={data.snapshot_every}: expected data.burn_in = {data.burn_in} and data.end = {data.end} to"
            f" be whole multiples of snapshot_every * problem.dt = {interval:g}",
        ),
    ]


def _rollouts(e: "Experiment") -> list[tuple[bool, str]]:
    solver = e.problem.solver()
    if solver is None:
        return []
    data, ev, dt = e.data, e.evaluation, e.problem.dt
    interval, per_unit = data.snapshot_every * dt, round(1.0 / solver.dt)
    return [
        (
            abs(round(1.0 / dt) * dt - 1) < 1e-6,
            f"problem.dt={dt}: expected a time unit to be a whole number of steps, such as 1e-3",
        ),
        (
            abs(per_unit * solver.dt - 1) < 1e-6,
            f"problem.solver_dt={solver.dt}: expected a time unit to be a whole number of steps, such as 1e-2",
        ),
        (
            per_unit % e.coupling.period == 0,
            f"coupling.period={e.coupling.period}: expected a divisor of the solver's steps in one time unit, {per_unit}",
        ),
        (
            data.burn_in + interval <= ev.rollout_start + 1e-9
            and ev.rollout_start <= data.end + 1e-9
            and abs(ev.rollout_start / interval - round(ev.rollout_start / interval)) < 1e-6,
            f"evaluation.rollout_start={ev.rollout_start}: expected a stored time, from data.burn_in + {interval:g} ="
            f" {data.burn_in + interval:g} to data.end = {data.end} in steps of {interval:g}",
        ),
        (
            ev.rollout_states <= data.test_trajectories,
            f"evaluation.rollout_states={ev.rollout_states}: expected at most data.test_trajectories ="
            f" {data.test_trajectories}",
        ),
    ]


# --- the coupling and the closure ------------------------------------------------------------------------------------


def _check_coupling(e: "Experiment") -> None:
    """Raises UserError where the coupling can't be begun with this closure; nothing is computed."""
    rule: Any = e.coupling
    n = e.data.resolution
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (1, 1)))
    field = jax.ShapeDtypeStruct((1, 1, n, n), jnp.float32)
    if hasattr(rule, "stand_in"):
        _ask(e, lambda draw: jax.eval_shape(lambda keys, w: rule.stand_in().begin(draw, keys, w), keys, field))


def check_windows(e: "Experiment", count: int, times: int) -> None:
    """Raises UserError where the coupling can't be fitted to so many training trajectories of so many snapshots."""
    rule: Any = e.coupling
    if hasattr(rule, "check_windows"):
        _ask(e, lambda draw: rule.check_windows(count, times))


def _ask(e: "Experiment", asked: Callable[["_Untrained"], Any]) -> None:
    """Raises the UserError of asked(draw), as the coupling of the configuration, where there are rollouts that use it."""
    draw = _Untrained(e)
    if e.problem.solver() is None:
        return
    try:
        asked(draw)
    except UserError as error:
        # rollouts of what has no noise draw afresh, whatever the rule
        if e.config.program.kind == "online" or is_random(draw, e.data.resolution):
            raise UserError(f"--config.coupling.{error}") from None


class _Untrained:
    """The closure of rollouts as far as it is known before training: shapes, made where a rule asks for what depends on them."""

    def __init__(self, experiment: "Experiment"):
        self._experiment = experiment

    def _with(self, leaves: dict[str, Any]) -> FixedSteps:
        model = self._experiment.assemble(leaves)
        model = model.replace(transport=model.transport.in_rollouts())
        return FixedSteps(model, self._experiment.evaluation.rollout_sampler_steps)

    @functools.cached_property
    def _bare(self) -> FixedSteps:
        """Without parameters, which takes no time."""
        return self._with({"params": {}, "scalings": {}})

    @functools.cached_property
    def _whole(self) -> FixedSteps:
        return self._with(self._experiment.template())

    @property
    def linear_in_noise(self) -> bool:
        """Of the closure."""
        return self._bare.linear_in_noise

    def noise(self, keys: Any, vorticity: Any) -> Any:
        """See `Draw`."""
        condition = jnp.zeros((len(vorticity), *self._experiment.latent_shape))  # of which the shape counts
        return self._bare.model.latent_noise(keys, condition, self._bare.steps)

    def draw(self, noise: Any, vorticity: Any) -> Any:
        """See `Draw`."""
        return self._whole.draw(noise, vorticity)

    def mean(self, vorticity: Any) -> Any:
        """See `Draw`."""
        return self._whole.mean(vorticity)
