"""A posteriori: ensembles closed by a model and by baselines against an ensemble of the true system, from the same states."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import random
from closure_jax.coupling import Coupling, Fresh
from closure_jax.coupling.draw import Draw, is_random
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation.measures import RolloutMeasure
from closure_jax.evaluation.reference import Reference, Settings, reference
from closure_jax.evaluation.shared import Shared
from closure_jax.files import Kept
from closure_jax.physics import spectral
from closure_jax.problems.base import Problem

_BINS = 80


def evaluate(
    problem: Problem,
    coupling: Coupling,
    dataset: Dataset,
    draw: Draw,
    seed: int,
    settings: Settings,
    kept: Kept | None = None,
    measures: Mapping[str, RolloutMeasure] = MappingProxyType({}),
    shared: Shared | None = None,
    seen: Dataset | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `a_posteriori` part of results.json, and arrays for the report.

    What has no noise runs as one member, a new closure each step, whatever the rule; a baseline with noise runs by its own rule,
    an attribute `coupling`, or else as the model does.

    Args:
      problem: has a solver, and the truth on its grid.
      coupling: the rule for the model's noise in time, fitted here to the training trajectories.
      dataset: trajectories; the ensembles start from those that test.
      draw: the model.
      seed: of all ensembles but the true ones, which the data's has made.
      settings: which ensembles.
      kept: where ensembles are kept, so that an evaluation that was stopped goes on in their middle.
      measures: beside those of the table, by name.
      shared: where ensembles are kept that no model changes; None: nowhere.
      seen: data that rules and baselines are fitted to; None: the same.
    """
    true = reference(problem, dataset, seed if shared is None else shared.seed, settings, kept, shared, seen)
    coupling = coupling.fit(draw, true.windows) if is_random(draw, true.initial.shape[-1]) else Fresh()
    key = random.stream(seed, "model_ensemble")
    learned, found = true.judged(draw, coupling, key, "model ensemble", measures)
    baselines = {
        name: _baseline(name, baseline, coupling, true, seed, measures)
        for name, baseline in problem.baselines(seen or dataset).items()
    }
    results: dict[str, Any] = {
        **true.facts(),
        "hold": coupling.period,
        "coupling": dict(vars(coupling)),  # with what was fitted
        **found,
        "baselines": {name: judged for name, (_, judged) in baselines.items()},
    }
    if "none" in baselines:
        results["relative_error_no_closure"] = results["baselines"]["none"]["relative_error"]
    return results, _arrays(true, {"model": learned} | {name: run for name, (run, _) in baselines.items()})


def _baseline(
    name: str,
    draw: Draw,
    coupling: Coupling,
    true: Reference,
    seed: int,
    measures: Mapping[str, RolloutMeasure],
) -> tuple[Rollout, dict[str, Any]]:
    """The ensemble of a baseline, and its measures; that of no model is run once for all."""
    own = getattr(draw, "coupling", None)
    rule = coupling if own is None else own.fit(draw, true.windows)
    of_no_model = own is not None or not is_random(draw, true.initial.shape[-1])
    key = random.stream(true.shared.seed if true.shared and of_no_model else seed, "baseline", name)
    run, found = true.judged(draw, rule, key, f"baseline {name}", measures, of_no_model)
    return run, found if own is None else found | {"coupling": dict(vars(rule))}


def _arrays(true: Reference, runs: Mapping[str, Rollout]) -> dict[str, np.ndarray]:
    """Fields, spectra and densities of vorticity of the ensembles at three times; a baseline's have its name.

    Args:
      true: the true ensembles.
      runs: "model", and baselines by name; the arrays of "none" are called no_closure.
    """
    solver, truth = true.problem.solver(), true.truth
    assert solver is not None, "see reference"
    grid, units = solver.grid, len(truth.fields) - 1
    shown = np.unique([max(1, units // 10), max(1, units // 2), units])
    edges = np.linspace(truth.fields.min(), truth.fields.max(), _BINS + 1)
    arrays = {
        "field_time": shown.astype(float),
        "start_time": np.array(true.start),
        "domain_length": np.array(grid.domain[0][1]),
        "pdf_vorticity": 0.5 * (edges[1:] + edges[:-1]),
        "animation_time": np.linspace(0, units, len(truth.frames)),
        "animation_truth": truth.frames,
        "animation_model": runs["model"].frames,
    }
    by_field: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "energy": jax.jit(lambda fields: jnp.mean(spectral.energy_spectrum(fields, grid), axis=0)),
        "enstrophy": jax.jit(lambda fields: jnp.mean(spectral.enstrophy_spectrum(fields), axis=0)),
        "pdf": lambda fields: _density(fields, edges),
    }
    for name, one in ({"truth": truth} | dict(runs)).items():
        name = "no_closure" if name == "none" else name
        picked = one.fields[shown]
        flat = picked.reshape(len(shown), -1, *picked.shape[3:])
        arrays[f"field_{name}"] = picked[:, 0, 0]
        arrays |= {f"{kind}_{name}": np.stack([of(fields) for fields in flat]) for kind, of in by_field.items()}
        over_all = true.statistics(one)
        arrays |= {f"mean_{kind}_{name}": getattr(over_all, kind) for kind in ("enstrophy", "flux", "density")}
        arrays["mean_density_vorticity"] = 0.5 * (over_all.edges[1:] + over_all.edges[:-1])
    return arrays


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of finite values per unit of vorticity in each bin; values beyond the truth's range count in the whole."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    return counts / (max(1, finite.size) * np.diff(edges))
