"""A posteriori: ensembles closed by a model and by baselines against an ensemble of the true system, from the same states."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from closure_jax import random
from closure_jax.coupling import Coupling, Fresh, ensemble
from closure_jax.coupling.advance import Coupled, Dynamics
from closure_jax.coupling.base import Windows
from closure_jax.coupling.draw import Draw, is_random
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.evaluation.measures import OF_ROLLOUTS, OF_SPREAD, RolloutMeasure, by_time
from closure_jax.files import Kept
from closure_jax.physics import spectral
from closure_jax.problems.base import Problem

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


@dataclasses.dataclass(frozen=True)
class Reference:
    """True ensembles from states of test trajectories, which closed ones are judged against.

    Attributes:
      problem: its solver is closed.
      initial: (states, n, n), physical units, from which all ensembles start.
      windows: of the training trajectories, to which a rule is fitted.
      settings: of all ensembles.
      start: time of the initial states.
      truth, second: true ensembles with keys of their own.
      kept: where ensembles are kept; None runs each one anew.
    """

    problem: Problem
    initial: np.ndarray
    windows: Windows
    settings: Settings
    start: float
    truth: Rollout
    second: Rollout
    kept: Kept | None

    def closed(self, draw: Draw, coupling: Coupling, key: Key[Array, ""], label: str) -> Rollout:
        """The ensemble of the solver closed by `draw` under a fitted rule; one member, a new closure each step, where it has no
        noise."""
        solver = self.problem.solver()
        assert solver is not None, "see reference"
        members = self.settings.members
        if not is_random(draw, self.initial.shape[-1]):
            coupling, members = Fresh(), 1
        dynamics = Coupled(solver.step, solver.dt, draw, coupling)
        (run,) = _run(dynamics, self.initial, members, {label: key}, self.settings, self.kept)
        return run

    def judge(self, run: Rollout, measures: Mapping[str, RolloutMeasure] = MappingProxyType({})) -> dict[str, Any]:
        """Measures by time of one ensemble; a single member stands for an ensemble of members that agree."""
        states, members, *grid = run.fields.shape[1:]
        fields = np.broadcast_to(run.fields, (len(run.fields), states, max(2, members), *grid))
        table = OF_ROLLOUTS | (OF_SPREAD if members > 1 else {}) | dict(measures)
        return {
            **{name: measure(fields, self.truth.fields, self.problem) for name, measure in table.items()},
            "members": members,
            "finite_fraction": float(np.isfinite(run.fields[-1]).all(axis=(2, 3)).mean()),
            "seconds_per_time_unit": run.seconds / (len(run.fields) - 1),
        }

    def facts(self) -> dict[str, Any]:
        """What is known before a model is judged: of the ensembles, and of two true ones beside each other."""
        spread = by_time(lambda fields, _: metrics.rms_spread(fields))
        return {
            "states": self.settings.states,
            "members": self.settings.members,
            "start_time": self.start,
            "time": [float(unit) for unit in range(self.settings.units + 1)],
            "relative_error_floor": OF_ROLLOUTS["relative_error"](self.second.fields, self.truth.fields, self.problem),
            "spread_truth": spread(self.truth.fields, self.truth.fields, self.problem),
            "seconds_per_time_unit_truth": self.truth.seconds / self.settings.units,
        }


def reference(problem: Problem, dataset: Dataset, seed: int, settings: Settings, kept: Kept | None = None) -> Reference:
    """Runs the true ensembles.

    Raises:
      ValueError: the problem has no solver, or no truth on its grid.
    """
    solver, true_system = problem.solver(), problem.truth()
    if solver is None or true_system is None:
        raise ValueError("expected a problem with a solver and its truth")
    column = int(np.argmin(np.abs(dataset.time - settings.start)))
    initial = dataset.vorticity["test"][: settings.states, column]
    interval = float(dataset.time[1] - dataset.time[0])
    windows = Windows(dataset.vorticity["train"], dataset.closure["train"], interval, solver.dt)
    keys = {
        f"{name.replace('_', ' ')} ensemble": random.stream(seed, f"{name}_ensemble")
        for name in ("true", "second_true")
    }
    truth, second = _run(true_system, initial, settings.members, keys, settings, kept)
    return Reference(problem, initial, windows, settings, float(dataset.time[column]), truth, second, kept)


def _run(
    dynamics: Dynamics,
    initial: np.ndarray,
    members: int,
    keys: Mapping[str, Key[Array, ""]],
    settings: Settings,
    kept: Kept | None,
) -> list[Rollout]:
    start = np.repeat(initial[:, None], members, axis=1)
    return ensemble.rollouts(dynamics, start, keys, settings.units, settings.chunk, kept)


def evaluate(
    problem: Problem,
    coupling: Coupling,
    dataset: Dataset,
    draw: Draw,
    seed: int,
    settings: Settings,
    kept: Kept | None = None,
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
      kept: where ensembles are kept, so that an evaluation that was stopped goes on in their middle.
      measures: beside those of the table, by name.
    """
    true = reference(problem, dataset, seed, settings, kept)
    coupling = coupling.fit(draw, true.windows)
    learned = true.closed(draw, coupling, random.stream(seed, "model_ensemble"), "model ensemble")
    baselines = {
        name: true.closed(baseline, coupling, random.stream(seed, "baseline", name), f"baseline {name}")
        for name, baseline in problem.baselines(dataset).items()
    }
    judge = functools.partial(true.judge, measures=measures)
    results: dict[str, Any] = {
        **true.facts(),
        "hold": coupling.period,
        "coupling": dict(vars(coupling)),  # with what was fitted
        **judge(learned),
        "baselines": {name: judge(one) for name, one in baselines.items()},
    }
    if "none" in baselines:
        results["relative_error_no_closure"] = results["baselines"]["none"]["relative_error"]
    return results, _arrays(true, {"model": learned} | baselines)


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
    return arrays


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of finite values per unit of vorticity in each bin; values beyond the truth's range count in the whole."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    return counts / (max(1, finite.size) * np.diff(edges))
