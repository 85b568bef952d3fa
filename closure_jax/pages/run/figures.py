"""The figures of a report, each as the bytes of an image.

A curve that is missing (None) or has gaps is drawn as far as it goes, and a field that is not finite is drawn grey: the
report of a run that went wrong is the one that is needed most. Fields are (n, n) with x first, and drawn with x to the right
and y upwards. Units: vorticity 1/time, closure 1/time^2, lengths and times nondimensional.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.drawing import WIDTH, steps_text

Arrays = Mapping[str, np.ndarray]

DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
TRUTH = {"color": "#222222", "linewidth": 2.8}
MODEL = {"color": "#1f83d6", "linewidth": 1.5}
NO_CLOSURE = {"color": "#d55e00", "linewidth": 1.5, "linestyle": "--"}
REFERENCE = {"color": "#777777", "linewidth": 1.2, "linestyle": ":"}


def color_limit(*fields: np.ndarray | float) -> float:
    """The largest magnitude in the fields, rounded up to two digits; 1 where nothing is finite or all is zero."""
    values = np.concatenate([np.abs(np.ravel(field)) for field in fields])
    values = values[np.isfinite(values)]
    largest = float(values.max()) if values.size else 0.0
    if largest == 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 1)
    return math.ceil(largest / unit) * unit


def _field(axes: Axes, field: np.ndarray, limits: tuple[float, float], cmap: str, length: float) -> AxesImage:
    """Draws one field without ticks; colours are clipped to `limits`, grey where it is not finite."""
    axes.set(xticks=[], yticks=[], facecolor="#bbbbbb")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    field = np.ma.masked_invalid(np.asarray(field, dtype=float).T)
    return axes.imshow(field, origin="lower", extent=(0, length, 0, length), cmap=cmap, vmin=limits[0], vmax=limits[1])


@drawing.png
def training_curves(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss against step, one panel a phase; `phases` maps a name to its records in order of step."""
    columns = min(3, len(phases))
    rows = math.ceil(len(phases) / columns)
    figure, panels = drawing.panels(rows, columns, (WIDTH, 3.1 * rows))
    for axes in panels.flat[len(phases) :]:
        axes.remove()
    for axes, (name, records) in zip(panels.flat, phases.items(), strict=False):
        drawing.label(axes, "training step", "loss", name.replace("_", " "), y_scale="log")
        step = [record["step"] for record in records]
        loss = np.array([record.get("loss") for record in records], dtype=float)
        window = len(records) // 60
        if window > 1:
            drawing.plot(axes, step, loss, color=MODEL["color"], alpha=0.35, linewidth=0.8)
            smooth = np.convolve(loss, np.full(window, 1 / window), mode="valid")
            drawing.plot(axes, step[window - 1 :], smooth, label=f"training, mean of {window} records", **MODEL)
        else:
            drawing.plot(axes, step, loss, label="training", **MODEL)
        validation = [record for record in records if record.get("validation_loss") is not None]
        values = [record["validation_loss"] for record in validation]
        drawing.plot(axes, [record["step"] for record in validation], values, label="validation", **NO_CLOSURE)
        drawing.legend(axes)
    return figure


@drawing.png
def a_priori_fields(arrays: Arrays) -> Figure:
    """One row a state: condition, truth, samples, means, the mean's error, and the spread of the samples."""
    condition, truth, samples = (arrays[f"a_priori_{name}"] for name in ("vorticity", "truth", "samples"))
    exact, mean, spread = (arrays[f"a_priori_{name}"] for name in ("exact_mean", "mean", "spread"))
    deviation = float(arrays["noise_standard_deviation"])
    closures = [("truth", truth), *((f"sample {i + 1}", samples[:, i]) for i in range(min(2, samples.shape[1])))]
    closures += [("mean of samples", mean), ("exact mean", exact)]
    groups = (
        ("vorticity w (1/time)", _symmetric(condition), [("condition", condition)]),
        ("closure H (1/time²), one scale", _symmetric(truth, exact), closures),
        ("own scale (1/time²)", _symmetric(mean - exact), [("mean − exact", mean - exact)]),
        (f"exact: {deviation:.2g} (1/time²)", (0.0, color_limit(spread, 1.2 * deviation)), [("spread", spread)]),
    )
    figure, panels, bars = _field_groups(groups, float(arrays["domain_length"]))
    bars[-1].axvline(deviation, color="white", linewidth=2)
    for axes, time in zip(panels, arrays["a_priori_time"], strict=True):
        axes.set_ylabel(f"t = {time:.4g}")
    return figure


def signed(value: float) -> str:
    """Two digits, with a true minus sign."""
    return f"{value:.2g}".replace("-", "−")


def _symmetric(*fields: np.ndarray) -> tuple[float, float]:
    """Limits of colour that put zero in the middle."""
    return -color_limit(*fields), color_limit(*fields)


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
            images = [_field(axes, field, limits, cmap, length) for axes, field in zip(panels, fields, strict=True)]
            panels[0].set_title(title, fontsize=9.5)
            first, x = first or panels, x + side + gap
        bars.append(place(start, bottom - 0.12, x - gap - start, 0.1))
        bar = figure.colorbar(images[0], cax=bars[-1], orientation="horizontal")
        bar.set_ticks(
            [limits[0], sum(limits) / 2, limits[1]],
            labels=[signed(limits[0]), "0" if limits[0] < 0 else "", signed(limits[1])],
        )
        for text, side_of_tick in zip(bars[-1].get_xticklabels(), ("left", "center", "right"), strict=True):
            text.set_horizontalalignment(side_of_tick)
        bar.set_label(label)
        bar.outline.set_visible(False)
        x += group_gap - gap
    return figure, first, bars


@drawing.png
def a_priori_spectra(arrays: Arrays) -> Figure:
    """Power of the closure, and of its random part at several sampler steps, by shell of wavenumber."""
    figure, ((closure, noise),) = drawing.panels(1, 2, (WIDTH, 3.9))
    shells = np.arange(len(arrays["closure_spectrum_truth"]))
    unit = drawing.WAVENUMBER
    drawing.label(closure, unit, "power of H in shell (1/time⁴)", "closure", "log", "log")
    drawing.label(noise, unit, "power of H − mean in shell (1/time⁴)", "random part of the closure", "log", "log")
    drawing.plot(closure, shells, arrays["closure_spectrum_truth"], label="truth", **TRUTH)
    drawing.plot(
        closure,
        shells,
        arrays["closure_spectrum_model"],
        label="model, " + steps_text(arrays["a_priori_steps"]),
        **MODEL,
    )
    drawing.plot(noise, shells, arrays["noise_spectrum_exact"], label="exact", **TRUTH)
    colors = matplotlib.colormaps["plasma"](np.linspace(0.1, 0.85, len(arrays["noise_spectrum_steps"])))
    for count, spectrum, color in zip(
        arrays["noise_spectrum_steps"], arrays["noise_spectrum_model"], colors, strict=True
    ):
        drawing.plot(noise, shells, spectrum, color=color, label="model, " + steps_text(count))
    for axes in (closure, noise):
        drawing.cut_decades([axes], 8)
        drawing.wavenumber_ticks(axes, len(shells))
        drawing.legend(axes, loc="lower left")
    return figure


@drawing.png
def sampler_steps(by_steps: Mapping[int, Mapping[str, float | None]], floor: float | None) -> Figure:
    """Error, ratios to the exact law, and cost against the number of sampler steps."""
    figure, ((error, ratio, cost),) = drawing.panels(1, 3, (WIDTH, 3.3))
    steps = list(by_steps)
    drawing.label(error, "sampler steps", "relative to the norm of H", "error of the mean of samples", "log", "log")
    drawing.label(ratio, "sampler steps", "ratio to the exact law", "spread and CRPS", "log")
    drawing.label(cost, "sampler steps", "milliseconds per sample", "cost", "log", "log")
    for axes, key, style in (
        (error, "relative_error", {"label": "against the truth", **MODEL}),
        (error, "excess_error", {"label": "against the exact mean", **NO_CLOSURE}),
        (ratio, "spread_ratio", {"label": "spread", **MODEL}),
        (ratio, "crps_ratio", {"label": "CRPS", **NO_CLOSURE}),
        (cost, "milliseconds_per_sample", {"label": "model", **MODEL}),
    ):
        drawing.plot(axes, steps, [by_steps[step].get(key) for step in steps], **style)
    if floor is not None and math.isfinite(floor) and floor > 0:
        error.axhline(floor, label="floor", **REFERENCE)
    ratio.axhline(1, label="exact", **REFERENCE)
    ratio.set_ylim(0, max(1.2, ratio.get_ylim()[1]))
    for axes in (error, ratio, cost):
        axes.set_xticks(steps, labels=[str(step) for step in steps])
        axes.xaxis.set_minor_locator(NullLocator())
        drawing.legend(axes)
    return figure


@drawing.png
def rollout_scores(scores: Mapping[str, Any], arrays: Arrays) -> Figure:
    """Relative error, ensemble spread and CRPS over time, from the lists of results.json's `a_posteriori`."""
    figure, ((error, spread, crps),) = drawing.panels(1, 3, (WIDTH, 3.3), sharex=True)
    time, x = scores.get("time"), f"time since the start at t = {float(arrays['start_time']):g}"
    drawing.label(error, x, "relative error of the vorticity", "error of the ensemble mean", y_scale="log")
    drawing.label(spread, x, "standard deviation (1/time)", "ensemble spread")
    drawing.label(crps, x, "CRPS of the vorticity (1/time)", "CRPS")
    for key, label, style in (
        ("relative_error", "model", MODEL),
        ("relative_error_no_closure", "no closure", NO_CLOSURE),
    ):
        if time and scores.get(key):  # all start at the same state: the first value is rounding, and off any log scale
            drawing.plot(error, time[1:], scores[key][1:], label=label, **style)
    drawing.plot(spread, time, scores.get("spread_truth"), label="truth", **TRUTH)
    drawing.plot(spread, time, scores.get("spread"), label="model", **MODEL)
    if scores.get("spread_truth"):
        gaussian = np.array(scores["spread_truth"], dtype=float) / math.sqrt(math.pi)
        drawing.plot(crps, time, gaussian, label="true law, if Gaussian", **REFERENCE)
    drawing.plot(crps, time, scores.get("crps"), label="model", **MODEL)
    for axes in (error, spread, crps):
        drawing.legend(axes)
    for axes in (spread, crps):
        axes.set_ylim(bottom=0)
    return figure


@drawing.png
def rollout_fields(arrays: Arrays) -> Figure:
    """Vorticity of the truth, one member and the run without closure (rows) at the recorded times (columns)."""
    rows = (("truth", "field_truth"), ("model", "field_model"), ("no closure", "field_no_closure"))
    length, scale, times = float(arrays["domain_length"]), color_limit(arrays["field_truth"]), arrays["field_time"]
    figure, panels = drawing.panels(len(rows), len(times), (2.55 * len(times) + 1.4, 8.1))
    for i, (name, key) in enumerate(rows):
        for j, field in enumerate(arrays[key]):
            image = _field(panels[i, j], field, (-scale, scale), DIVERGING, length)
        panels[i, 0].set_ylabel(f"{name}\ny", fontsize=10.5)
        panels[i, 0].set_yticks([0, length])
    for j, time in enumerate(times):
        panels[0, j].set_title(_clock(arrays, time))
        panels[2, j].set(xticks=[0, length], xlabel="x")
    bar = figure.colorbar(image, ax=panels, location="right", aspect=35, shrink=0.7, extend="both", pad=0.02)
    bar.set_label("vorticity w (1/time)")
    bar.outline.set_visible(False)
    return figure


def _clock(arrays: Arrays, time: float) -> str:
    """A time counted from the rollout's start, with the flow's time it started at."""
    return f"t = {float(arrays['start_time']):g} + {float(time):.3g}"


def _compare(axes: Axes, x: np.ndarray, arrays: Arrays, quantity: str, j: int) -> None:
    """Truth, model and no closure of one quantity at the j-th time."""
    for name, style in (("truth", TRUTH), ("model", MODEL), ("no closure", NO_CLOSURE)):
        drawing.plot(axes, x, arrays[f"{quantity}_{name.replace(' ', '_')}"][j], label=name, **style)


@drawing.png
def rollout_spectra(arrays: Arrays) -> Figure:
    """Energy and enstrophy by shell of wavenumber (rows) at the recorded times (columns)."""
    times = arrays["field_time"]
    figure, panels = drawing.panels(2, len(times), (WIDTH, 6.2), sharex=True, sharey="row")
    shells = np.arange(arrays["energy_truth"].shape[-1])
    rows = (("energy", "energy in shell (length²/time²)"), ("enstrophy", "enstrophy in shell (1/time²)"))
    for row, (quantity, label) in zip(panels, rows, strict=True):
        for j, axes in enumerate(row):
            title = _clock(arrays, times[j]) if quantity == "energy" else ""
            x = drawing.WAVENUMBER if quantity == "enstrophy" else ""
            drawing.label(axes, x, label if j == 0 else "", title, "log", "log")
            _compare(axes, shells, arrays, quantity, j)
        drawing.cut_decades(row, 10)
    drawing.wavenumber_ticks(panels[0, 0], len(shells))
    drawing.legend(panels[0, 0], loc="lower left")
    return figure


@drawing.png
def rollout_pdf(arrays: Arrays) -> Figure:
    """Probability density of the vorticity at the recorded times."""
    times = arrays["field_time"]
    figure, (row,) = drawing.panels(1, len(times), (WIDTH, 3.3), sharex=True, sharey=True)
    for j, axes in enumerate(row):
        y = "probability density (time)" if j == 0 else ""
        drawing.label(axes, "vorticity w (1/time)", y, _clock(arrays, times[j]), y_scale="log")
        _compare(axes, arrays["pdf_vorticity"], arrays, "pdf", j)
    drawing.cut_decades(row, 5)
    drawing.legend(row[0], loc="lower center")
    return figure
