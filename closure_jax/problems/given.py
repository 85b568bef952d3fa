"""Pairs of a resolved field and its closure from anybody's solver, which are all that is known.

    ./launch.sh experiments/les_cs_physical.py --config.problem.kind=given --config.data.path=pairs.h5

The resolved field has the place of the vorticity everywhere, whatever quantity of whatever equation it is.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from closure_jax.coupling.draw import Draw
from closure_jax.errors import positive
from closure_jax.problems.base import Pairs, class_name


@dataclasses.dataclass(frozen=True)
class Given:
    """A problem without equation, solver, law or baselines.

    Attributes:
      stored_resolution: points on a side of the fields; that of the file.
      dt: time between two snapshots; that of the file.
    """

    stored_resolution: int = 64
    dt: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "dt")

    def reference(self) -> None:
        """Nothing makes data."""
        return

    def truth(self) -> None:
        """There is none."""
        return

    def solver(self) -> None:
        """There is none."""
        return

    def law(self, vorticity: Float[np.ndarray, "states n n"]) -> None:
        """Nobody knows it."""
        return

    def baselines(self, pairs: Pairs) -> dict[str, Draw]:
        """None, without a solver to run them in."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The size and the interval."""
        return {"problem": class_name(self), "resolution": self.stored_resolution, "dt": self.dt}

    def physics(self) -> dict[str, Any]:
        """Nothing that a file must share."""
        return {}
