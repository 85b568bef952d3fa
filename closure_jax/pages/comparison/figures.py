"""Figures of samples, latent spaces and training data of several models, each as the bytes of a PNG."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.comparison import style
from closure_jax.pages.comparison.claims import learning_curve
from closure_jax.pages.comparison.latents import MEASURES, NEAR_ONE, TOPOLOGY, geometry
from closure_jax.pages.comparison.published import EXACT_DEVIATION, PUBLISHED, error_over_floor
from closure_jax.pages.comparison.runs import LATENTS, Model, Study

CAPTIONS = {
    "pareto": """What accuracy costs: error of the mean of samples against the exact mean (left) and CRPS over that of the
        exact law (right), against the time of one sample; a curve runs over the numbers of sampler steps, from few (left)
        to many. Lower left is better; the ring marks the setting with the least CRPS. A triangle at the top stands for a
        point beyond it, which has too few steps to follow its process.""",
    "settings": """Error over the floor, spread and CRPS over the exact ones against the number of sampler steps; 1 is perfect
        for all; a triangle at the top stands for a point beyond it. Stars are published figures in the colours of the
        processes: the root of the MSE over its floor, and the sample deviation over the exact one.""",
    "noise_spectra": """Variance of the samples about their mean by shell of wavenumber, over the exact one, at each
        model's best number of steps; shells with less than a thousandth of the strongest one are left out. A triangle at
        the top stands for a point beyond it.""",
    "latent_geometry": """Geometry of the latent spaces, filled for w and open for H; left is better in all panels.
        Correlations, trustworthiness and continuity are shown by what they lack of 1, on a log axis; a triangle at its left
        edge stands for one that lacks nothing.""",
    "data_efficiency": """Excess error of the sampled closure, and error of the autoencoder's reconstruction of H, against
        the number of training trajectories, one line a latent space (mean over seeds).""",
}
"""How to read each figure, by name."""


def _step_values(model: Model, measure: str) -> list[float | None]:
    found = [model.at(steps, measure) for steps in model.steps]
    return [None if one is None else one.mean for one in found]


@style.small_png
def pareto(models: Sequence[Model]) -> Figure:
    """Excess error and CRPS against milliseconds per sample, a curve a model over its sampler steps."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models)))
    styles, x = style.model_styles(models), "milliseconds per sample"
    drawing.label(panels[0], x, "relative to the norm of H", "error against the exact mean", "log", "log")
    drawing.label(panels[1], x, "ratio to the exact law", "CRPS", "log")
    for axes, measure in zip(panels, ("excess_error", "crps_ratio"), strict=True):
        for model in models:
            cost, values = _step_values(model, "milliseconds_per_sample"), _step_values(model, measure)
            drawing.plot(axes, cost, values, label=model.name, **styles[model.name])
            if model.best_steps in model.steps:
                best = model.steps.index(model.best_steps)
                ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "linestyle": ""}
                drawing.plot(axes, [cost[best]], [values[best]], color=styles[model.name]["color"], **ring)
        style.cap(axes, 10 if measure == "excess_error" else 1.5)
    style.legend_beside(figure, panels)
    return figure


@style.small_png
def settings(models: Sequence[Model]) -> Figure:
    """Error over the floor, spread ratio and CRPS ratio against sampler steps, with the published ones."""
    figure, (panels,) = drawing.panels(1, 3, style.size_beside_legend(len(models) + 2))
    styles, x = style.model_styles(models), "sampler steps"
    drawing.label(panels[0], x, "error / floor", "error of the mean of samples", "log")
    drawing.label(panels[1], x, "ratio to the exact one", "spread of the samples", "log")
    drawing.label(panels[2], x, "ratio to the exact law", "CRPS", "log")
    for axes, measure in zip(panels, ("over_floor", "spread_ratio", "crps_ratio"), strict=True):
        for model in models:
            drawing.plot(axes, model.steps, _step_values(model, measure), label=model.name, **styles[model.name])
    _published_stars(panels, {model.process for model in models})
    style.cap(panels[0], 1.3, floor=1.0)
    style.cap(panels[2], 1.3, floor=1.0)
    panels[1].set_ylim(0, min(1.5, max(1.2, panels[1].get_ylim()[1])))
    drawing.mark_outside(panels[1])
    counts = sorted({steps for model in models for steps in model.steps})
    for axes in panels:
        axes.axhline(1, **style.REFERENCE)
        axes.set_xticks(counts, labels=[str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
    style.legend_beside(figure, panels)
    return figure


def _published_stars(panels: Sequence[Axes], processes: set[str]) -> None:
    """Stars for the published error and spread of these processes, filled in physical space and open in joint latents."""
    star: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "", "markeredgewidth": 1.2}
    shown = [one for one in PUBLISHED if one.process in processes]
    for one in shown:
        color = style.PROCESS_COLORS[one.process]
        edge = {"markeredgecolor": "black"} if one.latent == "physical" else {"markerfacecolor": "white"}
        look = star | {"color": color, "markeredgecolor": color} | edge
        drawing.plot(panels[0], [one.steps], [error_over_floor(one.mean_squared_error, EXACT_DEVIATION)], **look)
        drawing.plot(panels[1], [one.steps], [one.deviation / EXACT_DEVIATION], **look)
    for name, face in (("physical", "#bbbbbb"), ("joint", "white")):
        if any(one.latent == name for one in shown):
            look: dict[str, Any] = star | {"color": face, "markeredgecolor": "black"}
            panels[0].plot([], [], label=f"{name}, published", **look)


def noise_ratio(model: Model) -> np.ndarray | None:
    """Noise spectrum over the exact one at the model's best number of steps, from results.json, else from arrays.npz."""
    exact = model.curve("a_priori", "noise_spectrum", "exact")
    mine = model.curve("a_priori", "noise_spectrum", "model", str(model.best_steps))
    if not exact.size or exact.shape != mine.shape:
        exact, spectra = model.array("noise_spectrum_exact"), model.array("noise_spectrum_model")
        counts = [int(count) for count in model.array("noise_spectrum_steps") if np.isfinite(count)]
        if model.best_steps not in counts or spectra.ndim != 2:
            return None
        mine = spectra[counts.index(model.best_steps)]
    return style.shell_ratio(mine, exact, 1e-3) if exact.shape == mine.shape else None


@style.small_png
def noise_spectra(models: Sequence[Model]) -> Figure:
    """Spectrum of the samples about their mean over the exact one, at each model's best setting."""
    figure, ((axes,),) = drawing.panels(1, 1, style.size_beside_legend(len(models) + 1, 0.75 * drawing.WIDTH))
    styles, shown = style.model_styles(models), 3
    title = "random part of the closure over the exact one"
    drawing.label(axes, drawing.WAVENUMBER, "ratio of variances in shell", title, "log")
    for model in models:
        ratio = noise_ratio(model)
        if ratio is not None:
            shown, name = max(shown, len(ratio)), f"{model.name}, {model.best_steps}"
            drawing.plot(axes, np.arange(len(ratio)), ratio, label=name, **styles[model.name])
    axes.axhline(1, **style.REFERENCE)
    axes.set_ylim(0, min(3, axes.get_ylim()[1]))
    drawing.mark_outside(axes)
    drawing.wavenumber_ticks(axes, shown)
    style.legend_beside(figure, [axes], "model, sampler steps")
    return figure


def with_geometry(models: Sequence[Model]) -> list[Model]:
    """Latent models that have a measure of latent geometry."""
    latent = [model for model in models if model.latent != "physical"]
    return [model for model in latent if any(_geometry(model, name, "vorticity") for name in MEASURES)]


def _geometry(model: Model, measure: str, field: str) -> float | None:
    path = ("topology", field) if measure in TOPOLOGY else (field,)
    found = geometry(model, *path, measure)
    return None if found is None else found.mean


@style.small_png
def latent_geometry(models: Sequence[Model]) -> Figure:
    """A row a model, a panel a measure: filled for vorticity, open for the closure."""
    shown, styles = with_geometry(models), style.model_styles(models)
    names = {
        measure: name
        for measure, name in (MEASURES | TOPOLOGY).items()
        if any(_geometry(model, measure, field) is not None for model in shown for field in _FACES)
    }
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    height = rows * (0.2 * len(shown) + 0.9) + 0.3
    figure, panels = drawing.panels(rows, columns, (drawing.WIDTH, height), sharey=True)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes, (measure, name) in zip(panels.flat, names.items(), strict=False):
        drawing.label(axes, "", "", name)
        for field in _FACES:
            values = np.array([_geometry(model, measure, field) for model in shown], dtype=float)
            _geometry_marks(axes, values, field, [styles[model.name] for model in shown])
        if measure in (*NEAR_ONE, "condition_number"):
            _lacking_axis(axes)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_yticks(range(len(shown)), labels=[model.name for model in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
    return figure


_FACES = {"vorticity": True, "closure": False}
"""Fields of latent geometry, and whether their marks are filled."""


def _geometry_marks(axes: Axes, values: np.ndarray, field: str, styles: Sequence[dict]) -> None:
    """A mark for each model, from the top down."""
    for place, (value, line) in enumerate(zip(values, styles, strict=True)):
        if np.isfinite(value):
            face = line["color"] if _FACES[field] else "white"
            axes.plot([value], [place], marker="o", color=line["color"], markersize=6, markerfacecolor=face)


def _lacking_axis(axes: Axes) -> None:
    """Makes the axis of x logarithmic; marks at zero and below become triangles at its left edge."""
    values = np.array([np.asarray(line.get_xdata())[0] for line in axes.lines])
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (1e-4, 1e-2)
    edge = low / (2 if positive.size == values.size else 5)
    for line, value in zip(list(axes.lines), values, strict=True):
        if value <= 0:
            line.set(xdata=[edge], marker="<", clip_on=False)
    axes.set_xlim(edge, 2 * high)
    axes.set_xscale("log")
    axes.set_xlim(edge, 2 * high)
    axes.xaxis.set_major_locator(drawing.LogTicks(most=3))
    axes.xaxis.set_major_formatter(drawing.LogTexts())
    axes.xaxis.set_minor_locator(NullLocator())


@style.small_png
def data_efficiency(studies: Sequence[Study]) -> Figure:
    """Error against the number of training trajectories, log-log, a line a latent space and preset."""
    presets = list(dict.fromkeys(study.preset for study in studies))
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.2))
    found = dict.fromkeys(str(point.get("latent")) for study in studies for point in study.points)
    order = [name for name in LATENTS if name in found] + [name for name in found if name not in LATENTS]
    titles = {"excess_error": "error against the exact mean", "reconstruction_closure": "reconstruction of H"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        drawing.label(axes, "training trajectories", "relative to the norm of H", title, "log", "log")
        ticks: set[float] = set()
        for preset, name in itertools.product(presets, order):
            curve = learning_curve([study for study in studies if study.preset == preset], name, measure)
            x = [fraction if count is None else count for fraction, (_, count) in curve.items()]
            dashes, marker = style.LATENT_STYLES.get(name, style.OTHER_STYLE)
            color = style.LATENT_COLORS.get(name, style.MORE_COLORS[0])
            line = {"color": color, "linestyle": dashes, "marker": marker}
            label = LATENTS.get(name, name) + (f", {preset}" if len(presets) > 1 else "")
            drawing.plot(axes, x, [value for value, _ in curve.values()], label=label, **line)
            ticks |= set(x)
        if ticks:
            axes.set_xticks(sorted(ticks), labels=[f"{tick:g}" for tick in sorted(ticks)])
            axes.xaxis.set_minor_locator(NullLocator())
        drawing.legend(axes)
    return figure
