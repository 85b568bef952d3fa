"""A posteriori: ensembles closed by a model and by baselines against an ensemble of the true system, from the same states."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from closure_jax import random
from closure_jax.coupling import Coupling, Fresh, ensemble
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.base import Windows
from closure_jax.coupling.draw import Draw, is_random
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.evaluation.measures import OF_ROLLOUTS, OF_SPREAD, RolloutMeasure, by_time
from closure_jax.physics import spectral
from closure_jax.problems.base import Problem, Solver

_BINS = 80


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which ensembles are run.

    Attributes:
      states: test trajectories from which they start.
      members: of each state.
      start: time in the trajectories at which they start.
      units: whole time units that they run.
      chunk: members that run together; bounds the memory, changes no number.
    """

    states: int
    members: int
    start: float
    units: int
    chunk: int


def evaluate(
    problem: Problem,
    coupling: Coupling,
    dataset: Dataset,
    draw: Draw,
    seed: int,
    settings: Settings,
    scratch: pathlib.Path | None = None,
    measures: Mapping[str, RolloutMeasure] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `a_posteriori` part of results.json, and arrays for the report.

    A baseline without noise runs as one member, a new closure each step; one with noise runs as the model does.

    Args:
      problem: has a solver, and the truth on its grid.
      coupling: the rule for the model's noise in time, fitted here to the training trajectories.
      dataset: trajectories; the ensembles start from those that test.
      draw: the model.
      seed: of all ensembles.
      settings: which ensembles.
      scratch: folder for large ones.
      measures: beside those of the table, by name.
    """
    solver, true_system = problem.solver(), problem.truth()
    if solver is None or true_system is None:
        raise ValueError("expected a problem with a solver and its truth")
    column = int(np.argmin(np.abs(dataset.time - settings.start)))
    initial = dataset.vorticity["test"][: settings.states, column]
    members = np.repeat(initial[:, None], settings.members, axis=1)
    keys = {name: random.stream(seed, f"{name}_ensemble") for name in ("true", "second_true", "model")}
    run = functools.partial(ensemble.rollout, units=settings.units, chunk=settings.chunk, scratch=scratch)

    interval = float(dataset.time[1] - dataset.time[0])
    windows = Windows(dataset.vorticity["train"], dataset.closure["train"], interval, solver.dt)
    coupling = coupling.fit(draw, windows)
    truth = run(true_system, members, keys["true"], label="true ensemble")
    again = run(true_system, members, keys["second_true"], label="second true ensemble")
    learned = run(Coupled(solver.step, solver.dt, draw, coupling), members, keys["model"], label="model ensemble")
    baselines: dict[str, Rollout] = {}
    for name, baseline in problem.baselines(dataset).items():
        with_noise = is_random(baseline, initial.shape[-1])
        dynamics = Coupled(solver.step, solver.dt, baseline, coupling if with_noise else Fresh())
        start = members if with_noise else initial[:, None]
        baselines[name] = run(dynamics, start, random.stream(seed, "baseline", name), label=f"baseline {name}")

    judge = functools.partial(_judge, truth=truth, problem=problem, measures=OF_ROLLOUTS | dict(measures))
    results: dict[str, Any] = {
        "states": settings.states,
        "members": settings.members,
        "start_time": float(dataset.time[column]),
        "hold": coupling.period,
        "coupling": dict(vars(coupling)),  # with what was fitted
        "time": [float(unit) for unit in range(settings.units + 1)],
        **judge(learned),
        "relative_error_floor": OF_ROLLOUTS["relative_error"](again.fields, truth.fields, problem),
        "spread_truth": by_time(lambda fields, _: metrics.rms_spread(fields))(truth.fields, truth.fields, problem),
        "seconds_per_time_unit_truth": truth.seconds / settings.units,
        "baselines": {name: judge(one) for name, one in baselines.items()},
    }
    if "none" in baselines:
        results["relative_error_no_closure"] = results["baselines"]["none"]["relative_error"]
    return results, _arrays(solver, truth, {"model": learned} | baselines, float(dataset.time[column]))


def _judge(run: Rollout, truth: Rollout, problem: Problem, measures: Mapping[str, RolloutMeasure]) -> dict[str, Any]:
    """Measures by time of one ensemble; a single member stands for an ensemble of members that agree."""
    states, members, *grid = run.fields.shape[1:]
    fields = np.broadcast_to(run.fields, (len(run.fields), states, max(2, members), *grid))
    if members > 1:
        measures = OF_SPREAD | dict(measures)
    return {
        **{name: measure(fields, truth.fields, problem) for name, measure in measures.items()},
        "members": members,
        "finite_fraction": float(np.isfinite(run.fields[-1]).all(axis=(2, 3)).mean()),
        "seconds_per_time_unit": run.seconds / (len(run.fields) - 1),
    }


def _arrays(solver: Solver, truth: Rollout, runs: Mapping[str, Rollout], start: float) -> dict[str, np.ndarray]:
    """Fields, spectra and densities of vorticity of the ensembles at three times; a baseline's have its name.

    Args:
      solver: its grid is that of the fields.
      truth: the true ensemble.
      runs: "model", and baselines by name; the arrays of "none" are called no_closure.
      start: time at which they start.
    """
    grid, units = solver.grid, len(truth.fields) - 1
    shown = np.unique([max(1, units // 10), max(1, units // 2), units])
    edges = np.linspace(truth.fields.min(), truth.fields.max(), _BINS + 1)
    arrays = {
        "field_time": shown.astype(float),
        "start_time": np.array(start),
        "domain_length": np.array(grid.domain[0][1]),
        "pdf_vorticity": 0.5 * (edges[1:] + edges[:-1]),
        "animation_time": np.linspace(0, units, len(truth.frames)),
        "animation_truth": truth.frames,
        "animation_model": runs["model"].frames,
    }
    by_field: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "energy": lambda fields: np.mean(spectral.energy_spectrum(jnp.asarray(fields), grid), axis=0),
        "enstrophy": lambda fields: np.mean(spectral.enstrophy_spectrum(jnp.asarray(fields)), axis=0),
        "pdf": lambda fields: _density(fields, edges),
    }
    for name, one in ({"truth": truth} | dict(runs)).items():
        name = "no_closure" if name == "none" else name
        picked = one.fields[shown]
        flat = picked.reshape(len(shown), -1, *picked.shape[3:])
        arrays[f"field_{name}"] = picked[:, 0, 0]
        arrays |= {f"{kind}_{name}": np.stack([of(fields) for fields in flat]) for kind, of in by_field.items()}
    return arrays


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of finite values per unit of vorticity in each bin; values beyond the truth's range count in the whole."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    return counts / (max(1, finite.size) * np.diff(edges))
