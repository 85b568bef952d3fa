"""The figures of a comparison, each as the bytes of a PNG. Colour is the process, line and marker the latent space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.comparison import style as style
from closure_jax.pages.comparison.claims import learning_curve
from closure_jax.pages.comparison.published import EXACT_DEVIATION, PUBLISHED, error_over_floor
from closure_jax.pages.comparison.runs import LATENTS, Model, Study
from closure_jax.pages.comparison.tables import MEASURES, TOPOLOGY

CAPTIONS = {
    "pareto": """What accuracy costs: error of the mean of samples against the exact mean (left) and CRPS over that of the
        exact law (right), against the time of one sample; a curve runs over the numbers of sampler steps, from few (left)
        to many. Lower left is better; the ring marks the setting with the least CRPS. Curves that leave the top have too
        few steps to follow their process.""",
    "settings": """Error over the floor and spread over the exact one against the number of sampler steps; 1 is perfect
        for both. Stars are published figures in the colours of
        the processes: the root of the MSE over its floor, and the sample deviation over the exact one.""",
    "rollout": """The coupled solver over time: error of the ensemble mean against the true ensemble's, and ensemble spread
        over the true one, for which 1 is perfect. A sample held over several time steps makes the spread too wide.""",
    "energy_spectra": """Kinetic energy by shell of wavenumber at the rollout's last time, up to ten decades under the
        peak; right: over the truth.""",
    "noise_spectra": """Variance of the samples about their mean by shell of wavenumber, over the exact one, at each
        model's best number of steps; shells with less than a thousandth of the strongest one are left out.""",
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
    if any(_energy(model, "model") is not None for model in models):
        drawn["energy_spectra"] = energy_spectra(models)
    if any(_noise_ratio(model) is not None for model in models):
        drawn["noise_spectra"] = noise_spectra(models)
    if _with_geometry(models):
        drawn["latent_geometry"] = latent_geometry(models)
    if studies:
        drawn["data_efficiency"] = data_efficiency(studies)
    return drawn


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
        style.plain_log_ticks(axes, "x")
    style.plain_log_ticks(panels[0], "y")
    style.legend_beside(figure, panels)
    return figure


@style.small_png
def settings(models: Sequence[Model]) -> Figure:
    """Error over the floor and spread ratio against sampler steps, with the published ones."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models) + 2))
    styles, x = style.model_styles(models), "sampler steps"
    drawing.label(panels[0], x, "error / floor", "error of the mean of samples", "log")
    drawing.label(panels[1], x, "ratio to the exact one", "spread of the samples", "log")
    for axes, measure in zip(panels, ("over_floor", "spread_ratio"), strict=True):
        for model in models:
            drawing.plot(axes, model.steps, _step_values(model, measure), label=model.name, **styles[model.name])
    used = {model.process for model in models}
    for one in (one for one in PUBLISHED if one.process in used):
        color, physical = style.PROCESS_COLORS[one.process], one.latent == "physical"
        star = {"marker": "*", "markersize": 13, "linestyle": "", "color": color, "markeredgewidth": 1.2}
        star |= {"markeredgecolor": "black"} if physical else {"markerfacecolor": "white", "markeredgecolor": color}
        drawing.plot(panels[0], [one.steps], [error_over_floor(one.mean_squared_error, EXACT_DEVIATION)], **star)
        drawing.plot(panels[1], [one.steps], [one.deviation / EXACT_DEVIATION], **star)
    for name, face in (("physical", "#bbbbbb"), ("joint", "white")):
        star = {"marker": "*", "markersize": 13, "linestyle": "", "color": face, "markeredgecolor": "black"}
        panels[0].plot([], [], label=f"{name}, published", **star)
    style.cap(panels[0], 1.3, floor=1.0)
    panels[1].set_ylim(0, min(1.5, max(1.2, panels[1].get_ylim()[1])))
    counts = sorted({steps for model in models for steps in model.steps})
    for axes in panels:
        axes.axhline(1, **style.REFERENCE)
        axes.set_xticks(counts, labels=[str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
    style.legend_beside(figure, panels)
    return figure


@style.small_png
def rollout(models: Sequence[Model]) -> Figure:
    """Relative error and spread ratio of the coupled ensemble against time, with the solver alone."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models) + 1))
    styles, x = style.model_styles(models), "time since the start"
    drawing.label(panels[0], x, "relative error of the vorticity", "error of the ensemble mean", y_scale="log")
    drawing.label(panels[1], x, "ratio to the true one", "ensemble spread")
    alone: tuple[np.ndarray | None, np.ndarray | None] = None, None
    for place, model in enumerate(models):
        time, error, bare, spread, truth = (
            model.curve("a_posteriori", name)[
                1:
            ]  # all start at one state: the first error is rounding, the spread zero
            for name in ("time", "relative_error", "relative_error_no_closure", "spread", "spread_truth")
        )
        line = style.sparse(styles[model.name], len(time), place)
        if time.shape == error.shape:
            drawing.plot(panels[0], time, error, label=model.name, **line)
        if time.shape == spread.shape == truth.shape:
            ratio = np.divide(spread, truth, out=np.full_like(spread, np.nan), where=truth > 0)
            drawing.plot(panels[1], time, ratio, label=model.name, **line)
        if time.shape == bare.shape and time.size:
            alone = time, bare
    drawing.plot(panels[0], *alone, label="no closure", **style.NO_CLOSURE)
    panels[1].axhline(1, **style.REFERENCE)
    panels[1].set_ylim(0, min(5, panels[1].get_ylim()[1]))
    style.legend_beside(figure, panels)
    return figure


@style.small_png
def energy_spectra(models: Sequence[Model]) -> Figure:
    """Energy by shell of wavenumber at the rollout's last time, and over the truth."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models) + 2))
    drawing.label(panels[0], drawing.WAVENUMBER, "energy in shell (length²/time²)", "energy", "log", "log")
    drawing.label(panels[1], drawing.WAVENUMBER, "ratio to the true one", "energy over the truth", "log", "log")
    shown, styles, last = (
        3,
        style.model_styles(models),
        [model for model in models if _energy(model, "model") is not None],
    )
    curves = [(model.name, model, "model", styles[model.name]) for model in last]
    for place, (name, model, which, line) in enumerate(
        [*curves, ("no closure", last[0], "no_closure", style.NO_CLOSURE)]
    ):
        energy, truth = _energy(model, which), _energy(model, "truth")
        if energy is None or truth is None or energy.shape != truth.shape:
            continue
        ratio = _ratio(energy, truth, 1e-10)
        if place == 0:
            drawing.plot(panels[0], np.arange(len(truth)), truth, label="truth", **style.TRUTH)
        shown = max(shown, len(ratio))
        line = style.sparse(line, len(ratio), place) if which == "model" else line
        drawing.plot(panels[0], np.arange(len(ratio)), energy[: len(ratio)], label=name, **line)
        drawing.plot(panels[1], np.arange(len(ratio)), ratio, label=name, **line)
    drawing.cut_decades([panels[0]], 10)
    panels[1].axhline(1, **style.REFERENCE)
    low, high = panels[1].get_ylim()
    panels[1].set_ylim(max(low, 0.05), min(high, 20))
    for axes in panels:
        drawing.wavenumber_ticks(axes, shown)
    style.plain_log_ticks(panels[1], "y")
    style.legend_beside(figure, panels)
    return figure


def _energy(model: Model, which: str) -> np.ndarray | None:
    """Energy spectrum at the rollout's last time, None where the runs have none."""
    spectra = model.array(f"energy_{which}")
    return spectra[-1] if spectra.ndim == 2 else None


def _ratio(values: np.ndarray, exact: np.ndarray, least: float) -> np.ndarray:
    """`values` over `exact` by shell, nan in that of the mean, up to the last shell with over `least` of the largest."""
    strong = np.flatnonzero(exact > least * np.nanmax(exact[1:], initial=0.0))
    ratio = np.divide(values, exact, out=np.full(len(exact), np.nan), where=exact > 0)
    ratio[:1] = np.nan
    return ratio[: int(strong.max(initial=0)) + 1]


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
    return _ratio(mine, exact, 1e-3) if exact.shape == mine.shape else None


@style.small_png
def noise_spectra(models: Sequence[Model]) -> Figure:
    """Spectrum of the samples about their mean over the exact one, at each model's best setting."""
    figure, ((axes,),) = drawing.panels(1, 1, style.size_beside_legend(len(models) + 1, 0.75 * drawing.WIDTH))
    styles, shown = style.model_styles(models), 3
    title = "random part of the closure over the exact one"
    drawing.label(axes, drawing.WAVENUMBER, "ratio of variances in shell", title, "log")
    for model in models:
        ratio = _noise_ratio(model)
        if ratio is not None:
            shown, name = max(shown, len(ratio)), f"{model.name}, {model.best_steps}"
            drawing.plot(axes, np.arange(len(ratio)), ratio, label=name, **styles[model.name])
    axes.axhline(1, **style.REFERENCE)
    axes.set_ylim(0, min(3, axes.get_ylim()[1]))
    drawing.wavenumber_ticks(axes, shown)
    style.legend_beside(figure, [axes], "model, sampler steps")
    return figure


def _with_geometry(models: Sequence[Model]) -> list[Model]:
    """Latent models that have a measure of latent geometry."""
    latent = [model for model in models if model.latent != "physical"]
    return [model for model in latent if any(_geometry(model, name, "vorticity") for name in MEASURES)]


def _geometry(model: Model, measure: str, field: str) -> float | None:
    path = ("topology", field) if measure in TOPOLOGY else (field,)
    found = model.estimate("latent_geometry", *path, measure)
    return None if found is None else found.mean


@style.small_png
def latent_geometry(models: Sequence[Model]) -> Figure:
    """A row a model, a panel a measure: filled for vorticity, open for the closure."""
    shown, styles = _with_geometry(models), style.model_styles(models)
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
        drawing.label(axes, "", "", name)
        for place, model in enumerate(shown):
            for field, face in (("vorticity", styles[model.name]["color"]), ("closure", "white")):
                value = [_geometry(model, measure, field)]
                mark = {"marker": "o", "markersize": 6, "markerfacecolor": face, "linestyle": ""}
                drawing.plot(axes, value, [place], color=styles[model.name]["color"], **mark)
        axes.set_yticks(range(len(shown)), labels=[model.name for model in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@style.small_png
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
            dashes, marker = style.LATENT_STYLES.get(name, style.OTHER_STYLE)
            color = style.LATENT_COLORS.get(name, style.MORE_COLORS[0])
            line = {"color": color, "linestyle": dashes, "marker": marker}
            drawing.plot(axes, x, [value for value, _ in curve.values()], label=LATENTS.get(name, name), **line)
            ticks |= set(x)
        if ticks:
            axes.set_xticks(sorted(ticks), labels=[f"{tick:g}" for tick in sorted(ticks)])
            axes.xaxis.set_minor_locator(NullLocator())
        style.plain_log_ticks(axes, "y")
        drawing.legend(axes)
    return figure
