"""True ensembles from test states, and how closed ones are run and judged beside them."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids
from jaxtyping import Array, Key

from closure_jax import random
from closure_jax.coupling import Coupling, Fresh, ensemble
from closure_jax.coupling.advance import Coupled, Dynamics
from closure_jax.coupling.base import Windows
from closure_jax.coupling.draw import Draw, is_random
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import a_priori, metrics, scales
from closure_jax.evaluation.measures import OF_ROLLOUTS, OF_SPREAD, OF_STATISTICS, RolloutMeasure, by_time
from closure_jax.evaluation.shared import Shared
from closure_jax.evaluation.statistics import Statistics
from closure_jax.files import Kept
from closure_jax.problems.base import Problem


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which ensembles are run.

    Attributes:
      states: test trajectories from which they start.
      members: of each state.
      start: time in the trajectories at which they start.
      units: whole time units that they run.
      chunk: members that run together; bounds the memory, changes no number.
      true_chunk: the same of true members, which may be on a finer grid; 0: as many.
      turnovers: length of the runs that show whether a closure is stable, in turnover times 2 pi / rms(w); 0: none are run.
    """

    states: int
    members: int
    start: float
    units: int
    chunk: int
    true_chunk: int = 0
    turnovers: float = 0.0

    def facts(self) -> dict[str, Any]:
        """What an ensemble's numbers depend on."""
        return {name: getattr(self, name) for name in ("states", "members", "start", "units")}


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
      endured: (runs, n, n), states of all test trajectories, from which the runs start that show whether a closure is stable.
      kept: where ensembles are kept while they run; None runs each one anew.
      shared: where those are kept that no model changes; None: nowhere.
    """

    problem: Problem
    initial: np.ndarray
    windows: Windows
    settings: Settings
    start: float
    truth: Rollout
    second: Rollout
    endured: np.ndarray
    kept: Kept | None
    shared: Shared | None

    def closed(self, draw: Draw, coupling: Coupling, key: Key[Array, ""], label: str) -> Rollout:
        """The ensemble of the solver closed by `draw` under a fitted rule; one member, a new closure each step, where it has no
        noise."""
        members = self.settings.members if self._is_random(draw) else 1
        (run,) = _run(self._coupled(draw, coupling), self.initial, members, {label: key}, self.settings, self.kept)
        return run

    def _is_random(self, draw: Draw) -> bool:
        return is_random(draw, self.initial.shape[-1])

    def _coupled(self, draw: Draw, coupling: Coupling) -> Coupled:
        solver = self.problem.solver()
        assert solver is not None, "see reference"
        return solver.closed(draw, coupling if self._is_random(draw) else Fresh())

    def judged(
        self,
        draw: Draw,
        coupling: Coupling,
        key: Key[Array, ""],
        label: str,
        measures: Mapping[str, RolloutMeasure] = MappingProxyType({}),
        is_shared: bool = False,
    ) -> tuple[Rollout, dict[str, Any]]:
        """`closed` and its measures, with how long runs ended where some are asked for.

        Args:
          draw: where closures come from.
          coupling: the fitted rule for their noise in time.
          key: of the ensemble.
          label: of its progress, and of what is kept.
          measures: beside those of the table, by name.
          is_shared: whether no model changes it, so that it is taken from where such ensembles are kept.
        """

        def runs() -> list[Rollout]:
            ensembles = [self.closed(draw, coupling, key, label)]
            if self.endurance:
                long = dataclasses.replace(self.settings, units=self.endurance)
                dynamics = self._coupled(draw, coupling)
                ensembles += _run(dynamics, self.endured, 1, {f"{label} endured": key}, long, self.kept)
            return ensembles

        if self.shared is None or not is_shared:
            run, *endured = runs()
        else:
            names = [label, f"{label} endured"] if self.endurance else [label]
            run, *endured = self.shared.runs(names, self._of(draw, coupling), runs)
        found = self.judge(run, measures)
        if endured:
            found["stable_fraction"] = float(np.isfinite(endured[0].fields[-1]).all(axis=(1, 2, 3)).mean())
        return run, found

    def _of(self, draw: Draw, coupling: Coupling) -> dict[str, Any]:
        """What the runs of a draw that no model changes depend on, beside starts and seed."""
        keys, shown = jax.random.split(jax.random.key(0), len(self.initial)), jnp.asarray(self.initial)
        closure = np.asarray(jax.jit(lambda vorticity: draw.draw(draw.noise(keys, vorticity), vorticity))(shown))
        facts = self.settings.facts() | {"of": hashlib.sha256(closure.tobytes()).hexdigest()}
        facts |= {"endurance": self.endurance, "solver_dt": self._coupled(draw, coupling).dt}
        if self._is_random(draw):
            return facts | {"rule": [type(coupling).__name__, vars(coupling)]}
        return facts | {"members": 1}

    @property
    def endurance(self) -> int:
        """Whole time units of the runs that show whether a closure is stable; 0: there are none."""
        return math.ceil(self.settings.turnovers * 2 * math.pi / float(np.sqrt(np.mean(self.endured**2))))

    def statistics(self, run: Rollout) -> Statistics:
        """Over all times but the start; vorticity in bins over the truth's range."""
        return Statistics.of(run.fields[1:], self._grid, 1.0, self._statistics.edges)

    @functools.cached_property
    def _statistics(self) -> Statistics:
        """The truth's."""
        return Statistics.of(self.truth.fields[1:], self._grid, 1.0)

    @property
    def _grid(self) -> grids.Grid:
        solver = self.problem.solver()
        assert solver is not None, "see reference"
        return solver.grid

    def _over_all(self, run: Rollout) -> dict[str, float]:
        """Measures of the statistics over the whole rollout."""
        own = self.statistics(run)
        return {name: measure(own, self._statistics) for name, measure in OF_STATISTICS.items()}

    def judge(self, run: Rollout, measures: Mapping[str, RolloutMeasure] = MappingProxyType({})) -> dict[str, Any]:
        """Measures of one ensemble, by time and over all; a single member stands for an ensemble of members that agree."""
        states, members, *grid = run.fields.shape[1:]
        fields = np.broadcast_to(run.fields, (len(run.fields), states, max(2, members), *grid))
        table = OF_ROLLOUTS | (OF_SPREAD if members > 1 else {}) | dict(measures)
        return {
            **{name: measure(fields, self.truth.fields, self.problem) for name, measure in table.items()},
            **self._over_all(run),
            "members": members,
            "finite_fraction": float(np.isfinite(run.fields[-1]).all(axis=(2, 3)).mean()),
            "seconds_per_time_unit": run.seconds / (len(run.fields) - 1),
        }

    def facts(self) -> dict[str, Any]:
        """What is known before a model is judged: of the ensembles, and of two true ones beside each other."""
        spread = by_time(lambda fields, _: metrics.rms_spread(fields))
        floors: dict[str, Any] = {f"{name}_floor": value for name, value in self._over_all(self.second).items()}
        floors.pop("decorrelation_time_floor")
        if self.endurance:
            floors["stability"] = {
                "turnovers": self.settings.turnovers,
                "time_units": self.endurance,
                "runs": len(self.endured),
            }
        solver, viscosity = self.problem.solver(), self.problem.physics().get("viscosity")
        assert solver is not None, "see reference"
        return {
            **floors,
            "scales_truth": scales.of_flow(
                np.concatenate(self.truth.fields[1:, :, 0]), solver.grid, solver.dt, viscosity
            ),
            "decorrelation_time_truth": self._statistics.decorrelation_time,
            "states": self.settings.states,
            "members": self.settings.members,
            "members_truth": self.settings.members,  # a closure without noise has one
            "start_time": self.start,
            "time": [float(unit) for unit in range(self.settings.units + 1)],
            "relative_error_floor": OF_ROLLOUTS["relative_error"](self.second.fields, self.truth.fields, self.problem),
            "crps_floor": OF_ROLLOUTS["crps"](self.second.fields, self.truth.fields, self.problem),
            "spread_truth": spread(self.truth.fields, self.truth.fields, self.problem),
            "seconds_per_time_unit_truth": self.truth.seconds / self.settings.units,
        }


_ENDURED = 8
"""Runs that show whether a closure is stable."""


def reference(
    problem: Problem,
    dataset: Dataset,
    seed: int,
    settings: Settings,
    kept: Kept | None = None,
    shared: Shared | None = None,
    seen: Dataset | None = None,
) -> Reference:
    """The true ensembles, run here where none are shared.

    Args:
      problem: has a solver, and the truth on its grid.
      dataset: trajectories; the ensembles start from those that test.
      seed: of the true ensembles.
      settings: which ensembles.
      kept: where an ensemble is kept while it runs.
      shared: where those are kept that no model changes.
      seen: data that rules are fitted to; None: the same.

    Raises:
      ValueError: the problem has no solver, or no truth on its grid.
    """
    solver, true_system = problem.solver(), problem.truth()
    if solver is None or true_system is None:
        raise ValueError("expected a problem with a solver and its truth")
    column = int(np.argmin(np.abs(dataset.time - settings.start)))
    initial = dataset.vorticity["test"][: settings.states, column]
    fitted = seen or dataset
    interval = float(fitted.time[1] - fitted.time[0])
    windows = Windows(fitted.vorticity["train"], fitted.closure["train"], interval, solver.dt)
    keys = {
        f"{name.replace('_', ' ')} ensemble": random.stream(seed, f"{name}_ensemble")
        for name in ("true", "second_true")
    }

    def made() -> list[Rollout]:
        own = dataclasses.replace(settings, chunk=min(settings.chunk, settings.true_chunk or settings.chunk))
        return _run(true_system, initial, settings.members, keys, own, kept)

    facts = settings.facts() | {"seed": seed}
    truth, second = made() if shared is None else shared.runs(list(keys), facts, made)
    endured = a_priori.spread_states(dataset, _ENDURED)[1]
    start = float(dataset.time[column])
    return Reference(problem, initial, windows, settings, start, truth, second, endured, kept, shared)


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
