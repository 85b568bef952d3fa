"""The coupled solver of several models: a table with the truth and the baselines, and figures, each as the bytes of a PNG."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from closure_jax.evaluation.measures import OF_STATISTICS
from closure_jax.pages import drawing
from closure_jax.pages.comparison import style
from closure_jax.pages.comparison.estimates import Estimate, interval, mean_curve
from closure_jax.pages.comparison.runs import Model, Run
from closure_jax.pages.comparison.tables import Cell
from closure_jax.pages.results import baselines, coupling_rule, look_up, member_milliseconds, number
from closure_jax.pages.tables import Table

CAPTIONS = {
    "rollout": """The coupled solver over time: error of the ensemble mean against the true ensemble's, and ensemble spread
        over the true one, where that is known by the law of the closure, else over the error; 1 is perfect. A sample held
        unscaled over several time steps makes the spread too wide. Of many baselines the solver alone and four of those
        that stay finite have a line, which err least at first; the table has them all.""",
    "energy_spectra": """Kinetic energy by shell of wavenumber at the rollout's last time, up to ten decades under the
        peak, and dotted the slope of a constant flux of enstrophy to small scales; right: over the truth.""",
}
"""How to read each figure, by name."""

_MOST_BASELINES = 5  # lines in a figure


def rollout_table(models: Sequence[Model]) -> Table:
    """Models, the truth and the baselines in the solver: errors at three times, spread and CRPS at the end, cost.

    What does not depend on a model, the truth and the baselines, has one row for each preset, number of members and length.
    """
    rows = _rows(models, _rollout_cells)
    head = (
        "in the solver",
        "time units",
        *("error at the first time", "in the middle", "at the end"),
        *("spread at the end", "CRPS at the end", "finite fraction", "ms per member and time unit"),
    )
    coupled = (run for model in models for run in model.runs if look_up(run.results, "a_posteriori"))
    rules = dict.fromkeys(coupling_rule(run.results, run.config) for run in coupled)
    intro = (
        "The closures beside the truth and what else was run in the solver from the same starts; “no closure” is the solver "
        "alone; the error of the truth is that of a second true ensemble. Error of the ensemble mean relative to the true one, "
        "spread and CRPS of the vorticity in 1/time."
        + (f" Rule for the closure's noise in time: {', '.join(rules)}." if rules else "")
    )
    return Table(head, rows, intro=intro)


def statistics_table(models: Sequence[Model]) -> Table:
    """Models, a second truth and the baselines over the whole rollout, and their errors at its first times."""
    lengths = [len(look_up(run.results, "a_posteriori", "time") or []) for model in models for run in model.runs]
    leads = [lead for lead in (1, 2, 4) if lead < max(lengths, default=0)]
    rows = [
        row
        for row in _rows(models, lambda model, of: _statistics_cells(model, of, leads))
        if any(cell is not None for cell in row[1:])
    ]
    times = dict.fromkeys(
        number(run.results, "a_posteriori", "time", lead) for model in models for run in model.runs for lead in leads
    )
    at = [f"{time:g}" for time in times if time is not None][: len(leads)]
    head = ("in the solver", "spectrum error", "flux error", "tail error", "stable runs")
    head += tuple(f"error at {time}" for time in at) + tuple(f"spread / error at {time}" for time in at)
    intro = (
        "Over all times of the rollout: root mean square log ratio of the enstrophy spectra over shells from 1 to n / 3, largest "
        "difference of the resolved enstrophy fluxes over the largest flux, log ratio of the densities of vorticity where the "
        "truth's falls to 1e-4; share of long runs that stay finite; error of the ensemble mean relative to the true one, and "
        "the ensemble's spread over it, at the first times. The truth is a second true ensemble."
    )
    return Table(head, rows, intro=intro)


def _statistics_cells(model: Model, measures: Callable[[Run], Any], leads: Sequence[int]) -> list[Estimate | None]:
    """Cells of `statistics_table` after the name."""
    overall = [("spectrum_error",), ("enstrophy_flux_error",), ("tail_error",), ("stable_fraction",)]
    paths = [*overall, *(("relative_error", lead) for lead in leads), *(("spread_over_error", lead) for lead in leads)]
    return [interval([number(measures(run), *path) for run in model.runs]) for path in paths]


def _rows(
    models: Sequence[Model], cells_of: Callable[[Model, Callable[[Run], Any]], Sequence[Cell]]
) -> list[Sequence[Cell]]:
    """A row for each model that has a rollout; then for the truth and the baselines, once for each preset, number of members and
    length of rollouts, from the first model that has them.

    `cells_of(model, measures)` gives the cells after the name, `measures` the measures of one closure in a run's rollout.
    """
    coupled = [model for model in models if any(look_up(run.results, "a_posteriori") for run in model.runs)]
    label = _circumstances(coupled)
    rows: list[Sequence[Cell]] = []
    for preset in dict.fromkeys(model.preset for model in coupled):
        others: dict[str, Sequence[Cell]] = {}
        for model in (model for model in coupled if model.preset == preset):
            rows.append((model.name, *cells_of(model, lambda run: look_up(run.results, "a_posteriori"))))
            others.setdefault("truth" + label(model), cells_of(model, _truth))
            for name in dict.fromkeys(name for run in model.runs for name in baselines(run.results)):
                cells = cells_of(model, lambda run, name=name: baselines(run.results).get(name))
                others.setdefault(name + label(model), cells)
        rows += [(name, *cells) for name, cells in others.items() if any(cell is not None for cell in cells)]
    return rows


def _circumstances(models: Sequence[Model]) -> Callable[[Model], str]:
    """What the truth and the baselines of a model depend on, as far as these models differ in it."""

    def of(model: Model) -> tuple[str, ...]:
        rollout = next(found for run in model.runs if (found := look_up(run.results, "a_posteriori")))
        members, last = number(rollout, "members_truth") or number(rollout, "members"), number(rollout, "time", -1)
        return (
            model.preset,
            "" if members is None else f"{members:g} members",
            "" if last is None else f"{last:g} time units",
        )

    found = [of(model) for model in models]
    differ = [len(set(values)) > 1 for values in zip(*found, strict=True)]

    def label(model: Model) -> str:
        return "".join(f", {text}" for text, shown in zip(of(model), differ, strict=True) if shown and text)

    return label


def _truth(run: Run) -> dict[str, Any]:
    """The true ensemble's measures, under the names of a model's."""
    rollout = look_up(run.results, "a_posteriori") or {}
    return {
        # of a second true ensemble
        **{name: rollout.get(f"{name}_floor") for name in ("relative_error", "crps", *OF_STATISTICS)},
        "spread": rollout.get("spread_truth"),
        "seconds_per_time_unit": rollout.get("seconds_per_time_unit_truth"),
        "members": rollout.get("members_truth"),
    }


def _rollout_cells(model: Model, measures: Callable[[Run], Any]) -> list[Estimate | None]:
    """Cells of `rollout_table` after the name."""

    def estimate(*path: str | int) -> Estimate | None:
        return interval([number(measures(run), *path) for run in model.runs])

    time = look_up(model.runs[0].results, "a_posteriori", "time") or []
    places = [1, _middle(time), -1] if len(time) > 1 else []
    errors = [estimate("relative_error", place) for place in places] or [None] * 3
    cost = interval(
        [
            member_milliseconds(
                run.results,
                number(measures(run), "seconds_per_time_unit"),
                number(measures(run), "members"),
            )
            for run in model.runs
        ]
    )
    length = interval([number(run.results, "a_posteriori", "time", -1) for run in model.runs])
    return [length, *errors, estimate("spread", -1), estimate("crps", -1), estimate("finite_fraction"), cost]


def _middle(time: Sequence[Any]) -> int:
    """Place of the middle of a rollout, by time: a summary has some of its times alone; the later of two as near."""
    if not all(isinstance(one, int | float) for one in time):
        return len(time) // 2
    return min(reversed(range(len(time))), key=lambda place: abs(time[place] - time[-1] / 2))


@style.small_png
def rollout(models: Sequence[Model]) -> Figure:
    """Relative error and spread of the coupled ensemble against time, with baselines; the spread over the true one in the
    paper's problem, over the error where the true ensemble is not of a known law."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models) + 1))
    styles, x = style.model_styles(models), "time since the start"
    drawing.label(panels[0], x, "relative error of the vorticity", "error of the ensemble mean", y_scale="log")
    known = any(model.of_paper for model in models)
    drawing.label(panels[1], x, "ratio to the true one" if known else "ratio to the error", "ensemble spread")
    for place, model in enumerate(models):
        time, error = (_after_start(model.curve("a_posteriori", name)) for name in ("time", "relative_error"))
        ratio = _spread_ratio(model) if known else _after_start(model.curve("a_posteriori", "spread_over_error"))
        line = style.sparse(styles[model.name], len(time), place)
        if time.shape == error.shape:
            drawing.plot(panels[0], time, error, label=model.name, **line)
        if time.shape == ratio.shape:
            drawing.plot(panels[1], time, ratio, label=model.name, **line)
    _baseline_errors(panels[0], models)
    panels[1].axhline(1, **style.REFERENCE)
    panels[1].set_ylim(0, min(5, panels[1].get_ylim()[1]))
    drawing.mark_outside(panels[1])
    style.legend_beside(figure, panels)
    return figure


def _spread_ratio(model: Model) -> np.ndarray:
    """Spread over that of the true ensemble, after the start; empty where either is missing."""
    spread, truth = (_after_start(model.curve("a_posteriori", name)) for name in ("spread", "spread_truth"))
    if spread.shape != truth.shape:
        return np.zeros(0)
    return np.divide(spread, truth, out=np.full_like(spread, np.nan), where=truth > 0)


def _after_start(curve: np.ndarray) -> np.ndarray:
    """A curve over time without its start, where all are one state: the error is rounding, and the spread zero."""
    return curve[1:]


def _baseline_errors(axes: Axes, models: Sequence[Model]) -> None:
    """Error of each baseline over time, once a preset: it does not depend on the model, and has the line of its name."""
    curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for model in models:
        for name in dict.fromkeys(name for run in model.runs for name in baselines(run.results)):
            lists = [look_up(baselines(run.results).get(name), "relative_error") for run in model.runs]
            found = [np.array(values, dtype=float) for values in lists if isinstance(values, list)]
            error, time = _after_start(mean_curve(found)), _after_start(model.curve("a_posteriori", "time"))
            if time.shape == error.shape and time.size:
                curves.setdefault((name, model.preset), (time, error))
    names = list(dict.fromkeys(name for name, _ in curves))
    if len(names) > _MOST_BASELINES:
        whole = {name: error for (name, _), (_, error) in reversed(curves.items()) if np.isfinite(error).all()}
        best = sorted((name for name in names[1:] if name in whole), key=lambda name: whole[name][0])
        best = best[: _MOST_BASELINES - 1]
        names = [name for name in names if name == names[0] or name in best]
    labelled: set[str] = set()
    for (name, _), (time, error) in curves.items():
        if name in names:
            label = {} if name in labelled else {"label": name}
            labelled.add(name)
            drawing.plot(axes, time, error, **label, **style.baseline(names.index(name)))


@style.small_png
def energy_spectra(models: Sequence[Model]) -> Figure:
    """Energy by shell of wavenumber at the rollout's last time, of those that end with the first; of all over their truth."""
    figure, (panels,) = drawing.panels(1, 2, style.size_beside_legend(len(models) + 2))
    shown, styles = 3, style.model_styles(models)
    last = [model for model in models if energy_at_end(model, "model") is not None]
    end = _end(last[0])
    heading = "energy" if end is None else f"energy after {end:g} time units"
    drawing.label(panels[0], drawing.WAVENUMBER, "energy in shell (length²/time²)", heading, "log", "log")
    drawing.label(
        panels[1], drawing.WAVENUMBER, "ratio to the true one", "energy at the end over the truth", "log", "log"
    )
    curves = [(model.name, model, "model", styles[model.name]) for model in last]
    for place, (name, model, which, line) in enumerate(
        [*curves, ("no closure", last[0], "no_closure", style.NO_CLOSURE)]
    ):
        energy, truth = energy_at_end(model, which), energy_at_end(model, "truth")
        if energy is None or truth is None or energy.shape != truth.shape:
            continue
        ratio = style.shell_ratio(energy, truth, 1e-10)
        if place == 0:
            drawing.plot(panels[0], np.arange(len(truth)), truth, label="truth", **style.TRUTH)
            drawing.slope(panels[0], np.arange(len(truth)), truth, drawing.SLOPES["energy"])
        shown = max(shown, len(ratio))
        line = style.sparse(line, len(ratio), place) if which == "model" else line
        if _end(model) == end:
            drawing.plot(panels[0], np.arange(len(ratio)), energy[: len(ratio)], label=name, **line)
        drawing.plot(panels[1], np.arange(len(ratio)), ratio, label=name, **line)
    drawing.cut_decades([panels[0]], 10)
    panels[1].axhline(1, **style.REFERENCE)
    low, high = panels[1].get_ylim()
    panels[1].set_ylim(max(low, 0.05), min(high, 20))
    drawing.mark_outside(panels[1])
    for axes in panels:
        drawing.wavenumber_ticks(axes, shown)
    style.legend_beside(figure, panels)
    return figure


def _end(model: Model) -> float | None:
    """The rollout's last time."""
    time = model.curve("a_posteriori", "time")
    return float(time[-1]) if time.size else None


def energy_at_end(model: Model, which: str) -> np.ndarray | None:
    """Energy spectrum at the rollout's last time, None where the runs have none."""
    spectra = model.array(f"energy_{which}")
    return spectra[-1] if spectra.ndim == 2 else None
