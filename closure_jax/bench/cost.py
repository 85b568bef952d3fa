"""What a run will cost: phases with fields, steps, memory and a rough time on this device, without running them.

Operations are counted by XLA on the traced programs; the time divides them by a fixed share of the matrix rate measured here.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from closure_jax import closure
from closure_jax.config import build
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import stepper
from closure_jax.training import phases, steps

_NETWORK_SHARE = 0.2  # of the matrix rate that networks reach (measured on two CPU cores; rough)
_SOLVER_SHARE = 0.35  # of the matrix rate that the solver reaches, likewise


def summary(config: ml_collections.ConfigDict) -> str:
    """The resolved configuration and a table of phases, as text."""
    lines = [f"  {name} = {value!r}" for name, value in build.describe(config).items()]
    rate = matrix_rate()
    rows = [("phase", "fields", "steps", "memory", "rough time")]
    total = 0.0
    for phase in _phases(config):
        seconds = phase.work / rate
        total += seconds
        memory = f"{phase.memory / 2**30:.2f} GiB"
        rows.append((phase.name, f"{phase.fields:,}", f"{phase.steps:,}", memory, _duration(seconds)))
    rows.append(("together", "", "", "", _duration(total)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    rate_line = f"device: {rate / 1e9:,.0f} GFLOP/s in float32 matrix products; compilation and files come on top"
    return "\n".join(["configuration", *lines, "phases", *table, rate_line])


def matrix_rate(size: int = 2048) -> float:
    """Operations a second of a float32 matrix product on all local devices."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    start = time.perf_counter()
    repeats = 5
    for _ in range(repeats):
        a = product(a) / size
    a.block_until_ready()
    return 2 * size**3 * repeats / (time.perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class _Phase:
    """One row of the table; `work` is operations over the share of the matrix rate that they reach."""

    name: str
    fields: int
    steps: int
    memory: float
    work: float


def _phases(config: ml_collections.ConfigDict) -> list[_Phase]:
    data = config.data
    stored = data.trajectories * len(build.simulation(config).snapshot_times())
    dataset = 2 * stored * _field_bytes(config)
    solver_steps = round(data.end / config.flow.dt)
    simulated = 80 * min(data.chunk, data.trajectories) * config.flow.resolution**2
    solver = _solver_flops(config, build.solver_flow(config)) * data.trajectories * solver_steps / _SOLVER_SHARE
    rows = [_Phase("data", stored, solver_steps, dataset + simulated, solver)]
    for name, section_name in phases.program_of(config).phases.items():
        section = config[section_name]
        losses = [make(config, section.batch_size) for make in _LOSSES[name]]
        costs = [_training_cost(*loss) for loss in losses if jax.tree.leaves(loss[1])]
        if costs:  # physical space has no autoencoder to train
            flops, memory = (sum(column) for column in zip(*costs, strict=True))
            work = flops * section.steps / _NETWORK_SHARE
            rows.append(_Phase(name, section.batch_size * section.steps, section.steps, dataset + memory, work))
    return rows + _evaluation(config, dataset)


def _evaluation(config: ml_collections.ConfigDict, dataset: float) -> list[_Phase]:
    ev, field = config.evaluation, _field_bytes(config)
    encode, velocity, decode = _closure_flops(config)
    drawn = ev.states * ev.samples
    flops = drawn * (len(ev.steps) * decode + sum(ev.steps) * velocity) + ev.states * encode
    prior = _Phase(
        "a_priori", drawn * len(ev.steps), sum(ev.steps), dataset + 3 * drawn * field, flops / _NETWORK_SHARE
    )
    members, rollout_steps = ev.rollout_states * ev.rollout_members, round(ev.rollout_time / config.flow.dt)
    solver = 2 * _solver_flops(config, build.stored_flow(config)) / _SOLVER_SHARE  # the model's and the true ensemble
    sample = (encode + decode + ev.rollout_sampler_steps * velocity) / ev.rollout_hold / _NETWORK_SHARE
    memory = dataset + 2 * members * (round(ev.rollout_time) + 1) * field
    return [prior, _Phase("a_posteriori", members, rollout_steps, memory, members * rollout_steps * (solver + sample))]


def _field_bytes(config: ml_collections.ConfigDict) -> int:
    return 4 * config.data.resolution**2


def _flops(function: Callable, *arguments: Any) -> float:
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _solver_flops(config: ml_collections.ConfigDict, flow: flow_lib.KolmogorovFlow) -> float:
    n = flow.grid.shape[0]
    sampler = flow_lib.exact_closure(flow.grid, build.noise(config, flow))
    step = stepper.euler_maruyama(flow, config.flow.dt)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
    state = jax.ShapeDtypeStruct((8, n, n // 2 + 1), jnp.complex64)
    transforms = 4 * 2.5 * n**2 * np.log2(n**2)  # XLA counts no operations for an FFT
    return _flops(lambda keys, state: step(state, sampler(keys, state)), keys, state) / 8 + transforms


def _training_cost(loss: steps.Loss, params: Any, batch: dict[str, Any]) -> tuple[float, float]:
    """Operations of one training step, and bytes of parameters, optimiser and activations."""
    size = len(batch["position"])
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    flops = _flops(jax.grad(lambda p, b, k: loss(p, b, k)[0]), params, batch, keys)
    program = jax.make_jaxpr(lambda p, b, k: loss(p, b, k)[0])(params, batch, keys)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return flops, 5 * weights + _intermediate_bytes(program.jaxpr)


def _intermediate_bytes(program: Any) -> float:
    """Bytes of everything that a forward pass computes: an upper bound of what the backward pass keeps."""
    total = 0.0
    for equation in program.eqns:
        inner = [p.jaxpr for p in equation.params.values() if hasattr(p, "jaxpr")]
        if inner:
            total += sum(_intermediate_bytes(one) for one in inner)
        else:
            total += sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars if hasattr(v.aval, "size"))
    return total


def _autoencoder_loss(config: ml_collections.ConfigDict, size: int) -> tuple[steps.Loss, Any, dict[str, Any]]:
    n = config.data.resolution
    params = jax.eval_shape(lambda: build.init_autoencoder(config, jax.random.key(0)))
    batch = {"field": jax.ShapeDtypeStruct((size, n, n), jnp.float32), "position": np.arange(size)}
    return steps.autoencoder_loss(*build.autoencoder_pair(config), None), params, batch


def _transport_loss(config: ml_collections.ConfigDict, size: int) -> tuple[steps.Loss, Any, dict[str, Any]]:
    latent = jax.ShapeDtypeStruct((size, *build.latent_shape(config)), jnp.float32)
    params = jax.eval_shape(lambda: build.init_network(config, jax.random.key(0)))
    loss = steps.transport_loss(build.network(config), build.path(config), config.network.prediction)
    return loss, params, {"condition": latent, "target": latent, "position": np.arange(size)}


_LOSSES: dict[str, tuple[Callable, ...]] = {
    "autoencoder_vorticity": (_autoencoder_loss,),
    "autoencoder_closure": (_autoencoder_loss,),
    "transport": (_transport_loss,),
    "joint": (_autoencoder_loss, _autoencoder_loss, _transport_loss),
}
"""What a phase of training adds up, by name: (config, batch size) -> (loss, params, batch)."""


def _closure_flops(config: ml_collections.ConfigDict, batch: int = 16) -> tuple[float, float, float]:
    """Operations for one field of encoding, of one network call, of decoding."""
    model = build.assemble(config, build.template_of(config))
    n = config.data.resolution
    field = jax.ShapeDtypeStruct((batch, n, n), jnp.float32)
    latent = jax.ShapeDtypeStruct((batch, *build.latent_shape(config)), jnp.float32)
    tau = jax.ShapeDtypeStruct((batch,), jnp.float32)

    def velocity(condition, x_tau, tau):
        return closure.bind_drift(model.network, model.path, model.prediction, model.params["network"], condition)(
            x_tau, tau
        )

    counts = _flops(model.encode, field), _flops(velocity, latent, latent, tau), _flops(model.decode, latent)
    return tuple(count / batch for count in counts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
