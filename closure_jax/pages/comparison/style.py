"""How the figures of a comparison are drawn.

Colour is the process, line and marker the latent space; one legend stands outside the panels.
"""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from closure_jax.pages import drawing
from closure_jax.pages.comparison.runs import PROCESSES, Model

PROCESS_COLORS = dict(
    zip(PROCESSES, ("#1f83d6", "#d55e00", "#009e73", "#a34fb8", "#17a2b8", "#b8860b", "#222222"), strict=True)
)
MORE_COLORS = ("#d6336c", "#5f6b7a", "#8c6d1f", "#7b3f00")
LATENT_STYLES: dict[str, tuple[Any, str]] = {
    "physical": ("-", "s"),
    "recon": (":", "o"),
    "mp": ("-.", "^"),
    "ga": ("--", "D"),
    "joint": ((0, (5, 1)), "P"),
}
OTHER_STYLE = ((0, (1, 1, 4, 1)), "X")
LATENT_COLORS = {"recon": "#777777", "mp": "#009e73", "ga": "#1f83d6", "joint": "#d55e00", "physical": "#222222"}
TRUTH = {"color": "#222222", "linewidth": 2.6, "marker": ""}
REFERENCE = {"color": "#777777", "linewidth": 1.2, "linestyle": ":", "marker": ""}
NO_CLOSURE = {"color": "#777777", "linewidth": 1.4, "linestyle": (0, (6, 3)), "marker": ""}
_PALETTE = 256


def small_png(function: Callable[..., Figure]) -> Callable[..., bytes]:
    """As `drawing.png`, with a palette of colours: a third of the size, and no difference to be seen in curves."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> bytes:
        image = Image.open(io.BytesIO(drawing.png(function)(*args))).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(_PALETTE, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
        return buffer.getvalue()

    return wrapped


def model_styles(models: Sequence[Model]) -> dict[str, dict[str, Any]]:
    """How each model is drawn, by name: a second one of a process and latent space has open markers and a thin line."""
    unknown = [process for process in dict.fromkeys(model.process for model in models) if process not in PROCESSES]
    colors = PROCESS_COLORS | {name: MORE_COLORS[i % len(MORE_COLORS)] for i, name in enumerate(unknown)}
    styles: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, str]] = set()
    for model in models:
        again = (model.process, model.latent) in seen
        seen.add((model.process, model.latent))
        line, marker = LATENT_STYLES.get(model.latent, OTHER_STYLE)
        color = colors[model.process]
        face = {"markerfacecolor": "white"} if again else {}
        styles[model.name] = {"color": color, "linestyle": line, "marker": marker, "linewidth": 0.9 if again else 1.5}
        styles[model.name] |= {"markersize": 4.5, "alpha": 0.9} | face
    return styles


def size_beside_legend(entries: int, width: float = drawing.WIDTH) -> tuple[float, float]:
    """Size of a figure whose legend of so many entries stands to its right."""
    return width, max(4.4, 0.2 * entries + 0.5)


def legend_beside(figure: Figure, panels: Sequence[Axes], title: str | None = None) -> None:
    """One legend for all panels, to their right."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= {name: line for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    for axes in panels:
        drawing.say_if_empty(axes)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right center", handlelength=3.2, title=title)


def sparse(style: dict[str, Any], count: int, place: int) -> dict[str, Any]:
    """A style for curves of many points: about six markers, at other points for each curve."""
    every = max(1, count // 6)
    return style | {"markevery": (place % every, every)}


def baseline(place: int) -> dict[str, Any]:
    """How the baseline at a place of the legend is drawn: grey, told apart by its dashes, the first one as no closure."""
    if place == 0:
        return NO_CLOSURE
    dashes = ((0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 3)), (0, (10, 4)))
    return NO_CLOSURE | {"color": "#444444", "linestyle": dashes[(place - 1) % len(dashes)]}


def cap(axes: Axes, over_best: float, floor: float | None = None) -> None:
    """Cuts the axis of y at `over_best` times the best drawn, on a log axis the middle one of what the curves have at best: what
    failed shall not press the rest together.

    Some point of each labelled curve stays in sight, and a triangle at the edge marks each that does not.
    """
    curves = [
        np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if not str(line.get_label()).startswith("_")
    ]
    curves = [values[np.isfinite(values) & (values > 0)] for values in curves]
    least = [values.min() for values in curves if values.size]
    if least:
        low, high = min([*least, floor or np.inf]), max(values.max() for values in curves if values.size)
        best = float(np.median(least)) if axes.get_yscale() == "log" else low  # of which the exact law may be far ahead
        wanted = max(over_best * best, 1.1 * max(least))
        axes.set_ylim(low / (1.1 if axes.get_yscale() == "log" else 1.02), min(1.1 * high, wanted))
        drawing.mark_outside(axes)


def shell_ratio(values: np.ndarray, exact: np.ndarray, least: float) -> np.ndarray:
    """`values` over `exact` by shell, nan in that of the mean, up to the last shell with over `least` of the largest."""
    strong = np.flatnonzero(exact > least * np.nanmax(exact[1:], initial=0.0))
    ratio = np.divide(values, exact, out=np.full(len(exact), np.nan), where=exact > 0)
    ratio[:1] = np.nan
    return ratio[: int(strong.max(initial=0)) + 1]
