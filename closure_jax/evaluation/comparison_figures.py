"""The figures of a comparison, each as the bytes of a PNG. Colour is the process, line and marker the latent space."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from PIL import Image

from closure_jax.evaluation import drawing
from closure_jax.evaluation.claims import learning_curve
from closure_jax.evaluation.comparison import LATENTS, PROCESSES, Model, Study
from closure_jax.evaluation.comparison_tables import MEASURES, TOPOLOGY
from closure_jax.evaluation.published import EXACT_DEVIATION, PUBLISHED, error_over_floor

_PROCESS_COLORS = dict(zip(PROCESSES, ("#1f83d6", "#d55e00", "#009e73", "#a34fb8"), strict=True))
_MORE_COLORS = ("#8c6d1f", "#d6336c", "#17a2b8", "#5f6b7a")
_LATENT_STYLES: dict[str, tuple[Any, str]] = {
    "physical": ("-", "s"),
    "recon": (":", "o"),
    "mp": ("-.", "^"),
    "ga": ("--", "D"),
    "joint": ((0, (5, 1)), "P"),
}
_OTHER_STYLE = ((0, (1, 1, 4, 1)), "X")
_LATENT_COLORS = {"recon": "#777777", "mp": "#009e73", "ga": "#1f83d6", "joint": "#d55e00", "physical": "#222222"}
_TRUTH = {"color": "#222222", "linewidth": 2.6, "marker": ""}
_REFERENCE = {"color": "#777777", "linewidth": 1.2, "linestyle": ":", "marker": ""}
_NO_CLOSURE = {"color": "#777777", "linewidth": 1.4, "linestyle": (0, (6, 3)), "marker": ""}
_PALETTE = 256

CAPTIONS = {
    "pareto": """What accuracy costs: error of the mean of samples against the exact mean (left) and CRPS over that of the
        exact law (right), against the time of one sample; a curve runs over the numbers of sampler steps, from few (left)
        to many. Lower left is better; the ring marks the setting with the least CRPS. Curves that leave the top have too
        few steps to follow their process.""",
    "settings": """Error over the floor and spread over the exact one against the number of sampler steps; 1 is perfect
        for both. Stars are published figures: the root of the MSE over its floor, and the sample deviation over the exact
        one.""",
    "rollout": """The coupled solver over time: error of the ensemble mean against the true ensemble's, and ensemble spread
        over the true one, for which 1 is perfect. A sample held over several time steps makes the spread too wide.""",
    "energy_spectra": """Kinetic energy by shell of wavenumber at the rollout's last time, cut ten decades under the peak;
        right: over the truth.""",
    "noise_spectra": """Variance of the samples about their mean by shell of wavenumber, over the exact one, at each
        model's best number of steps; shells with less than a millionth of the strongest one are left out.""",
    "latent_geometry": """Geometry of the latent spaces, filled for w and open for H. Right is better for the correlations,
        trustworthiness and continuity; left for the rest.""",
    "data_efficiency": """Excess error of the sampled closure, and error of the autoencoder's reconstruction of H, against
        the number of training trajectories, one line a latent space (mean over seeds).""",
}
"""How to read each figure, by name; `draw` gives them in this order."""


def draw(models: Sequence[Model], studies: Sequence[Study] = ()) -> dict[str, bytes]:
    """PNG by name of every figure for which the runs have figures."""
    drawn = {function.__name__: function(models) for function in (pareto, settings) if any(m.steps for m in models)}
    if any(model.curve("a_posteriori", "relative_error").size for model in models):
        drawn["rollout"] = rollout(models)
    if any(model.array("energy_model").ndim == 2 for model in models):
        drawn["energy_spectra"] = energy_spectra(models)
    if any(_noise_ratio(model) is not None for model in models):
        drawn["noise_spectra"] = noise_spectra(models)
    if _with_geometry(models):
        drawn["latent_geometry"] = latent_geometry(models)
    if studies:
        drawn["data_efficiency"] = data_efficiency(studies)
    return drawn


def _small_png(function: Callable[..., Figure]) -> Callable[..., bytes]:
    """As `drawing.png`, with a palette of colours: a third of the size, and no difference to be seen in curves."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> bytes:
        image = Image.open(io.BytesIO(drawing.png(function)(*args))).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(_PALETTE, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
        return buffer.getvalue()

    return wrapped


def _styles(models: Sequence[Model]) -> dict[str, dict[str, Any]]:
    """How each model is drawn, by name: a second one of a process and latent space has open markers and a thin line."""
    unknown = [process for process in dict.fromkeys(model.process for model in models) if process not in PROCESSES]
    colors = _PROCESS_COLORS | {name: _MORE_COLORS[i % len(_MORE_COLORS)] for i, name in enumerate(unknown)}
    styles: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, str]] = set()
    for model in models:
        again = (model.process, model.latent) in seen
        seen.add((model.process, model.latent))
        line, marker = _LATENT_STYLES.get(model.latent, _OTHER_STYLE)
        color = colors[model.process]
        face = {"markerfacecolor": "white"} if again else {}
        styles[model.name] = {"color": color, "linestyle": line, "marker": marker, "linewidth": 0.9 if again else 1.5}
        styles[model.name] |= {"markersize": 4.5, "alpha": 0.9} | face
    return styles


def _figure_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, to their right."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= {name: line for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not entries:
        drawing.legend(panels[0])
    else:
        figure.legend(entries.values(), entries.keys(), loc="outside right center", handlelength=3.2)


def _sparse(style: dict[str, Any], count: int, place: int) -> dict[str, Any]:
    """A style for curves of many points: about six markers, at other points for each curve."""
    every = max(1, count // 6)
    return style | {"markevery": (place % every, every)}


def _step_values(model: Model, measure: str) -> list[float | None]:
    found = [model.at(steps, measure) for steps in model.steps]
    return [None if one is None else one.mean for one in found]


def _plain_log_ticks(axes: Axes, which: str) -> None:
    """Ticks of a short log axis at 1, 2, 5 of each decade, as plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _cap(axes: Axes, over_best: float, floor: float | None = None) -> None:
    """Cuts a log axis at `over_best` times the least value drawn: what failed shall not press the rest together."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.array([])])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size:
        low = min(values.min(), floor or np.inf)
        axes.set_ylim(low / 1.05, min(1.1 * values.max(), over_best * low))


@_small_png
def pareto(models: Sequence[Model]) -> Figure:
    """Excess error and CRPS against milliseconds per sample, a curve a model over its sampler steps."""
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.6))
    styles, x = _styles(models), "milliseconds per sample"
    drawing.label(panels[0], x, "relative to the norm of H", "error against the exact mean", "log", "log")
    drawing.label(panels[1], x, "ratio to the exact law", "CRPS", "log", "log")
    for axes, measure in zip(panels, ("excess_error", "crps_ratio"), strict=True):
        for model in models:
            cost, values = _step_values(model, "milliseconds_per_sample"), _step_values(model, measure)
            drawing.plot(axes, cost, values, label=model.name, **styles[model.name])
            if model.best_steps in model.steps:
                best = model.steps.index(model.best_steps)
                ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "linestyle": ""}
                drawing.plot(axes, [cost[best]], [values[best]], color=styles[model.name]["color"], **ring)
        _cap(axes, 10 if measure == "excess_error" else 2.5)
        for which in "xy":
            _plain_log_ticks(axes, which)
    _figure_legend(figure, panels)
    return figure


@_small_png
def settings(models: Sequence[Model]) -> Figure:
    """Error over the floor and spread ratio against sampler steps, with the published ones."""
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.6))
    styles, x = _styles(models), "sampler steps"
    drawing.label(panels[0], x, "error / floor", "error of the mean of samples", "log", "log")
    drawing.label(panels[1], x, "ratio to the exact one", "spread of the samples", "log")
    for axes, measure in zip(panels, ("over_floor", "spread_ratio"), strict=True):
        for model in models:
            drawing.plot(axes, model.steps, _step_values(model, measure), label=model.name, **styles[model.name])
    used = {model.process for model in models}
    for one in (one for one in PUBLISHED if one.process in used):
        star = {"marker": "*", "markersize": 13, "linestyle": "", "color": _PROCESS_COLORS[one.process]}
        star |= {"markeredgecolor": "black", "markeredgewidth": 0.7, "label": one.name}
        star |= {} if one.latent == "physical" else {"markerfacecolor": "white"}
        drawing.plot(panels[0], [one.steps], [error_over_floor(one.mean_squared_error, EXACT_DEVIATION)], **star)
        drawing.plot(panels[1], [one.steps], [one.deviation / EXACT_DEVIATION], **star)
    _cap(panels[0], 1.6, floor=1.0)
    panels[1].set_ylim(0, min(1.5, max(1.2, panels[1].get_ylim()[1])))
    counts = sorted({steps for model in models for steps in model.steps})
    for axes in panels:
        axes.axhline(1, **_REFERENCE)
        axes.set_xticks(counts, labels=[str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].yaxis.set_major_locator(MaxNLocator(6))
    panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    _figure_legend(figure, panels)
    return figure


@_small_png
def rollout(models: Sequence[Model]) -> Figure:
    """Relative error and spread ratio of the coupled ensemble against time, with the solver alone."""
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.6))
    styles, x = _styles(models), "time since the start"
    drawing.label(panels[0], x, "relative error of the vorticity", "error of the ensemble mean", y_scale="log")
    drawing.label(panels[1], x, "ratio to the true one", "ensemble spread")
    for place, model in enumerate(models):
        time, error, bare, spread, truth = (
            model.curve("a_posteriori", name)[
                1:
            ]  # all start at one state: the first error is rounding, the spread zero
            for name in ("time", "relative_error", "relative_error_no_closure", "spread", "spread_truth")
        )
        style = _sparse(styles[model.name], len(time), place)
        if time.shape == error.shape:
            drawing.plot(panels[0], time, error, label=model.name, **style)
        if time.shape == spread.shape == truth.shape:
            ratio = np.divide(spread, truth, out=np.full_like(spread, np.nan), where=truth > 0)
            drawing.plot(panels[1], time, ratio, label=model.name, **style)
        if time.shape == bare.shape and "no closure" not in panels[0].get_legend_handles_labels()[1]:
            drawing.plot(panels[0], time, bare, label="no closure", **_NO_CLOSURE)
    panels[1].axhline(1, **_REFERENCE)
    panels[1].set_ylim(0, min(5, panels[1].get_ylim()[1]))
    _figure_legend(figure, panels)
    return figure


@_small_png
def energy_spectra(models: Sequence[Model]) -> Figure:
    """Energy by shell of wavenumber at the rollout's last time, and over the truth."""
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.6))
    styles, last = _styles(models), [model for model in models if model.array("energy_model").ndim == 2]
    truth = last[0].array("energy_truth")
    drawing.label(panels[0], drawing.WAVENUMBER, "energy in shell (length²/time²)", "energy", "log", "log")
    drawing.label(panels[1], drawing.WAVENUMBER, "ratio to the true one", "energy over the truth", "log", "log")
    if truth.ndim == 2:
        drawing.plot(panels[0], np.arange(truth.shape[1]), truth[-1], label="truth", **_TRUTH)
    for place, model in enumerate(last):
        mine, own = model.array("energy_model")[-1], model.array("energy_truth")
        style = _sparse(styles[model.name], len(mine), place)
        drawing.plot(panels[0], np.arange(len(mine)), mine, label=model.name, **style)
        if own.ndim == 2:
            drawing.plot(panels[1], np.arange(len(mine)), _ratio(mine, own[-1], 1e-10), label=model.name, **style)
    bare = last[0].array("energy_no_closure")
    if bare.ndim == 2 and truth.ndim == 2:
        drawing.plot(panels[0], np.arange(len(bare[-1])), bare[-1], label="no closure", **_NO_CLOSURE)
        shells = np.arange(len(bare[-1]))
        drawing.plot(panels[1], shells, _ratio(bare[-1], truth[-1], 1e-10), label="no closure", **_NO_CLOSURE)
    drawing.cut_decades([panels[0]], 10)
    panels[1].axhline(1, **_REFERENCE)
    low, high = panels[1].get_ylim()
    panels[1].set_ylim(max(low, 0.05), min(high, 20))
    for axes in panels:
        drawing.wavenumber_ticks(axes, last[0].array("energy_model").shape[1])
    _plain_log_ticks(panels[1], "y")
    _figure_legend(figure, panels)
    return figure


def _ratio(values: np.ndarray, exact: np.ndarray, least: float) -> np.ndarray:
    """`values` over `exact` where that is over `least` of its largest; nan elsewhere, and in the shell of the mean."""
    shown = (exact > least * exact[1:].max()) & (np.arange(len(exact)) > 0)
    return np.divide(values, exact, out=np.full(len(exact), np.nan), where=shown)


def _noise_ratio(model: Model) -> np.ndarray | None:
    """Noise spectrum over the exact one at the model's best number of steps, from results.json, else from arrays.npz."""
    exact = model.curve("a_priori", "noise_spectrum", "exact")
    mine = model.curve("a_priori", "noise_spectrum", "model", str(model.best_steps))
    if not exact.size or exact.shape != mine.shape:
        exact, spectra = model.array("noise_spectrum_exact"), model.array("noise_spectrum_model")
        counts = [int(count) for count in model.array("noise_spectrum_steps") if np.isfinite(count)]
        if model.best_steps not in counts or spectra.ndim != 2:
            return None
        mine = spectra[counts.index(model.best_steps)]
    return _ratio(mine, exact, 1e-6) if exact.shape == mine.shape and len(exact) > 1 else None


@_small_png
def noise_spectra(models: Sequence[Model]) -> Figure:
    """Spectrum of the samples about their mean over the exact one, at each model's best setting."""
    figure, ((axes,),) = drawing.panels(1, 1, (0.75 * drawing.WIDTH, 4.6))
    styles, shells = _styles(models), 2
    title = "random part of the closure over the exact one"
    drawing.label(axes, drawing.WAVENUMBER, "ratio of variances in shell", title, "log", "log")
    for place, model in enumerate(models):
        ratio = _noise_ratio(model)
        if ratio is not None:
            shells = max(shells, 1 + int(np.flatnonzero(np.isfinite(ratio)).max(initial=1)))
            style = _sparse(styles[model.name], len(ratio), place)
            drawing.plot(axes, np.arange(len(ratio)), ratio, label=f"{model.name}, {model.best_steps}", **style)
    axes.axhline(1, **_REFERENCE)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.05), min(high, 20))
    drawing.wavenumber_ticks(axes, shells)
    _plain_log_ticks(axes, "y")
    _figure_legend(figure, [axes])
    return figure


def _with_geometry(models: Sequence[Model]) -> list[Model]:
    """Latent models that have a measure of latent geometry."""
    latent = [model for model in models if model.latent != "physical"]
    return [model for model in latent if any(_geometry(model, name, "vorticity") for name in MEASURES)]


def _geometry(model: Model, measure: str, field: str) -> float | None:
    path = ("topology", field) if measure in TOPOLOGY else (field,)
    found = model.estimate("latent_geometry", *path, measure)
    return None if found is None else found.mean


@_small_png
def latent_geometry(models: Sequence[Model]) -> Figure:
    """A row a model, a panel a measure: filled for vorticity, open for the closure."""
    shown, styles = _with_geometry(models), _styles(models)
    names = {
        measure: name
        for measure, name in (MEASURES | TOPOLOGY).items()
        if any(_geometry(model, measure, field) is not None for model in shown for field in ("vorticity", "closure"))
    }
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    height = rows * (0.2 * len(shown) + 0.9) + 0.3
    figure, panels = drawing.panels(rows, columns, (drawing.WIDTH, height), sharey=True)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes, (measure, name) in zip(panels.flat, names.items(), strict=False):
        drawing.label(axes, "", "", name, "log" if measure == "condition_number" else "linear")
        for place, model in enumerate(shown):
            for field, face in (("vorticity", styles[model.name]["color"]), ("closure", "white")):
                value = [_geometry(model, measure, field)]
                mark = {"marker": "o", "markersize": 6, "markerfacecolor": face, "linestyle": ""}
                drawing.plot(axes, value, [place], color=styles[model.name]["color"], **mark)
        axes.set_yticks(range(len(shown)), labels=[model.name for model in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        if measure != "condition_number":
            axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@_small_png
def data_efficiency(studies: Sequence[Study]) -> Figure:
    """Error against the number of training trajectories, log-log, a line a latent space."""
    figure, (panels,) = drawing.panels(1, 2, (drawing.WIDTH, 4.2))
    found = dict.fromkeys(str(point.get("latent")) for study in studies for point in study.points)
    order = [name for name in LATENTS if name in found] + [name for name in found if name not in LATENTS]
    titles = {"excess_error": "error against the exact mean", "reconstruction_closure": "reconstruction of H"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        drawing.label(axes, "training trajectories", "relative to the norm of H", title, "log", "log")
        ticks: set[float] = set()
        for name in order:
            curve = learning_curve(studies, name, measure)
            x = [fraction if count is None else count for fraction, (_, count) in curve.items()]
            line, marker = _LATENT_STYLES.get(name, _OTHER_STYLE)
            style = {"color": _LATENT_COLORS.get(name, _MORE_COLORS[0]), "linestyle": line, "marker": marker}
            drawing.plot(axes, x, [value for value, _ in curve.values()], label=LATENTS.get(name, name), **style)
            ticks |= set(x)
        if ticks:
            axes.set_xticks(sorted(ticks), labels=[f"{tick:g}" for tick in sorted(ticks)])
            axes.xaxis.set_minor_locator(NullLocator())
        _plain_log_ticks(axes, "y")
        drawing.legend(axes)
    return figure
