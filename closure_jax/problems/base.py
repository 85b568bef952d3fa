"""What is closed: the system that makes the data, the solver that lacks a term, and what is known about that term.

A problem is a frozen dataclass whose fields are the configuration's section `problem`. Everything that it cannot offer is None:
data without a solver are judged alone, a closure whose law nobody knows is judged against draws of the truth.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax_cfd.base import grids
from jaxtyping import Array, Float, Key

from closure_jax.coupling.advance import Coupled, Dynamics, StepNumber
from closure_jax.coupling.base import Coupling
from closure_jax.coupling.draw import Draw


@runtime_checkable
class System(Protocol):
    """A solver as it runs, and what the grid of the closed solver sees of it; states have the leading axis batch.

    Draws of a step depend on a trajectory's key and the step's number alone.

    Attributes:
      dt: time of one step.
    """

    @property
    def dt(self) -> float: ...

    def initial(self, keys: Key[Array, " batch"]) -> Any:
        """Random states to start from, one for each trajectory's key."""
        ...

    def advance(self, keys: Key[Array, " batch"], state: Any, start: StepNumber, steps: int) -> Any:
        """The state `steps` (static) later; `start` is the number of the first step."""
        ...

    def observe(
        self, keys: Key[Array, " batch"], state: Any, number: StepNumber
    ) -> tuple[Float[Array, "batch n n"], Float[Array, "batch n n"]]:
        """Vorticity and closure on the closed solver's grid; the closure is the one that step `number` from here uses."""
        ...


@dataclasses.dataclass(frozen=True)
class Solver:
    """What the closure completes.

    Attributes:
      step: (vorticity_hat, closure_hat) -> vorticity_hat, each (..., n, n // 2 + 1); a stepper of a `jax_cfd`
        `ImplicitExplicitODE` without its closure term.
      dt: time of one step.
      grid: square periodic grid.
      instantaneous: whether closures are those of an instant, as a filtered field has one, rather than those of a step; see
        `Coupled`.
    """

    step: Callable[[Array, Array], Array]
    dt: float
    grid: grids.Grid
    instantaneous: bool = False

    def closed(self, draw: Draw, coupling: Coupling, remat: bool = False) -> Coupled:
        """The solver with closures of `draw` by a rule."""
        return Coupled(self.step, self.dt, draw, coupling, remat, self.instantaneous)


@dataclasses.dataclass(frozen=True)
class Law:
    """The law of the closure given the vorticity, as far as samples are judged by it.

    Attributes:
      mean: E[H | vorticity] of each state.
      deviation: standard deviation of the noise at a point.
      spectrum: variance of the noise by shell of integer wavenumber.
    """

    mean: Float[np.ndarray, "states n n"]
    deviation: float
    spectrum: Float[np.ndarray, " shells"]


@runtime_checkable
class Pairs(Protocol):
    """Data that a baseline may be fitted on."""

    def fields(self, name: str, split: str) -> np.ndarray:
        """All fields of 'vorticity' or 'closure' in 'train', 'validation' or 'test', (count, n, n), physical units."""
        ...


@runtime_checkable
class Problem(Protocol):
    """What a closure is learned for.

    One whose data may show that there is nothing to close has a method `regime(pairs)` beside these: numbers by name, which a run
    prints and keeps, or a UserError. It is asked before training.

    Attributes:
      stored_resolution: points on a side of the closed solver's grid, where data are stored and the closure lives.
      dt: time of one step of the reference, by which data count time.
    """

    @property
    def stored_resolution(self) -> int: ...

    @property
    def dt(self) -> float: ...

    def reference(self) -> System | None:
        """The system that makes the data; None: data are given."""
        ...

    def truth(self) -> Dynamics | None:
        """The true system on the closed solver's grid, to which rollouts are compared."""
        ...

    def solver(self) -> Solver | None:
        """What the closure completes; None: the closure is judged alone."""
        ...

    def law(self, vorticity: Float[np.ndarray, "states n n"]) -> Law | None:
        """The law of the closure at these states, where somebody knows it."""
        ...

    def baselines(self, pairs: Pairs) -> dict[str, Draw]:
        """Closures that rollouts are judged with beside the model, by name; {"none": NoClosure()} is the solver alone."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that the data depend on: numbers and texts by name."""
        ...

    def physics(self) -> dict[str, Any]:
        """The part of `identity` that given data must share: what the law and rollouts depend on."""
        ...


def class_name(piece: Any) -> str:
    """module:Class of an object, which tells pieces of different files apart."""
    return f"{type(piece).__module__}:{type(piece).__qualname__}"
