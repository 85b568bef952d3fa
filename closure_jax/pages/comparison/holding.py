"""A study of kind holding: closures in the solver by rule and by how long a draw is held; a table and a figure."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.comparison import style
from closure_jax.pages.comparison.estimates import Estimate, interval
from closure_jax.pages.comparison.runs import Study
from closure_jax.pages.results import look_up, number
from closure_jax.pages.tables import Table

CAPTIONS = {
    "holding": """What holding a draw does in the solver, against the solver steps for which it is held: error of the ensemble
        mean against the true one at the last time (the dotted line is a second true ensemble), spread of the ensemble over the
        true one, for which 1 is perfect, and time of a member over that of one of the true system.""",
}
"""How to read each figure, by name."""

Point = Mapping[str, Any]
"""One ensemble: closure, seed, rule, period, and measures as in `a_posteriori` of results.json."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A closure under a rule: the points of all seeds by period, ascending."""

    closure: str
    rule: str
    by_period: Mapping[int, Sequence[Point]]

    def at(self, period: int, measure: Callable[[Point], float | None]) -> Estimate | None:
        """Estimate over seeds at one period."""
        return interval([measure(point) for point in self.by_period[period]])


def lines(studies: Sequence[Study]) -> list[Line]:
    """What studies of kind holding have, by closure, rule, size and length of the ensembles, in the order in which they ran.

    The same ensemble of several studies counts once: the oracle stands in each of them.
    """
    found: dict[tuple[Any, ...], dict[int, dict[tuple[Any, ...], Point]]] = {}
    for point in (point for study in studies if study.kind == "holding" for point in study.points):
        members = point.get("members_truth", point.get("members"))
        of = point["closure"], point["rule"], point.get("states"), members, number(point, "time", -1)
        same = tuple(point.get(name) for name in ("seed", "digest"))
        found.setdefault(of, {}).setdefault(int(point["period"]), {}).setdefault(same, point)
    sizes = {of[2:] for of in found}
    return [
        Line(
            str(closure) if len(sizes) == 1 else f"{closure} ({states} x {members}, {time} time units)",
            str(rule),
            {period: list(points.values()) for period, points in sorted(by_period.items())},
        )
        for (closure, rule, states, members, time), by_period in found.items()
    ]


def error_at(place: int) -> Callable[[Point], float | None]:
    """The error of the ensemble mean at a place in the list of times."""
    return lambda point: number(point, "relative_error", place)


def floor(point: Point) -> float | None:
    """The error of a second true ensemble at the last time."""
    return number(point, "relative_error_floor", -1)


def spread_ratio(point: Point) -> float | None:
    """Spread over the true one at the last time."""
    spread, truth = number(point, "spread", -1), number(point, "spread_truth", -1)
    return spread / truth if spread is not None and truth else None


def cost_ratio(point: Point) -> float | None:
    """Time of a member over that of one of the true system."""
    mine, truth = number(point, "seconds_per_time_unit"), number(point, "seconds_per_time_unit_truth")
    members, true = number(point, "members"), number(point, "members_truth")
    return mine / truth * ((true or members or 1) / (members or 1)) if mine is not None and truth else None


def table(shown: Sequence[Line]) -> Table:
    """A row for each closure, rule and period."""
    points = [point for line in shown for found in line.by_period.values() for point in found]
    times = look_up(points[0], "time") if points else []
    places = sorted({1, (len(times) - 1) // 2, len(times) - 1} - {0})
    rows = [
        (
            f"{line.closure}, {line.rule}",
            period,
            *(line.at(period, error_at(place)) for place in places),
            *(line.at(period, measure) for measure in (floor, spread_ratio, cost_ratio)),
            len(line.by_period[period]),
        )
        for line in shown
        for period in line.by_period
    ]
    head = (
        "closure, rule",
        "steps held",
        *(f"error at {times[place]:g}" for place in places),
        *("a second true ensemble", "spread over the true one", "time over the true system's", "seeds"),
    )
    of = {(number(point, "states"), number(point, "members")) for point in points}
    intro = (
        "Ensembles of the closed solver against the true one, from the same states: error of the ensemble mean of the vorticity "
        "at times since the start, and spread at the last one. "
        + " ".join(f"Test states: {states:g}; members of each: {members:g}." for states, members in sorted(of))
    )
    return Table(head, rows, intro=intro)


@style.small_png
def holding(shown: Sequence[Line]) -> Figure:
    """Error, spread and cost against the period, a line for each closure and rule."""
    figure, (panels,) = drawing.panels(1, 3, style.size_beside_legend(len(shown)))
    x, periods = (
        "solver steps for which a draw is held",
        sorted({period for line in shown for period in line.by_period}),
    )
    drawing.label(panels[0], x, "relative to the norm of w", "error at the last time", "log", "log")
    drawing.label(panels[1], x, "ratio to the true one", "spread at the last time", "log", "log")
    drawing.label(panels[2], x, "ratio to the true system", "time of a member", "log", "log")
    names, rules = (list(dict.fromkeys(getattr(line, of) for line in shown)) for of in ("closure", "rule"))
    for axes, measure in zip(panels, (error_at(-1), spread_ratio, cost_ratio), strict=True):
        for line in shown:
            found = {period: line.at(period, measure) for period in line.by_period}
            look: dict[str, Any] = {
                "color": _COLORS[names.index(line.closure) % len(_COLORS)],
                "linestyle": _DASHES[rules.index(line.rule) % len(_DASHES)],
                "marker": _MARKERS[rules.index(line.rule) % len(_MARKERS)],
                "label": f"{line.closure}, {line.rule}",
            }
            values = [None if one is None else one.mean for one in found.values()]
            drawing.plot(axes, list(found), values, **look)
        axes.set_xticks(periods, labels=[str(period) for period in periods])
        axes.xaxis.set_minor_locator(NullLocator())
    floors = [one for line in shown for period in line.by_period if (one := line.at(period, floor)) is not None]
    if floors:
        panels[0].axhline(floors[0].mean, **style.REFERENCE)
    for axes in panels[1:]:
        axes.axhline(1, **style.REFERENCE)
    style.legend_beside(figure, panels, "closure, rule")
    return figure


_COLORS = (*style.PROCESS_COLORS.values(), *style.MORE_COLORS)
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "D", "s", "^")
