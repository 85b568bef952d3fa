"""Verdicts from 95 % intervals over seeds: what is within the scatter of the seeds decides nothing."""

from collections.abc import Iterable, Sequence
from typing import Literal

from closure_jax.pages.comparison.estimates import Estimate, interval

Verdict = Literal["holds", "does not hold", "alike", "undecided", "not measured"]
Outcome = Literal["better", "worse", "alike", "undecided"]

FEWEST = 3
"""Seeds from which on an interval decides anything."""


def _bounds(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The 95 % interval of independent values; None of fewer than three."""
    found: Estimate | None = interval(values)
    if found is None or found.half_width is None or found.count < FEWEST:
        return None
    return found.mean - found.half_width, found.mean + found.half_width


def outcome(gains: Sequence[float | None], margin: float) -> Outcome:
    """How one thing compares with another.

    Args:
      gains: by seed, how much better the first is; negative where it is worse.
      margin: differences up to it are none.

    Returns:
      'better' where the whole interval lies above the margin, 'worse' where it lies below its negative, 'alike' where it lies
      between them; else, and with fewer than three seeds, 'undecided'.
    """
    bounds = _bounds(gains)
    if bounds is None:
        return "undecided"
    low, high = bounds
    if low > margin:
        return "better"
    if high < -margin:
        return "worse"
    return "alike" if -margin <= low and high <= margin else "undecided"


def within(values: Sequence[float | None], low: float = -float("inf"), high: float = float("inf")) -> bool | None:
    """Whether a number lies in [low, high]: so where its whole interval does, not so where none of it does, else None."""
    bounds = _bounds(values)
    if bounds is None:
        return None
    if low <= bounds[0] and bounds[1] <= high:
        return True
    return False if bounds[1] < low or bounds[0] > high else None


def of_tests(tests: Iterable[bool | None]) -> Verdict:
    """Holds where all tests do, does not where one does not, else undecided."""
    tests = list(tests)
    if not tests:
        return "not measured"
    return "does not hold" if False in tests else "undecided" if None in tests else "holds"


def of_outcomes(outcomes: Iterable[Outcome]) -> Verdict:
    """That the first is better: not so where it is worse in one respect, so where it is better in one and no worse in all."""
    outcomes = list(outcomes)
    if not outcomes:
        return "not measured"
    if "worse" in outcomes:
        return "does not hold"
    if "undecided" in outcomes:
        return "undecided"
    return "holds" if "better" in outcomes else "alike"


def word(test: bool | None) -> str:
    """A test as the verb of a sentence."""
    return {True: "holds", False: "does not hold", None: "is undecided"}[test]
