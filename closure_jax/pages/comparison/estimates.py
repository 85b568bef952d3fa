"""Mean and interval of numbers over seeds. What is missing is None."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from closure_jax.pages.tables import number_text

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Mean over seeds, half the width of its 95 % t-interval (None for one seed), and the number of seeds."""

    mean: float
    half_width: float | None
    count: int

    def __str__(self) -> str:
        if self.half_width is None or self.half_width <= 1e-9 * abs(self.mean):  # one seed, or no difference
            return number_text(self.mean)
        # One digit of uncertainty, two where the first is a one; the mean to the same place.
        exponent = math.floor(math.log10(self.half_width))
        decimals = -exponent + (self.half_width < 2 * 10.0**exponent)
        if decimals > 5:
            return f"{self.mean:.2e} ± {self.half_width:.1e}"
        decimals = max(0, decimals)
        return f"{self.mean:.{decimals}f} ± {self.half_width:.{decimals}f}"

    def scaled(self, factor: float) -> "Estimate":
        """In another unit."""
        return Estimate(
            self.mean * factor, None if self.half_width is None else self.half_width * abs(factor), self.count
        )

    def with_count(self) -> str:
        """`1.035 ± 0.004 (3 seeds)`; for one seed the plain figure."""
        return str(self) if self.count == 1 else f"{self} ({self.count} seeds)"


def interval(values: Sequence[float | None]) -> Estimate | None:
    """Mean and 95 % t-interval of independent values, those that are missing left out; None where all are."""
    known = np.array([value for value in values if value is not None])
    if known.size == 0:
        return None
    if known.size == 1:
        return Estimate(float(known[0]), None, 1)
    error = known.std(ddof=1) / math.sqrt(known.size)
    half_width = stats.t.ppf(0.5 + _CONFIDENCE / 2, known.size - 1) * error
    return Estimate(float(known.mean()), float(half_width), int(known.size))


def mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of curves of one shape, nan where one of them is not finite: of those that are left the mean would jump. Curves of
    another shape than the first's are left out."""
    if not curves:
        return np.array([])
    mean = np.mean([np.asarray(curve, dtype=float) for curve in curves if curve.shape == curves[0].shape], axis=0)
    return np.where(np.isfinite(mean), mean, np.nan)
