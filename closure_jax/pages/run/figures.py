"""The report's curves: training, spectra, sampler steps, and the solver coupled to the closure.

A curve that is missing (None) or has gaps is drawn as far as it goes. Units: vorticity 1/time, closure 1/time^2, lengths and
times nondimensional.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.drawing import WIDTH, steps_text
from closure_jax.pages.results import baselines
from closure_jax.pages.run.fields import clock
from closure_jax.pages.run.style import MODEL, NO_CLOSURE, REFERENCE, TRUTH, Arrays, baseline_styles

CAPTIONS = {
    "training_curves": """Loss of each training phase against its step, log scale; of an autoencoder the reconstruction alone,
        without the term of its latent, which validation has not either. Validation that turns up while
        training still falls means over-fitting; a curve that still falls at its end was stopped early.""",
    "a_priori_spectra": """Variance of the closure by shell of wavenumber, without k = 0, cut eight decades under the
        peak. Left: the whole field; its large scales are advection. Right: its random part, each sample less the
        mean. A curve under the exact one has too little noise at that scale; a flat or rising tail is white noise of
        the model.""",
    "sampler_steps": """Left: the error against the truth cannot fall below the floor, the error of the exact
        conditional mean; the error against the exact mean is what a better model could still lose. Middle: 1 is
        perfect; a spread under 1 is an over-confident ensemble, as few steps of an ODE sampler give. Right: what one
        sample costs.""",
    "a_priori_times": """Each test state at its time in the trajectory, and means over up to ten spans of time. Left: error of the
        mean of samples, beside that of the exact mean where the law is known. Right: deviation of the samples. A model that is
        right on average may still be wrong early, while the flow forms, or late.""",
    "rollout_scores": """The solver coupled to the sampled closure, from the same starts as the truth. Left: error of
        the ensemble mean; “no closure” is the solver alone, a second true ensemble what a perfect closure scores. Middle:
        the two ensembles should spread alike; a sample held unscaled over several time steps makes the model's too wide. Right:
        lower is better; a second true ensemble has what a perfect closure scores.""",
    "rollout_spectra": """Kinetic energy and enstrophy by shell of wavenumber, cut ten decades under the peak. A model
        over the truth at high wavenumbers adds noise there; one under it has lost small scales. Dotted: the slope of a
        constant flux of enstrophy to small scales, which viscosity, drag and forcing bend.""",
    "rollout_pdf": """Distribution of the vorticity's values over the domain. On the log scale the tails can be read:
        they are the strongest vortices.""",
    "rollout_statistics": """Means over all times of the rollout but the start. Left: enstrophy by shell of wavenumber.
        Middle: what the resolved advection takes from all shells up to each one; over the truth's a closure lets the small
        scales take too much. Right: distribution of the vorticity's values. The table has the distances from the truth,
        beside those of two true ensembles.""",
}
STEPS_WITHOUT_LAW = """Left: the error against the truth. Middle: spread and CRPS of the samples in the closure's unit; the
    law of this problem is unknown, so there is no exact value to compare them with. Right: what one sample costs."""
"""Caption of `sampler_steps` where the law of the closure is unknown."""


@drawing.png
def training_curves(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss against step, one panel a phase; `phases` maps a name to its records in order of step."""
    columns = min(3, len(phases))
    rows = math.ceil(len(phases) / columns)
    figure, panels = drawing.panels(rows, columns, (WIDTH, 3.1 * rows))
    for axes in panels.flat[len(phases) :]:
        axes.remove()
    for axes, (name, records) in zip(panels.flat, phases.items(), strict=False):
        # of an autoencoder validation is the error of reconstruction alone, without the latent's term
        shown = "reconstruction" if any("reconstruction" in record for record in records) else "loss"
        label = "loss" if shown == "loss" else "squared error of reconstruction"
        drawing.label(axes, "training step", label, name.replace("_", " "), y_scale="log")
        step = [record["step"] for record in records]
        loss = np.array([record.get(shown) for record in records], dtype=float)
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
        label="model, " + steps_text(int(arrays["a_priori_steps"])),
        **MODEL,
    )
    drawing.plot(noise, shells, arrays.get("noise_spectrum_exact"), label="exact", **TRUTH)
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
def a_priori_times(arrays: Arrays) -> Figure:
    """Error of the mean of samples and their deviation at each state's time, and means over spans of time."""
    figure, ((error, spread),) = drawing.panels(1, 2, (WIDTH, 3.3))
    time = arrays["state_time"]
    drawing.label(error, "time", "relative to the norm of H", "error of the mean of samples", y_scale="log")
    drawing.label(spread, "time", "standard deviation (1/time²)", "spread of the samples")
    count = steps_text(int(arrays["a_priori_steps"]))
    _points_and_means(error, time, arrays["state_error"], f"model, {count}", MODEL)
    _points_and_means(error, time, arrays.get("state_floor"), "exact mean", TRUTH)
    _points_and_means(spread, time, arrays["state_spread"], f"model, {count}", MODEL)
    if "noise_standard_deviation" in arrays:
        spread.axhline(float(arrays["noise_standard_deviation"]), label="exact", **REFERENCE)
    spread.set_ylim(bottom=0)
    for axes in (error, spread):
        drawing.legend(axes)
    return figure


def _points_and_means(
    axes: Axes, time: np.ndarray, values: np.ndarray | None, name: str, style: Mapping[str, Any]
) -> None:
    """A pale point for each state, and a line through the means over spans of time."""
    if values is None:
        return
    count = max(1, min(_SPANS, len(time) // 4))
    edges = np.linspace(time.min(), np.nextafter(time.max(), np.inf), count + 1)
    spans = [(time >= low) & (time < high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    means = [float(values[span].mean()) if span.any() else math.nan for span in spans]
    drawing.plot(axes, time, values, color=style["color"], marker=".", linestyle="", alpha=0.35, markersize=4)
    drawing.plot(axes, 0.5 * (edges[:-1] + edges[1:]), means, label=name, **style)


_SPANS = 10


@drawing.png
def sampler_steps(by_steps: Mapping[int, Mapping[str, float | None]], floor: float | None) -> Figure:
    """Error, spread and CRPS, and cost against the number of sampler steps.

    Spread and CRPS are ratios to the exact law; without it (no ratio is known) they are shown in the closure's unit.
    """
    figure, ((error, ratio, cost),) = drawing.panels(1, 3, (WIDTH, 3.3))
    steps = list(by_steps)
    known = law_known(by_steps)
    drawing.label(error, "sampler steps", "relative to the norm of H", "error of the mean of samples", "log", "log")
    unit = "ratio to the exact law" if known else "1/time²"
    drawing.label(ratio, "sampler steps", unit, "spread and CRPS", "log")
    drawing.label(cost, "sampler steps", "milliseconds per sample", "cost", "log", "log")
    for axes, key, style in (
        (error, "relative_error", {"label": "against the truth", **MODEL}),
        (error, "excess_error", {"label": "against the exact mean", **NO_CLOSURE}),
        (ratio, "spread_ratio" if known else "spread", {"label": "spread", **MODEL}),
        (ratio, "crps_ratio" if known else "crps", {"label": "CRPS", **NO_CLOSURE}),
        (cost, "milliseconds_per_sample", {"label": "model", **MODEL}),
    ):
        drawing.plot(axes, steps, [by_steps[step].get(key) for step in steps], **style)
    if floor is not None and math.isfinite(floor) and floor > 0:
        error.axhline(floor, label="floor", **REFERENCE)
    if known:
        ratio.axhline(1, label="exact", **REFERENCE)
        ratio.set_ylim(0, max(1.2, ratio.get_ylim()[1]))
    for axes in (error, ratio, cost):
        axes.set_xticks(steps, labels=[str(step) for step in steps])
        axes.xaxis.set_minor_locator(NullLocator())
        drawing.legend(axes)
    return figure


def law_known(by_steps: Mapping[int, Mapping[str, float | None]]) -> bool:
    """Whether some measure against the exact law of the closure is known."""
    ratios = ("over_floor", "excess_error", "spread_ratio", "crps_ratio")
    return any(values.get(key) is not None for values in by_steps.values() for key in ratios)


@drawing.png
def rollout_scores(results: Mapping[str, Any], arrays: Arrays) -> Figure:
    """Relative error, ensemble spread and CRPS over time of the model and of each baseline.

    Args:
      results: results.json, of which `a_posteriori` is drawn.
      arrays: for `start_time`.
    """
    scores = results.get("a_posteriori") or {}
    figure, ((error, spread, crps),) = drawing.panels(1, 3, (WIDTH, 3.3), sharex=True)
    time, x = scores.get("time"), f"time since the start at t = {float(arrays['start_time']):g}"
    drawing.label(error, x, "relative error of the vorticity", "error of the ensemble mean", y_scale="log")
    drawing.label(spread, x, "standard deviation (1/time)", "ensemble spread")
    drawing.label(crps, x, "CRPS of the vorticity (1/time)", "CRPS", y_scale="log")
    drawing.plot(spread, time, scores.get("spread_truth"), label="truth", **TRUTH)
    if time and scores.get("crps_floor"):
        drawing.plot(crps, time[1:], scores["crps_floor"][1:], label="a second true ensemble", **REFERENCE)
    if time and scores.get("relative_error_floor"):
        drawing.plot(error, time[1:], scores["relative_error_floor"][1:], label="a second true ensemble", **REFERENCE)
    others = baselines(results)
    styles = baseline_styles(others)
    for name, measures, style in (
        ("model", scores, MODEL),
        *((name, measures, styles[name]) for name, measures in others.items()),
    ):
        # All start at the same state: the first value is rounding, and off any log scale.
        for axes, key, first in ((error, "relative_error", 1), (spread, "spread", 0), (crps, "crps", 1)):
            if time and any(measures.get(key) or ()):  # without noise there is no spread to draw
                drawing.plot(axes, time[first:], measures[key][first:], label=name, **style)
    spread.set_ylim(bottom=0)
    drawing.legend_below(figure, (error, spread, crps))
    return figure


def _compare(axes: Axes, x: np.ndarray, arrays: Arrays, quantity: str, j: int) -> None:
    """Truth, model and, where it was run, no closure of one quantity.

    Args:
      axes: where it is drawn.
      x: (m,) abscissa.
      arrays: with (times, m) arrays `quantity_truth`, `quantity_model`, `quantity_no_closure`.
      quantity: `energy`, `enstrophy` or `pdf`.
      j: number of the recorded time.
    """
    for name, style in (("truth", TRUTH), ("model", MODEL)):
        drawing.plot(axes, x, arrays[f"{quantity}_{name}"][j], label=name, **style)
    if f"{quantity}_no_closure" in arrays:
        drawing.plot(axes, x, arrays[f"{quantity}_no_closure"][j], label="no closure", **NO_CLOSURE)


@drawing.png
def rollout_spectra(arrays: Arrays) -> Figure:
    """Energy and enstrophy by shell of wavenumber (rows) at the recorded times (columns)."""
    times = arrays["field_time"]
    figure, panels = drawing.panels(2, len(times), (WIDTH, 6.2), sharex=True, sharey="row")
    shells = np.arange(arrays["energy_truth"].shape[-1])
    rows = (("energy", "energy in shell (length²/time²)"), ("enstrophy", "enstrophy in shell (1/time²)"))
    for row, (quantity, label) in zip(panels, rows, strict=True):
        for j, axes in enumerate(row):
            title = clock(arrays, times[j]) if quantity == "energy" else ""
            x = drawing.WAVENUMBER if quantity == "enstrophy" else ""
            drawing.label(axes, x, label if j == 0 else "", title, "log", "log")
            _compare(axes, shells, arrays, quantity, j)
            drawing.slope(axes, shells, arrays[f"{quantity}_truth"][j], drawing.SLOPES[quantity])
        drawing.cut_decades(row, 10)
    drawing.wavenumber_ticks(panels[0, 0], len(shells))
    drawing.legend(panels[0, 0], loc="lower left")
    return figure


@drawing.png
def rollout_statistics(arrays: Arrays, names: Sequence[str]) -> Figure:
    """Spectrum and flux of enstrophy and density of vorticity over the whole rollout, of truth, model and baselines.

    Args:
      arrays: `mean_enstrophy_NAME`, `mean_flux_NAME`, `mean_density_NAME`, and `mean_density_vorticity`.
      names: of the baselines, as tables have them.
    """
    figure, ((spectrum, flux, density),) = drawing.panels(1, 3, (WIDTH, 4.2))
    drawing.label(spectrum, drawing.WAVENUMBER, "enstrophy in shell (1/time²)", "enstrophy", "log", "log")
    drawing.label(flux, drawing.WAVENUMBER, "enstrophy per time (1/time³)", "flux by resolved advection", "log")
    drawing.label(density, "vorticity w (1/time)", "probability density (time)", "vorticity", y_scale="log")
    shells = np.arange(len(arrays["mean_enstrophy_truth"]))
    shown = {"truth": TRUTH, **baseline_styles(names), "model": MODEL}
    for name, style in shown.items():
        key = name.replace(" ", "_")
        if f"mean_enstrophy_{key}" not in arrays:
            continue
        drawing.plot(spectrum, shells, arrays[f"mean_enstrophy_{key}"], label=name, **style)
        drawing.plot(flux, shells, arrays[f"mean_flux_{key}"], label=name, **style)
        drawing.plot(density, arrays["mean_density_vorticity"], arrays[f"mean_density_{key}"], label=name, **style)
    drawing.slope(spectrum, shells, arrays["mean_enstrophy_truth"], drawing.SLOPES["enstrophy"])
    drawing.cut_decades([spectrum], 6)
    drawing.cut_decades([density], 6)
    for axes in (spectrum, flux):
        drawing.wavenumber_ticks(axes, len(shells))
    drawing.legend_below(figure, (spectrum, flux, density))
    return figure


@drawing.png
def rollout_pdf(arrays: Arrays) -> Figure:
    """Probability density of the vorticity at the recorded times."""
    times = arrays["field_time"]
    figure, (row,) = drawing.panels(1, len(times), (WIDTH, 3.3), sharex=True, sharey=True)
    for j, axes in enumerate(row):
        y = "probability density (time)" if j == 0 else ""
        drawing.label(axes, "vorticity w (1/time)", y, clock(arrays, times[j]), y_scale="log")
        _compare(axes, arrays["pdf_vorticity"], arrays, "pdf", j)
    drawing.cut_decades(row, 5)
    drawing.legend(row[0], loc="lower center")
    return figure
