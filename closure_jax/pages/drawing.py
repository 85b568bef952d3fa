"""How figures are drawn: their style, panels, and curves with gaps. Only matplotlib's object interface is used, inside
`rc_context`: nothing global is left behind."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

WIDTH = 11.0
"""Inches; at 100 pixels an inch the width of the page, so that font sizes are those of the page's text."""
DPI = 150
WAVENUMBER = "integer wavenumber |k| L / 2π"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Makes a function that draws a figure return it as a PNG, in the report's style."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            draw(*args, **kwargs).savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()

    return wrapped


def panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure of `size` inches and its (rows, columns) axes."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def label(axes: Axes, x: str, y: str, title: str = "", x_scale: str = "linear", y_scale: str = "linear") -> None:
    """Names and scales of the axes, and a title on the left."""
    axes.set(xlabel=x, ylabel=y, xscale=x_scale, yscale=y_scale)
    axes.set_title(title, loc="left")


def plot(axes: Axes, x: Sequence | None, y: Sequence | None, **style: Any) -> None:
    """Plots the finite part of a curve, on a log scale the positive part; few points get marks, so one is seen too."""
    if x is None or y is None:
        return
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)  # None in a list becomes nan
    shown = np.isfinite(y)
    if axes.get_yscale() == "log":
        shown &= y > 0
    if axes.get_xscale() == "log":
        shown &= x > 0
    if shown.any():
        marks = {"marker": "o" if shown.sum() < 8 else None, "markersize": 4}
        axes.plot(x, np.where(shown, y, np.nan), **marks | style)


def legend(axes: Axes, **options: Any) -> None:
    """A legend, or a word where nothing could be drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**options)
    else:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color="#777777")


def cut_decades(panels: Sequence[Axes], decades: float) -> None:
    """Limits the shared log axis of y to what is drawn, and to `decades` under its largest value."""
    values = np.concatenate([line.get_ydata() for axes in panels for line in axes.lines] or [[]])
    values = values[np.isfinite(values)]
    if values.size:
        top = values.max()
        for axes in panels:
            axes.set_ylim(max(values.min() / 2, top * 10.0**-decades), 3 * top)


def steps_text(count: int) -> str:
    """`1 sampler step`, `10 sampler steps`."""
    return f"{int(count)} sampler step{'s' if count > 1 else ''}"


def wavenumber_ticks(axes: Axes, shells: int) -> None:
    """Ticks at powers of two, from the first shell to the last."""
    ticks = [2**i for i in range(12) if 2**i < shells]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.9, 1.1 * (shells - 1))
