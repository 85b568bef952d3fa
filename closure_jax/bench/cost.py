"""What a run will cost: phases with fields, steps, memory and a rough time on this device, without running them.

Operations are counted on the traced programs, see `roofline`; the time divides them by a fixed share of the matrix rate measured
here.
"""

import contextlib
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from closure_jax import config as config_lib
from closure_jax.bench import roofline
from closure_jax.closure import StochasticClosure
from closure_jax.config import Experiment
from closure_jax.coupling.advance import Dynamics
from closure_jax.errors import UserError
from closure_jax.evaluation.a_priori import held_states
from closure_jax.pages.tables import Table
from closure_jax.parallel import devices
from closure_jax.problems.base import Problem, System
from closure_jax.training import steps

# Shares of the matrix rate that programs reach: on two CPU cores of 195 GFLOP/s, phases of `fm_ga:small` then agree with their
# wall times within a factor of 1.5, compilation and files included.
_TRAINING_SHARE = 0.2
_SAMPLING_SHARE = 0.35
_SOLVER_SHARE = 0.07
_TRACED = 8  # members of a solver step whose operations are counted
_COUNTED = 1024
"""Points on a side of the largest grid on which they are: the constants of a step are arrays of its grid."""


def summary(experiment: Experiment) -> str:
    """The resolved configuration and a table of phases, as text."""
    lines = [f"  {name} = {value!r}" for name, value in config_lib.leaves(experiment.config)]
    rate = roofline.matrix_rate()
    rows = [("phase", "fields", "steps", "memory", "rough time")]
    total = 0.0
    for phase in phases_of(experiment):
        seconds = phase.work / rate
        total += seconds
        memory = f"{phase.memory / 2**30:.2f} GiB"
        rows.append((phase.name, f"{phase.fields:,}", f"{phase.steps:,}", memory, _duration(seconds)))
    rows.append(("together", "", "", "", _duration(total)))
    rate_line = f"device: {rate / 1e9:,.0f} GFLOP/s in float32 matrix products; compilation and files come on top"
    return "\n".join(["configuration", *lines, "phases", Table(rows[0], rows[1:]).plain(indent="  "), rate_line])


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """What one phase of a run costs.

    Attributes:
      name: as in the run's wall times.
      fields: how many pass through.
      steps: of the solver, of training, or of the sampler.
      memory: bytes.
      work: operations over the share of the matrix rate that they reach.
    """

    name: str
    fields: int
    steps: int
    memory: float
    work: float


def phases_of(experiment: Experiment) -> list[PhaseCost]:
    """What a run of an experiment goes through, in order."""
    data, dt = experiment.data, experiment.problem.dt
    stored = data.trajectories * len(experiment.simulation().snapshot_times())
    dataset = 2 * stored * _field_bytes(experiment)
    less = _on_less(experiment.problem)
    system, solver_steps = less.reference(), round(data.end / dt)
    rows = []
    if system is not None and not data.path:
        operations, state = _step_cost(system, experiment.problem, less)
        simulated = 10 * state * min(data.chunk, data.trajectories)
        work = operations * data.trajectories * solver_steps / _SOLVER_SHARE
        rows.append(PhaseCost("data", stored, solver_steps, dataset + simulated, work))
    shapes: dict[str, Any] = {}
    known: dict[str, tuple[float, float]] = {}  # both autoencoders cost the same
    for phase in experiment.program.phases(experiment):
        params = jax.eval_shape(lambda key, phase=phase: phase.start(key, shapes), _key())
        shapes[phase.name] = params
        if not jax.tree.leaves(params):  # physical space has no autoencoder to train
            continue
        size, count = phase.training.settings.batch_size, phase.training.settings.steps
        alike = str((phase.shared_field is not None or phase.name, phase.batch(size), params))
        if alike not in known:
            known[alike] = _training_cost(devices.alone(phase.loss), params, phase.batch(size))
        operations, memory = known[alike]
        rows.append(PhaseCost(phase.name, size * count, count, dataset + memory, operations * count / _TRAINING_SHARE))
    return rows + _evaluation(experiment, dataset)


def _evaluation(experiment: Experiment, dataset: float) -> list[PhaseCost]:
    ev, field, problem = experiment.evaluation, _field_bytes(experiment), experiment.problem
    encode, network, decode = _closure_operations(experiment)
    states = ev.states + held_states(ev.states, ev.steps)
    drawn = states * ev.samples
    operations = drawn * (len(ev.steps) * decode + sum(ev.steps) * network) + states * encode
    rows = [
        PhaseCost(
            "a_priori", drawn * len(ev.steps), sum(ev.steps), dataset + 3 * drawn * field, operations / _SAMPLING_SHARE
        )
    ]
    less = _on_less(problem)
    truth, closed = less.truth(), less.solver()
    if closed is None or truth is None:
        return rows
    members = ev.rollout_states * ev.rollout_members
    true_steps, closed_steps = round(ev.rollout_time / problem.dt), round(ev.rollout_time / closed.dt)
    solver = 2 * _truth_operations(truth, problem, less) / _SOLVER_SHARE  # the model's and the true ensemble
    sample = encode + decode + ev.rollout_sampler_steps * network
    sample *= getattr(experiment.coupling, "draws", 1)  # a rule may need several in each period
    sample /= experiment.coupling.period * _SAMPLING_SHARE
    memory = dataset + 2 * members * (round(ev.rollout_time) + 1) * field
    work = members * (true_steps * solver + closed_steps * sample)
    return [*rows, PhaseCost("a_posteriori", members, closed_steps, memory, work)]


def _on_less(problem: Problem) -> Problem:
    """The problem on grids of at most `_COUNTED` points a side, where it is a dataclass of such two."""
    while getattr(problem, "resolution", 0) > _COUNTED:
        for stored in (problem.stored_resolution, problem.stored_resolution // 2):
            one: Any = problem
            with contextlib.suppress(TypeError, UserError):  # other fields than these, or grids that do not fit
                one = dataclasses.replace(one, resolution=one.resolution // 2, stored_resolution=stored)
                one.reference()
                break
        else:
            return problem
        problem = one
    return problem


def _dearer(ratio: float, side: int) -> float:
    """How many times the operations of a step of a Fourier solver grow from a grid of `side` points to one of `ratio` as many."""
    return ratio**2 * math.log(ratio * side) / math.log(side)


def _field_bytes(experiment: Experiment) -> int:
    return 4 * experiment.data.resolution**2


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _step_cost(system: System, problem: Any, less: Any) -> tuple[float, float]:
    """Operations of one step of one trajectory of a problem, and bytes of its state, by the system of that on less."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _TRACED))
    state = jax.eval_shape(system.initial, keys)
    operations = roofline.operations(lambda keys, state: system.advance(keys, state, 0, 1), keys, state) / _TRACED
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / _TRACED
    if problem is less:
        return operations, size
    ratio = problem.resolution / less.resolution
    return _dearer(ratio, less.resolution) * operations, ratio**2 * size


def _truth_operations(truth: Dynamics, problem: Any, less: Any) -> float:
    """Operations of one solver step of one member of the true ensemble of a problem, by that on less."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (_TRACED, 1)))
    vorticity = jax.ShapeDtypeStruct((_TRACED, 1, *[less.stored_resolution] * 2), jnp.float32)
    state = jax.eval_shape(truth.begin, keys, vorticity)
    period = truth.period
    operations = roofline.operations(lambda keys, state: truth.advance(keys, state, 0, period), keys, state)
    operations /= _TRACED * period
    if problem is less:
        return operations
    # on the stored grid, or on that of the data's solver
    side = max(leaf.shape[-2] for leaf in jax.tree.leaves(state) if leaf.ndim >= 2)
    stored = side == less.stored_resolution
    ratio = (problem.stored_resolution if stored else problem.resolution) / side
    return _dearer(ratio, side) * operations


def _training_cost(loss: steps.Loss, params: Any, batch: dict[str, Any]) -> tuple[float, float]:
    """Operations of one training step, and bytes of parameters, optimiser and activations."""
    size = next(iter(batch.values())).shape[0]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    operations = roofline.operations(jax.grad(lambda p, b, k: loss(p, b, k)[0]), params, batch, keys)
    program = jax.make_jaxpr(lambda p, b, k: loss(p, b, k)[0])(params, batch, keys)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return operations, 5 * weights + _intermediate_bytes(program.jaxpr)


def _intermediate_bytes(program: core.Jaxpr) -> float:
    """Bytes of everything that a forward pass computes: an upper bound of what the backward pass keeps."""
    total = 0.0
    for equation in program.eqns:
        inner = list(roofline.inner_programs(equation.params.values()))
        if inner:
            of_each = [_intermediate_bytes(one) for one in inner]
            total += max(of_each) if equation.primitive.name == "cond" else sum(of_each)
        else:
            made: list[Any] = [variable.aval for variable in equation.outvars]
            total += sum(aval.size * aval.dtype.itemsize for aval in made if hasattr(aval, "size"))
    return total


def _closure_operations(experiment: Experiment, batch: int = 16) -> tuple[float, float, float]:
    """Operations for one field of encoding, of one network call, of decoding."""
    model = jax.eval_shape(experiment.assemble, experiment.template())  # an argument: a constant would be written out
    n = experiment.data.resolution
    field = jax.ShapeDtypeStruct((batch, n, n), jnp.float32)
    latent = jax.ShapeDtypeStruct((batch, *experiment.latent_shape), jnp.float32)
    times = [jax.ShapeDtypeStruct((batch,), jnp.float32)] * experiment.transport.times

    def network(model: StochasticClosure, condition: jax.Array, x: jax.Array, *times: jax.Array) -> jax.Array:
        return model.bind(condition)(x, *times)

    counts = (
        roofline.operations(StochasticClosure.encode, model, field),
        roofline.operations(network, model, latent, latent, *times),
        roofline.operations(StochasticClosure.decode, model, latent),
    )
    encode, call, decode = (count / batch for count in counts)
    return encode, call, decode


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
