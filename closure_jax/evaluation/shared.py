"""Ensembles that no model changes, run once for all runs on the same data."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from closure_jax import files
from closure_jax.coupling.ensemble import Rollout
from closure_jax.data.once import once


@dataclasses.dataclass(frozen=True)
class Shared:
    """Where ensembles that no model changes are kept for all runs on the same data.

    Attributes:
      folder: beside the data.
      identity: what they depend on beside starts, length and closure: data, problem, devices.
      seed: of the true ensembles, whatever that of a run is.
    """

    VERSION: ClassVar[int] = 2
    """Of how ensembles are run, and of what classical closures compute; they are made anew under another."""

    folder: pathlib.Path
    identity: Any
    seed: int

    def runs(self, names: Sequence[str], more: Any, make: Callable[[], list[Rollout]]) -> list[Rollout]:
        """The ensembles of these names, which `make` runs where no run on these data has; `more` tells them from others."""
        content = json.dumps(files.plain([self.VERSION, self.identity, names, more]), sort_keys=True)
        file = self.folder / f"{names[0].replace(' ', '_')}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.h5"
        fields = [field.name for field in dataclasses.fields(Rollout)]
        arrays = {f"{name} {field}": (name, field) for name in names for field in fields}

        def made() -> dict[str, np.ndarray]:
            runs = dict(zip(names, make(), strict=True))
            return {array: np.atleast_1d(getattr(runs[name], field)) for array, (name, field) in arrays.items()}

        found = once(file, list(arrays), made, "evaluation", {"made_of": content})
        return [
            Rollout(found[f"{name} fields"], found[f"{name} frames"], float(found[f"{name} seconds"][0]))
            for name in names
        ]
