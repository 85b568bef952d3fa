"""How figures are drawn: their style, panels, log axes, and curves with gaps.

Only matplotlib's object interface is used, inside `rc_context`: nothing global is left behind.
"""

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, Locator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike
from PIL import Image

from closure_jax.pages.tables import superscript

WIDTH = 11.0
"""Inches; at 100 pixels an inch the width of the page, so that font sizes are those of the page's text."""
DPI = 150
WAVENUMBER = "integer wavenumber |k| L / 2π"

Curve = ArrayLike | Sequence[float | None]
"""Numbers along a curve; what is missing is None or nan."""

_STYLE: dict[Any, Any] = {
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
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Makes a function that draws a figure return it as a PNG, in the report's style."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> bytes:
        with matplotlib.rc_context(_STYLE):
            return rendered(draw(*args, **kwargs))

    return wrapped


def rendered(figure: Figure) -> bytes:
    """A figure as a PNG, drawn once: `savefig` draws what has a layout twice."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


def panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure of `size` inches and its (rows, columns) axes."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def label(axes: Axes, x: str, y: str, title: str = "", x_scale: str = "linear", y_scale: str = "linear") -> None:
    """Names and scales of the axes, and a title on the left; a log axis gets few ticks.

    Args:
      axes: what is labelled.
      x, y: quantities with their units.
      title: what the panel shows.
      x_scale, y_scale: `linear` or `log`.
    """
    axes.set(xlabel=x, ylabel=y, xscale=x_scale, yscale=y_scale)
    for axis, scale in ((axes.xaxis, x_scale), (axes.yaxis, y_scale)):
        if scale == "log":
            axis.set_major_locator(LogTicks())
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(LogTexts())
    axes.set_title(title, loc="left")


def _view(ticks: Locator | Formatter) -> tuple[float, float]:
    """Limits of the axis that ticks or their texts belong to."""
    assert ticks.axis is not None
    low, high = ticks.axis.get_view_interval()
    return float(low), float(high)


class LogTicks(Locator):
    """Ticks of a log axis: at most `most` powers of ten, 1, 2, 5 of each over few decades, even steps under a third."""

    def __init__(self, most: int = 7) -> None:
        self.most = most

    def __call__(self) -> Sequence[float]:
        return self.tick_values(*_view(self))

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks from `vmin` to `vmax`, both positive."""
        low, high = sorted((vmin, vmax))
        if not (0 < low < high and math.isfinite(high)):
            return []
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        if high / low < 2:
            ticks = MaxNLocator(4).tick_values(low, high)
        elif high / low < 300:
            digits = (1, 2, 5) if high / low > 5 else (1, 2, 3, 5, 7)
            ticks = [digit * 10.0**power for power in powers for digit in digits]
        else:
            inside = [power for power in powers if low <= 10.0**power <= high]
            ticks = [10.0**power for power in inside[:: math.ceil(len(inside) / self.most)]]
        shown = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        return shown[:: math.ceil(len(shown) / self.most)] if shown else shown


class LogTexts(Formatter):
    """Ticks of a log axis as plain numbers, 0.05 or 200; all as powers of ten where one of them would be long."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = sorted(_view(self))
        return log_text(x, plain=low >= 5e-4 and high <= 2e4)


def log_text(value: float, plain: bool) -> str:
    """A positive number as 0.05 where `plain`, else as 5 · 10⁻², or 10⁻² alone."""
    if plain:
        return f"{value:.10g}"
    power = math.floor(math.log10(value) + 1e-9)
    mantissa = f"{value / 10.0**power:.3g}"
    return f"10{superscript(power)}" if mantissa == "1" else f"{mantissa} · 10{superscript(power)}"


def plot(axes: Axes, x: Curve | None, y: Curve | None, **style: Any) -> None:
    """Plots the finite part of a curve, on a log scale the positive part.

    Few points get marks, and one point gets one whatever the style, so that it is seen.
    """
    if x is None or y is None:
        return
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)  # None in a list becomes nan
    shown = np.isfinite(x) & np.isfinite(y)
    if axes.get_yscale() == "log":
        shown &= y > 0
    if axes.get_xscale() == "log":
        shown &= x > 0
    if not shown.any():
        return
    marks: dict[str, Any] = {"marker": "o" if shown.sum() < 8 else None, "markersize": 4} | style
    if shown.sum() == 1 and not marks["marker"]:
        marks["marker"] = "o"
    axes.plot(x, np.where(shown, y, np.nan), **marks)


def mark_outside(axes: Axes) -> None:
    """A triangle at the upper edge over each point of a labelled curve that lies beyond it, once the limits are set."""
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    edge = high / (high / low) ** 0.015 if log else high - 0.015 * (high - low)
    for line in list(axes.lines):
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        beyond = np.isfinite(y) & (y > high)
        if not str(line.get_label()).startswith("_") and beyond.any():
            mark: dict[str, Any] = {"marker": "^", "linestyle": "", "markersize": 6, "color": line.get_color()}
            axes.plot(x[beyond], np.full(beyond.sum(), edge), clip_on=False, zorder=4, **mark)
    axes.set_ylim(low, high)


def legend(axes: Axes, **options: Any) -> None:
    """A legend, or a word where nothing could be drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**options)
    else:
        say_if_empty(axes)


def legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, under them, where it covers no curve; a word in a panel where nothing could be drawn."""
    entries: dict[str, Any] = {}
    for axes in panels:
        say_if_empty(axes)
        entries |= {text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(6, len(entries)))


def say_if_empty(axes: Axes) -> None:
    """A word in a panel without a labelled curve."""
    if not axes.get_legend_handles_labels()[0]:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color="#777777")


def cut_decades(panels: Sequence[Axes], decades: float) -> None:
    """Limits the shared log axis of y to what is drawn, and to `decades` under its largest value."""
    values = np.concatenate([line.get_ydata() for axes in panels for line in axes.lines] or [[]])
    values = values[np.isfinite(values)]
    if values.size:
        top = values.max()
        for axes in panels:
            axes.set_ylim(max(values.min() / 2, top * 10.0**-decades), 3 * top)


SLOPES = {"energy": -3, "enstrophy": -1}
"""Powers of the wavenumber in the range of a constant flux of enstrophy (Kraichnan, Phys. Fluids 10, 1967)."""


def slope(axes: Axes, shells: Curve, values: Curve, power: int) -> None:
    """A dotted line k^power over the middle third, on a log axis, of a spectrum, three times above it at its start."""
    x, y = np.asarray(shells, dtype=float), np.asarray(values, dtype=float)
    last = max(2.0, float(x[-1]))
    inside = (x >= last ** (1 / 3)) & (x <= last ** (2 / 3)) & np.isfinite(y) & (y > 0)
    if inside.sum() > 1:
        x, start = x[inside], 3 * y[inside][0]
        line: dict[str, Any] = {"color": "#777777", "linewidth": 1.2, "linestyle": ":"}
        axes.plot(x, start * (x / x[0]) ** power, label=f"slope k{superscript(power)}", **line)


def steps_text(count: int) -> str:
    """`1 sampler step`, `10 sampler steps`."""
    return f"{int(count)} sampler step{'s' if count > 1 else ''}"


def wavenumber_ticks(axes: Axes, shells: int) -> None:
    """Ticks at powers of two, from the first shell to the last."""
    ticks = [2**i for i in range(12) if 2**i < shells]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.9, 1.1 * (shells - 1))
