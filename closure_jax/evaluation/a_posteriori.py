"""A posteriori: an ensemble closed by the model against an ensemble of the true system, from the same states."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from closure_jax.closure import StochasticClosure
from closure_jax.config import build
from closure_jax.coupling import draw
from closure_jax.coupling import ensemble as ensemble_lib
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import spectral
from closure_jax.transport import paths

_BINS = 80


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

    run = functools.partial(ensemble_lib.rollout, flow, dt=dt, units=units, chunk=ev.rollout_chunk, scratch=scratch)
    exact = flow_lib.exact_closure(flow.grid, noise)
    truth = run(exact, ensemble, true_key, hold=1, label="true ensemble")
    if ev.rollout_t_max and isinstance(model.path, paths.Diffusion):
        model = model.replace(path=dataclasses.replace(model.path, t_max=ev.rollout_t_max))
    sampler = draw.model_sampler(model, ev.rollout_sampler_steps, ev.rollout_white_noise)
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
