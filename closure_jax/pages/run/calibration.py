"""The report's section on calibration: a table by sampler steps, and one figure of ranks, coverage, and spread over error."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from closure_jax.pages import drawing
from closure_jax.pages.drawing import WIDTH
from closure_jax.pages.results import baselines, look_up, number
from closure_jax.pages.run.style import MODEL, REFERENCE, baseline_styles
from closure_jax.pages.tables import Table

CAPTIONS = {
    "calibration": """Whether the truth could be one of the samples (left, middle) or of the members in the solver (middle,
        right); the dotted lines are a perfect closure's. Left: how often the truth has each rank among its samples; a U is
        too little spread, a hill too much, a slope a mean that is off. Middle: a curve under the diagonal is over-confident;
        squares are the rollout's last time. Right: over 1 the ensemble spreads more than it errs.""",
}
INTRO = (
    "Measured fairly for any number of members. Coverage: share of the points at which the truth lies in the central interval "
    "that should hold so many; spread / error: 1 when calibrated. Flatness: chi² of the rank histogram over what calibrated "
    "ranks with the same correlation in space have, 1 on average; p-value: how often they would be as uneven."
)
NOT_MEASURED = (
    "Left out: results.json has no calibration. It was judged by an older version; --mode=evaluate judges again."
)
LEVELS = ("50", "80", "90")
MEASURES = ("coverage", "spread_over_error", "energy_score", "rank_histogram", "deviation_by_shell")
"""A priori measures that this section shows, or that are lists."""

_COLUMNS = {
    **{f"coverage of {level} %": ("coverage", level) for level in LEVELS},
    "spread / error": ("spread_over_error",),
    "energy score": ("energy_score",),
    "flatness of ranks": ("rank_histogram", "flatness"),
    "p-value": ("rank_histogram", "p_value"),
}


def table(by_steps: Mapping[int, Mapping[str, Any]]) -> Table | None:
    """A row for each number of sampler steps; None where nothing is known."""
    rows = [(steps, *(number(values, *path) for path in _COLUMNS.values())) for steps, values in by_steps.items()]
    known = any(value is not None for row in rows for value in row[1:])
    return Table(("sampler steps", *_COLUMNS), rows, intro=INTRO) if known else None


@drawing.png
def calibration(by_steps: Mapping[int, Mapping[str, Any]], results: Mapping[str, Any]) -> Figure:
    """Rank histograms by sampler steps; coverage against nominal; spread over error over the time of the rollouts.

    Args:
      by_steps: a priori measures by number of sampler steps.
      results: results.json, of which `a_posteriori` is drawn.
    """
    figure, ((ranks, covered, ratio),) = drawing.panels(1, 3, (WIDTH, 3.9))
    drawing.label(ranks, "rank of the truth / (samples + 1)", "share over the flat share", "ranks of the truth")
    drawing.label(covered, "nominal probability", "share of points inside", "central intervals")
    drawing.label(ratio, "time since the start", "spread / error of the mean", "in the solver")
    colors = matplotlib.colormaps["plasma"](np.linspace(0.1, 0.85, len(by_steps)))
    for (steps, values), color in zip(by_steps.items(), colors, strict=True):
        share = np.array(look_up(values, "rank_histogram", "share") or [], dtype=float)
        style = {"color": color, "label": drawing.steps_text(steps), "linewidth": 1.3}
        edges, height = np.linspace(0, 1, len(share) + 1), [*share * len(share), *share[-1:] * len(share)]
        drawing.plot(ranks, edges, height, marker=None, drawstyle="steps-post", **style)
        _coverage(covered, look_up(values, "coverage"), None, style)
    rollout = look_up(results, "a_posteriori") or {}
    others = baselines(results)
    styles = {"model": MODEL | {"linestyle": "--"}} | baseline_styles(others)
    for name, measures in ({"model": rollout} | others).items():
        style = styles[name] | {"label": f"in the solver: {name}"}
        _coverage(covered, measures.get("coverage"), -1, style | {"marker": "s"})
        if measures.get("spread_over_error"):
            drawing.plot(ratio, rollout.get("time"), measures["spread_over_error"], **style)
    for axes in (ranks, ratio):
        axes.axhline(1, label="calibrated", **REFERENCE)
        axes.set_ylim(0, 1.05 * max(1.5, axes.get_ylim()[1]))
    ratio.set_xlim(left=0)
    covered.plot([0, 1], [0, 1], label="calibrated", **REFERENCE)
    covered.set(xlim=(0.45, 0.95), ylim=(0, 1), xticks=[float(level) / 100 for level in LEVELS])
    drawing.legend_below(figure, (ranks, covered, ratio))
    return figure


def _coverage(axes: Axes, found: Any, place: int | None, style: Mapping[str, Any]) -> None:
    """A curve of coverage by level, each a number, or a list of which `place` is drawn."""
    path = () if place is None else (place,)
    values = [number(found, level, *path) for level in LEVELS]
    drawing.plot(axes, [float(level) / 100 for level in LEVELS], values, **style)
