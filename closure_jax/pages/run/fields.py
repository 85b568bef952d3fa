"""The report's figures of fields. Fields are (n, n) with x first, and drawn with x to the right and y upwards.

A field that is not finite is drawn grey: the report of a run that went wrong is the one that is needed most. Units: vorticity
1/time, closure 1/time^2, lengths and times nondimensional.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from closure_jax.pages import drawing
from closure_jax.pages.drawing import WIDTH
from closure_jax.pages.run.style import DIVERGING, SEQUENTIAL, Arrays

CAPTIONS = {
    "a_priori_fields": """One row a state; x to the right, y upwards, the whole periodic domain. The truth and the
        samples are single draws of one random law and need not agree point by point. The mean of all samples should
        equal the exact mean E[H | w] = −u·∇w; their difference has a finer scale of its own, and the finite number of
        samples adds to it. The spread should be uniform and equal to the exact deviation of the closure, the white
        mark on its scale.""",
    "rollout_fields": """Vorticity of one member. One colour scale, set by the truth; beyond it colours are clipped,
        and values that overflowed are grey.""",
}
WITHOUT_LAW = """One row a state; x to the right, y upwards, the whole periodic domain. The truth and the samples are
    single draws of one random law and need not agree point by point. The law of this problem is unknown, so there is no
    exact mean or deviation to compare with."""
"""Caption of `a_priori_fields` where the law of the closure is unknown."""


def color_limit(*fields: np.ndarray | float) -> float:
    """The largest magnitude in the fields, rounded up to two digits; 1 where nothing is finite or all is zero."""
    values = np.concatenate([np.abs(np.ravel(field)) for field in fields])
    values = values[np.isfinite(values)]
    largest = float(values.max()) if values.size else 0.0
    if largest == 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 1)
    return math.ceil(largest / unit) * unit


def signed(value: float) -> str:
    """Two digits, with a true minus sign."""
    return f"{value:.2g}".replace("-", "−")


def _symmetric(*fields: np.ndarray) -> tuple[float, float]:
    """Limits of colour that put zero in the middle."""
    return -color_limit(*fields), color_limit(*fields)


def _field(axes: Axes, field: np.ndarray, limits: tuple[float, float], cmap: str, length: float) -> None:
    """Draws one field without ticks, grey where it is not finite.

    Args:
      axes: where it is drawn.
      field: (n, n), x first.
      limits: values of the first and last colour, to which the field is clipped.
      cmap: name of the map of colours.
      length: side of the domain.
    """
    axes.set(xticks=[], yticks=[], facecolor="#bbbbbb")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    field = np.ma.masked_invalid(np.asarray(field, dtype=float).T)
    axes.imshow(field, origin="lower", extent=(0, length, 0, length), cmap=cmap, vmin=limits[0], vmax=limits[1])


def _field_groups(groups: Sequence[tuple], length: float) -> tuple[Figure, list[Axes], list[Axes]]:
    """Groups of columns of square fields, each group over its own bar of colours; limits from zero are sequential.

    A group is (label, limits, [(title, fields (K, n, n)), ...]). Panels are placed by hand: automatic layouts leave
    holes between squares. Returns the figure, the first column's panels and the bars.
    """
    rows, columns = len(groups[0][2][0][1]), sum(len(group) for _, _, group in groups)
    left, right, gap, group_gap, top, bottom = 0.3, 0.15, 0.07, 0.36, 0.28, 0.62
    side = (WIDTH - left - right - gap * (columns - len(groups)) - group_gap * (len(groups) - 1)) / columns
    height = top + rows * (side + gap) + bottom
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)

    def place(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / WIDTH, y / height, wide / WIDTH, high / height))

    first, bars, x = [], [], left
    for label, limits, group in groups:
        start, cmap = x, DIVERGING if limits[0] < 0 else SEQUENTIAL
        for title, fields in group:
            panels = [place(x, height - top - side - i * (side + gap), side, side) for i in range(rows)]
            for axes, field in zip(panels, fields, strict=True):
                _field(axes, field, limits, cmap, length)
            panels[0].set_title(title, fontsize=9.5)
            first, x = first or panels, x + side + gap
        bars.append(place(start, bottom - 0.12, x - gap - start, 0.1))
        colors = ScalarMappable(Normalize(*limits), cmap)
        _mark_limits(figure.colorbar(colors, cax=bars[-1], orientation="horizontal"), limits, len(group) > 1)
        bars[-1].set_xlabel(label)
        x += group_gap - gap
    return figure, first, bars


def _mark_limits(bar: Colorbar, limits: tuple[float, float], wide: bool) -> None:
    """Numbers at both ends of a bar of colours, inside its width, and a zero between them where there is room."""
    labels = [signed(limits[0]), "0" if limits[0] < 0 else "", signed(limits[1])]
    if not wide and len(labels[0]) > 4:
        labels[1] = ""
    bar.set_ticks([limits[0], sum(limits) / 2, limits[1]], labels=labels)
    for text, side_of_tick in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        text.set_horizontalalignment(side_of_tick)
    bar.outline.set_visible(False)


@drawing.png
def a_priori_fields(arrays: Arrays) -> Figure:
    """One row a state: condition, truth, samples, means, the mean's error, and the spread of the samples.

    Without `a_priori_exact_mean` and `noise_standard_deviation` (the law is unknown) the columns that need them are left out.
    """
    condition, truth, samples, mean, spread = (
        arrays[f"a_priori_{name}"] for name in ("vorticity", "truth", "samples", "mean", "spread")
    )
    exact, deviation = arrays.get("a_priori_exact_mean"), arrays.get("noise_standard_deviation")
    closures = [("truth", truth), *((f"sample {i + 1}", samples[:, i]) for i in range(min(2, samples.shape[1])))]
    closures.append(("mean of samples", mean))
    groups = [("vorticity w (1/time)", _symmetric(condition), [("condition", condition)])]
    if exact is None:
        groups.append(("closure H (1/time²), one scale", _symmetric(truth), closures))
    else:
        closures.append(("exact mean", exact))
        groups.append(("closure H (1/time²), one scale", _symmetric(truth, exact), closures))
        groups.append(("own scale (1/time²)", _symmetric(mean - exact), [("mean − exact", mean - exact)]))
    if deviation is None:
        groups.append(("(1/time²)", (0.0, color_limit(spread)), [("spread", spread)]))
    else:
        limits = (0.0, color_limit(spread, 1.2 * float(deviation)))
        groups.append((f"exact: {float(deviation):.2g} (1/time²)", limits, [("spread", spread)]))
    figure, panels, bars = _field_groups(groups, float(arrays.get("domain_length", 1.0)))
    if deviation is not None:
        bars[-1].axvline(float(deviation), color="white", linewidth=2)
    for axes, time in zip(panels, arrays["a_priori_time"], strict=True):
        axes.set_ylabel(f"t = {time:.4g}")
    return figure


@drawing.png
def rollout_fields(arrays: Arrays) -> Figure:
    """Vorticity of the truth, one member and the run without closure (rows) at the recorded times (columns)."""
    rows = [(name, f"field_{name.replace(' ', '_')}") for name in ("truth", "model", "no closure")]
    rows = [(name, key) for name, key in rows if key in arrays or name != "no closure"]
    length, scale, times = float(arrays["domain_length"]), color_limit(arrays["field_truth"]), arrays["field_time"]
    figure, panels = drawing.panels(len(rows), len(times), (2.55 * len(times) + 1.4, 2.7 * len(rows)))
    for i, (name, key) in enumerate(rows):
        for j, field in enumerate(arrays[key]):
            _field(panels[i, j], field, (-scale, scale), DIVERGING, length)
        panels[i, 0].set_ylabel(f"{name}\ny", fontsize=10.5)
        panels[i, 0].set_yticks([0, length])
    for j, time in enumerate(times):
        panels[0, j].set_title(clock(arrays, time))
        panels[-1, j].set(xticks=[0, length], xlabel="x")
    colors = ScalarMappable(Normalize(-scale, scale), DIVERGING)
    bar = figure.colorbar(colors, ax=panels, location="right", aspect=35, shrink=0.7, extend="both", pad=0.02)
    bar.set_label("vorticity w (1/time)")
    bar.outline.set_visible(False)
    return figure


def clock(arrays: Arrays, time: float) -> str:
    """A time counted from the rollout's start, with the flow's time it started at."""
    return f"t = {float(arrays['start_time']):g} + {float(time):.3g}"
