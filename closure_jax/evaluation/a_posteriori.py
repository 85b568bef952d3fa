"""A posteriori: an ensemble closed by the model against an ensemble of the true system, from the same states."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from closure_jax import build, devices, random
from closure_jax.closure import StochasticClosure
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import spectral, stepper
from closure_jax.transport import paths

_FRAMES_PER_UNIT = 5
_BINS = 80
_IN_MEMORY = 2**30  # bytes; snapshots of a larger ensemble go to a file


@dataclasses.dataclass(frozen=True)
class Rollout:
    """An ensemble's run: `fields` (units + 1, states, members, n, n) at whole time units, 0 included; `frames` (F, n, n) of the
    first member of the first state; `seconds` of stepping, compilation apart. `fields` of a large ensemble lie in a file."""

    fields: np.ndarray
    frames: np.ndarray
    seconds: float


def model_sampler(model: StochasticClosure, steps: int, white_noise: float = 0.0) -> flow_lib.ClosureSampler:
    """A learned closure as the solver wants it, Fourier to Fourier.

    Args:
      model: the closure.
      steps: sampler steps.
      white_noise: standard deviation of pixel noise added to each sample (published rollouts: 5e-5).
    """

    def sample(keys: jax.Array, vorticity_hat: jax.Array) -> jax.Array:
        vorticity = spectral.to_physical(vorticity_hat)
        closure = model.sample(keys, vorticity, steps)
        if white_noise:
            draw = jax.vmap(lambda key: random.normal(jax.random.fold_in(key, 7), vorticity.shape[1:]))
            closure = closure + white_noise * draw(keys)
        return spectral.to_fourier(closure)

    return sample


def rollout(
    flow: flow_lib.KolmogorovFlow,
    closure: flow_lib.ClosureSampler,
    vorticity: np.ndarray,
    key: jax.Array,
    dt: float,
    hold: int,
    units: int,
    label: str,
    chunk: int = 128,
    scratch: pathlib.Path | None = None,
) -> Rollout:
    """Runs (states, members, n, n) for `units` time units; member m of all states together has the key fold_in(key, m).

    About `chunk` members run at a time, split over this process' devices where they divide; the grouping changes nothing.
    Snapshots beyond 1 GiB are written to a file in the folder `scratch` as they are made, if there is one.
    """
    states, members, *grid = vorticity.shape
    per_unit = round(1 / dt)
    frames_per_unit = _FRAMES_PER_UNIT if per_unit % (_FRAMES_PER_UNIT * hold) == 0 else 1
    segment = per_unit // frames_per_unit
    size, starts = _chunks(states * members, chunk)
    parts = devices.parts_of(size)
    advance = stepper.advance(flow, closure, dt, hold)
    run = devices.map_members(lambda *arguments: advance(*arguments, segment), parts, (0, 0, None), donate=1)
    to_physical = devices.map_members(spectral.to_physical, parts)
    fields = _storage((units + 1, states * members, *grid), label, scratch)
    fields[0] = vorticity.reshape(states * members, *grid)
    frames, seconds, compiled = [vorticity[0, 0]], 0.0, None
    bar = tqdm(total=len(starts) * units * frames_per_unit, desc=label, unit="frame", disable=None)
    for begin in starts:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(begin, begin + size))
        state = spectral.to_fourier(jnp.asarray(fields[0, begin : begin + size]))
        if compiled is None:  # from arrays of its own: what is donated may be gone after lowering
            compiled = run.lower(*devices.split_members((keys, state), parts), 0).compile()
        keys, state = devices.split_members((keys, state), parts)
        start = time.perf_counter()
        for index in range(units * frames_per_unit):
            state = compiled(keys, state, index * segment)
            whole = (index + 1) % frames_per_unit == 0
            if whole:
                fields[(index + 1) // frames_per_unit, begin : begin + size] = devices.join_members(to_physical(state))
            if begin == 0:
                frames.append(np.asarray(spectral.to_physical(state[0, 0])))
            bar.update()
        jax.block_until_ready(state)
        seconds += time.perf_counter() - start
    bar.close()
    return Rollout(fields.reshape(units + 1, *vorticity.shape), np.stack(frames), seconds)


def _chunks(total: int, chunk: int) -> tuple[int, list[int]]:
    """Size and first members of equal chunks, so that one program serves all: (size, starts).

    The size is rounded up to a multiple of this process' devices; the last chunk then repeats a few members of the one before.
    """
    number = -(-total // chunk)
    count = jax.local_device_count()
    size = -(-total // (number * count)) * count
    size = size if size <= total else total
    return size, [min(i * size, total - size) for i in range(-(-total // size))]


def _storage(shape: tuple[int, ...], label: str, scratch: pathlib.Path | None) -> np.ndarray:
    if scratch is None or 4 * np.prod(shape) < _IN_MEMORY:
        return np.empty(shape, np.float32)
    scratch.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(scratch / f"{label.replace(' ', '_')}.npy", "w+", np.float32, shape)


def evaluate(
    config: ml_collections.ConfigDict, dataset: Dataset, model: StochasticClosure, scratch: pathlib.Path | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `a_posteriori` part of results.json, and arrays for the report; `scratch` is a folder for large ensembles."""
    ev = config.evaluation
    flow, units, dt = build.stored_flow(config), round(ev.rollout_time), config.flow.dt
    noise = build.noise(config, flow)
    column = int(np.argmin(np.abs(dataset.time - ev.rollout_start)))
    initial = dataset.vorticity["test"][: ev.rollout_states, column]
    ensemble = np.repeat(initial[:, None], ev.rollout_members, axis=1)
    key = jax.random.fold_in(jax.random.key(config.seed), 202)
    true_key, model_key = jax.random.split(key)

    run = functools.partial(rollout, flow, dt=dt, units=units, chunk=ev.rollout_chunk, scratch=scratch)
    exact = flow_lib.exact_closure(flow.grid, noise)
    truth = run(exact, ensemble, true_key, hold=1, label="true ensemble")
    if ev.rollout_t_max and isinstance(model.path, paths.Diffusion):
        model = model.replace(path=dataclasses.replace(model.path, t_max=ev.rollout_t_max))
    sampler = model_sampler(model, ev.rollout_sampler_steps, ev.rollout_white_noise)
    learned = run(sampler, ensemble, model_key, hold=ev.rollout_hold, label="model ensemble")
    bare = run(flow_lib.no_closure, initial[:, None], key, hold=1, label="no closure")

    results: dict[str, Any] = {
        "states": ev.rollout_states,
        "members": ev.rollout_members,
        "start_time": float(dataset.time[column]),
        "sampler_steps": ev.rollout_sampler_steps,
        "hold": ev.rollout_hold,
        "time": [float(unit) for unit in range(units + 1)],
        "relative_error": [],
        "relative_error_no_closure": [],
        "spread": [],
        "spread_truth": [],
        "crps": [],
        "finite_fraction": float(np.isfinite(learned.fields[-1]).all(axis=(2, 3)).mean()),
        "seconds_per_time_unit": learned.seconds / units,
        "seconds_per_time_unit_truth": truth.seconds / units,
    }
    for unit in range(units + 1):
        true, guess = truth.fields[unit], learned.fields[unit]
        true_mean = true.mean(axis=1)
        results["relative_error"].append(metrics.relative_error(guess.mean(axis=1), true_mean))
        results["relative_error_no_closure"].append(metrics.relative_error(bare.fields[unit, :, 0], true_mean))
        results["spread"].append(metrics.rms_spread(guess))
        results["spread_truth"].append(metrics.rms_spread(true))
        results["crps"].append(metrics.ensemble_crps(guess, true))
    return results, _arrays(config, truth, learned, bare, float(dataset.time[column]), units)


def _arrays(
    config: ml_collections.ConfigDict, truth: Rollout, learned: Rollout, bare: Rollout, start: float, units: int
) -> dict[str, np.ndarray]:
    grid = build.stored_flow(config).grid
    shown = np.unique([max(1, units // 10), max(1, units // 2), units])
    runs = {"truth": truth, "model": learned, "no_closure": bare}
    edges = np.linspace(truth.fields.min(), truth.fields.max(), _BINS + 1)
    arrays = {
        "field_time": shown.astype(float),
        "start_time": np.array(start),
        "domain_length": np.array(config.flow.domain_length),
        "pdf_vorticity": 0.5 * (edges[1:] + edges[:-1]),
        "animation_time": np.linspace(0, units, len(truth.frames)),
        "animation_truth": truth.frames,
        "animation_model": learned.frames,
    }
    for name, one in runs.items():
        picked = one.fields[shown]
        flat = picked.reshape(len(shown), -1, *picked.shape[3:])
        arrays[f"field_{name}"] = picked[:, 0, 0]
        arrays[f"energy_{name}"] = np.stack([np.mean(spectral.energy_spectrum(f, grid), axis=0) for f in flat])
        arrays[f"enstrophy_{name}"] = np.stack([np.mean(spectral.enstrophy_spectrum(f), axis=0) for f in flat])
        arrays[f"pdf_{name}"] = np.stack([_density(f, edges) for f in flat])
    return arrays


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of finite values per unit of vorticity in each bin; values beyond the truth's range count in the whole."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    return counts / (max(1, finite.size) * np.diff(edges))
