"""Whether each of many fields holds something: solvers that are killed leave zeros, which a checksum is made of as gladly."""

import numpy as np

from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.errors import UserError

_LEAST = np.finfo(np.float32).tiny
"""Range of a field below which it is constant to arithmetic in single precision."""


def check_fields(dataset: Dataset) -> None:
    """Raises UserError where a snapshot does not vary, or vorticity and closure of a trajectory are the same; one pass."""
    file, times = dataset.path, len(dataset.time)
    for split in dataset.vorticity:
        for name in FIELDS:
            fields = dataset.fields(name, split)
            points = fields.reshape(len(fields), -1)
            low, high = (ends.astype(np.float32) for ends in (points.min(axis=1), points.max(axis=1)))
            flat = np.flatnonzero(~(high - low >= _LEAST))
            if len(flat):
                trajectory, snapshot = divmod(int(flat[0]), times)
                raise UserError(
                    f"data file '{file}' has a {split} {name} between {low[flat[0]]:g} and {high[flat[0]]:g} in trajectory"
                    f" {trajectory}, snapshot {snapshot} (from 0; {len(flat)} of {len(fields)} are such): expected fields that"
                    " vary; write the missing ones, leave their trajectories out, or choose units in which they are larger"
                )
        for trajectory, (vorticity, closure) in enumerate(
            zip(dataset.vorticity[split], dataset.closure[split], strict=True)
        ):
            if np.array_equal(vorticity, closure):
                raise UserError(
                    f"data file '{file}' has the same numbers as vorticity and as closure in {split} trajectory {trajectory}"
                    " (from 0): expected a field and what it lacks; check which field the closure was written from"
                )
