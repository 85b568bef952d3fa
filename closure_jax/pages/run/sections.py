"""The sections of a run's report, as blocks of a page."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from closure_jax import files
from closure_jax.pages.page import Block, Code, Details, Heading, Paragraph, Picture, Section
from closure_jax.pages.results import baselines, coupling_rule, first_middle_last, look_up, number, setting
from closure_jax.pages.run import animation, calibration, fields, figures, geometry_figures
from closure_jax.pages.tables import Table, duration, value_text

_CAPTIONS = fields.CAPTIONS | figures.CAPTIONS | geometry_figures.CAPTIONS | calibration.CAPTIONS | animation.CAPTIONS

_STEP_COLUMNS = {
    "relative_error": "relative error",
    "over_floor": "error / floor",
    "excess_error": "excess error",
    "spread_ratio": "spread ratio",
    "noise_spectrum_error": "noise spectrum error",
    "crps_ratio": "CRPS / exact CRPS",
    "milliseconds_per_sample": "ms per sample",
    "milliseconds_sampling": "of it sampling",
}
_IN_OTHER_UNITS = {
    "spread": ("spread_ratio", "spread"),
    "mean_squared_error": ("relative_error", "MSE"),
    "crps": ("crps_ratio", "CRPS"),
}
"""Measures that say the same as a column of `_STEP_COLUMNS`, which they stand in for where that one is unknown."""

_WITHOUT_LAW = {
    "r2": "R²",
    "correlation": "correlation",
    "transfer_forward": "transfer forward",
    "transfer_back": "transfer back",
}
"""Measures of the field, in columns where the law is unknown."""

_STATISTICS = {
    "spectrum_error": "enstrophy spectrum, log error",
    "enstrophy_flux_error": "enstrophy flux, error",
    "tail_error": "tails of the vorticity, log error",
    "decorrelation_time": "decorrelation time",
    "stable_fraction": "stable runs",
}

_SUMMARY_NOTES = {
    "reconstruction error of w": "What the latent space loses of the state, relative to its norm.",
    "reconstruction error of H": "The same for the closure; noise that the latent space cannot hold counts here.",
    "floor of the a priori error": "Error of the exact conditional mean: irreducible noise, which no model can beat.",
    "error / floor": "Error of the mean of samples over the floor: 1 is perfect.",
    "spread ratio": "Deviation of the samples over the exact one: 1 is perfect, under 1 is over-confident.",
    "rollout error at the last time": "Error of the ensemble mean of w in the coupled solver, relative to its norm.",
    "the same without closure": "What the solver does alone: the model must be far under it.",
    "finite fraction": "Share of the rollouts without overflow: under 1, the coupling is unstable.",
    "wall time": "All phases of the run; by phase at the end of the page.",
}

UNKNOWN_LAW = (
    "Nobody knows the law of the closure of this problem: measures against the exact mean, spread and spectrum are dashes, and"
    " figures leave them out."
)
NO_ROLLOUT = (
    "Left out: results.json has no rollout. The problem has no solver for the closure to run in, or none was asked for."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
      folder: where its figures are kept as files.
      config: config.json, nested.
      phases: records of metrics.jsonl by phase, in order of step.
      arrays: arrays.npz by name.
      results: results.json, nested.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    phases: Mapping[str, list[dict[str, Any]]]
    arrays: Mapping[str, np.ndarray]
    results: Mapping[str, Any]

    def get(self, *keys: str | int) -> Any:
        """The value at a path of keys of the results, None where the path ends early."""
        return look_up(self.results, *keys)

    @property
    def by_steps(self) -> dict[int, Mapping[str, Any]]:
        """The a priori measures by number of sampler steps, ascending."""
        return _ascending(self.get("a_priori", "by_steps"))

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time by phase."""
        return {name: value for name, value in (self.get("wall_seconds") or {}).items() if value is not None}

    def picture(self, draw: Callable[..., bytes], *arguments: Any, caption: str | None = None) -> Block:
        """Draws a figure, keeps it as a file and shows it; says so where an array is missing."""
        name = draw.__name__
        try:
            image = draw(*arguments)
        except KeyError as missing:
            self.leave_out(name)
            return Paragraph(f"{name}: left out, arrays.npz has no {missing}", missing=True)
        files.write(self._file(name), image)
        return Picture(name, image, caption or _CAPTIONS[name])

    def leave_out(self, *names: str) -> None:
        """Removes what an earlier report drew under these names."""
        for name in names:
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.{'gif' if name in animation.CAPTIONS else 'png'}"


def of_run(run: Run) -> list[Section]:
    """All sections of the report, in order; draws the figures and writes them into the run's folder."""
    return [
        Section("Summary", [_summary(run)]),
        Section("Training", _training(run)),
        Section("A priori", _a_priori(run)),
        Section("Latent geometry", _latent_geometry(run)),
        Section("A posteriori", _a_posteriori(run)),
        Section("Calibration", _calibration(run)),
        Section("Configuration", [_configuration(run)]),
        Section("Wall time", [_wall_time(run)]),
    ]


def _ascending(by_steps: Any) -> dict[int, Mapping[str, Any]]:
    """Measures by number of sampler steps, from texts to whole numbers, ascending."""
    return {int(steps): by_steps[steps] or {} for steps in sorted(by_steps or {}, key=int)}


def _summary(run: Run) -> Table:
    """The key figures, each with a sentence on how to read it."""
    by_steps, time = run.by_steps, run.get("a_posteriori", "time", -1)
    chosen = [steps for steps in (1, 10) if steps in by_steps] or sorted({*list(by_steps)[:1], *list(by_steps)[-1:]})
    alone = baselines(run.results).get("no closure")
    found = [
        ("reconstruction error of w", "", run.get("autoencoder", "vorticity", "relative_error")),
        ("reconstruction error of H", "", run.get("autoencoder", "closure", "relative_error")),
        ("floor of the a priori error", "", run.get("a_priori", "floor")),
        *[("error / floor", f", {figures.steps_text(n)}", by_steps[n].get("over_floor")) for n in chosen],
        *[("spread ratio", f", {figures.steps_text(n)}", by_steps[n].get("spread_ratio")) for n in chosen],
        (
            "rollout error at the last time",
            "" if time is None else f", {time:g} time units",
            run.get("a_posteriori", "relative_error", -1),
        ),
        ("the same without closure", "", look_up(alone, "relative_error", -1)),
        ("finite fraction", "", run.get("a_posteriori", "finite_fraction")),
        ("wall time", "", duration(sum(run.seconds.values()))),
    ]
    rows = [(name + detail, value, _SUMMARY_NOTES[name]) for name, detail, value in found]
    return Table(("", "value", "how to read it"), rows, notes=1)


_AUTOENCODER = {"relative_error": "relative error", "regulariser_weight": "effective weight of the regulariser"}
_TERM = {
    "near_far_weight": "weight of near pairs over far ones",
    "term_ratio": "term over that of reconstruction alone",
    "term_ratio_best_factor": "the same at the best factor of each latent",
}
"""Headings of an autoencoder's measures by key; the second where a term has neighbours to work on."""


def _training(run: Run) -> list[Block]:
    parts, columns = run.get("autoencoder") or {}, dict(_AUTOENCODER)
    if any("near_far_weight" in part for part in parts.values()):
        columns |= _TERM
    rows = [(name, *(look_up(part, key) for key in columns)) for name, part in parts.items()]
    table = [Table(("autoencoder", *columns.values()), rows)] if rows else []
    if not run.phases:
        return [*table, Paragraph("metrics.jsonl holds no training records.", missing=True)]
    return [run.picture(figures.training_curves, run.phases), *table]


def _a_priori(run: Run) -> list[Block]:
    results, by_steps = run.get("a_priori") or {}, run.by_steps
    times = [time for time in results.get("times") or [] if time is not None]
    span = f" at t = {min(times):g} to {max(times):g}" if times else ""
    intro = (
        f"The closure sampled for {value_text(results.get('states'))} test states{span}, "
        f"{value_text(results.get('samples'))} samples each. Floor, the relative error of the exact conditional mean: "
        f"{value_text(results.get('floor'))}. Excess error: against the exact mean, so without the irreducible part."
    )
    blocks: list[Block] = [Paragraph(intro)]
    unknown = "a_priori_mean" in run.arrays and "a_priori_exact_mean" not in run.arrays
    if unknown:
        blocks.append(Paragraph(UNKNOWN_LAW))
    blocks.append(_steps_table(by_steps))
    if unknown and number(results, "transfer_forward_truth") is not None:
        blocks.append(
            Paragraph(
                "Enstrophy that the true closure takes where w H is negative (forward) and gives where it is positive (back), per"
                f" time: {value_text(results.get('transfer_forward_truth'))} and"
                f" {value_text(results.get('transfer_back_truth'))}. R² and correlation are those of the mean of the samples."
            )
        )
    blocks += _parts_of_a_sample(results)
    for schedule, steps in (results.get("by_schedule") or {}).items():
        blocks += [Heading(f"The same with {schedule} sampler times"), _steps_table(_ascending(steps))]
    blocks.append(run.picture(fields.a_priori_fields, run.arrays, caption=fields.WITHOUT_LAW if unknown else None))
    blocks.append(run.picture(figures.a_priori_spectra, run.arrays))
    blocks.append(run.picture(figures.a_priori_times, run.arrays))
    if by_steps:
        caption = None if figures.law_known(by_steps) else figures.STEPS_WITHOUT_LAW
        blocks.append(run.picture(figures.sampler_steps, by_steps, results.get("floor"), caption=caption))
    return blocks


def _steps_table(by_steps: Mapping[int, Mapping[str, Any]]) -> Table:
    """A row for each number of sampler steps; measures that only a fork knows come last, by their own names."""
    found = {key for values in by_steps.values() for key, value in values.items() if value is not None}
    columns = dict(_STEP_COLUMNS)
    for key, (instead_of, heading) in _IN_OTHER_UNITS.items():
        if key in found and instead_of not in found:
            columns[key] = heading
    if not figures.law_known(by_steps):
        columns |= {key: heading for key, heading in _WITHOUT_LAW.items() if key in found}
    keys = dict.fromkeys(key for values in by_steps.values() for key in values if number(values, key) is not None)
    shown = (*_STEP_COLUMNS, *_IN_OTHER_UNITS, *_WITHOUT_LAW, *calibration.MEASURES)
    columns |= {key: key.replace("_", " ") for key in keys if key not in shown}
    rows = [(steps, *(values.get(key) for key in columns)) for steps, values in by_steps.items()]
    return Table(("sampler steps", *columns.values()), rows)


def _parts_of_a_sample(results: Mapping[str, Any]) -> list[Block]:
    """What encoding and decoding cost, and how the sampler's paths run."""
    cost, path = results.get("milliseconds"), results.get("path")
    if not cost or not path:
        return []
    return [
        Paragraph(
            f"Of a sample's time {value_text(cost.get('encode'))} ms go to encoding the vorticity and "
            f"{value_text(cost.get('decode'))} ms to decoding the closure, whatever the number of steps. From source to "
            f"sample a path of {value_text(path.get('steps'))} steps is {value_text(path.get('length'))} long per entry, for a "
            f"displacement of {value_text(path.get('displacement'))}: straightness {value_text(path.get('straightness'))}, 1 "
            "for a straight line; the noise of an SDE counts as length."
        )
    ]


def _latent_geometry(run: Run) -> list[Block]:
    results = run.get("latent_geometry") or {}
    if "missing" in results:
        return [Paragraph(f"Left out: {value_text(results['missing'])}.", missing=True)]
    intro = (
        f"What the encoders do to the geometry of {value_text(results.get('states'))} test states; neighbourhoods of "
        f"{value_text(results.get('neighbours'))}. Conditional smoothness: {value_text(results.get('conditional_smoothness'))}, "
        "how far H moves between neighbouring w of different trajectories in the latent space, over the same in the full "
        "space; under 1 the map from w to H is smoother there. A similarity scales all distances alike, and no measure "
        "depends on that scale."
    )
    topology, names = results.get("topology") or {}, ("vorticity", "closure")
    measures = {name: {**(results.get(name) or {}), **(topology.get(name) or {})} for name in names}
    rows = [
        (measure.replace("_", " "), *(measures[name].get(measure) for name in names), note)
        for measure, note in geometry_figures.NOTES.items()
        if "missing" not in topology or "_h" not in measure
    ]
    blocks: list[Block] = [Paragraph(intro), Table(("", "w", "H", "how to read it"), rows, notes=1)]
    blocks.append(run.picture(geometry_figures.latent_embedding, run.arrays))
    blocks.append(run.picture(geometry_figures.latent_distances, run.arrays))
    if "missing" in topology:
        run.leave_out("persistence_diagrams")
        blocks.append(Paragraph(f"persistence_diagrams: left out, {value_text(topology['missing'])}.", missing=True))
    else:
        blocks.append(run.picture(geometry_figures.persistence_diagrams, run.arrays))
    return blocks


_ROLLOUT_FIGURES = (fields.rollout_fields, figures.rollout_spectra, figures.rollout_pdf, animation.rollout_animation)


def _a_posteriori(run: Run) -> list[Block]:
    results = run.get("a_posteriori")
    if not results:
        run.leave_out("rollout_scores", "rollout_statistics", *(draw.__name__ for draw in _ROLLOUT_FIGURES))
        return [Paragraph(NO_ROLLOUT, missing=True)]
    held = results.get("hold") or setting(run.config, "coupling.period")
    intro = (
        f"The closure inside the solver: {value_text(results.get('states'))} starts with {value_text(results.get('members'))} "
        f"members each, {value_text(results.get('sampler_steps'))} sampler steps, a new sample each "
        f"{value_text(held)} time steps by the rule {coupling_rule(run.results, run.config)}, "
        f"{value_text(results.get('seconds_per_time_unit'))} s of wall time per time unit. "
        f"Finite fraction: {value_text(results.get('finite_fraction'))}."
    )
    scores = run.picture(figures.rollout_scores, run.results, run.arrays)
    return [
        Paragraph(intro),
        *_scales_table(run),
        scores,
        _rollout_table(run),
        *_statistics_table(run),
        *(run.picture(draw, run.arrays) for draw in _ROLLOUT_FIGURES),
    ]


_SCALES = {
    "reynolds": "Reynolds number U L / ν",
    "rms_velocity": "U, rms velocity",
    "integral_length": "L, integral length",
    "rms_vorticity": "rms vorticity",
    "turnover_time": "turnover time 2π / rms(w)",
    "largest_velocity": "largest velocity",
    "cfl": "CFL number of it",
}


def _scales_table(run: Run) -> list[Block]:
    """What flow this is, from the true ensembles; nothing where an older run has none."""
    scales = run.get("a_posteriori", "scales_truth")
    if not scales:
        return []
    row = [number(scales, name) for name in _SCALES] + [run.get("a_posteriori", "decorrelation_time_truth")]
    return [Table(("flow", *_SCALES.values(), "decorrelation time"), [("truth", *row)])]


def _rollout_table(run: Run) -> Table:
    """Model, truth and baselines in the solver: errors at three times, and at the last one spread and CRPS."""
    results = run.get("a_posteriori")
    places = first_middle_last(results.get("time"))
    truth = {
        "relative_error": results.get("relative_error_floor"),  # of a second true ensemble
        "spread": results.get("spread_truth"),
        "crps": results.get("crps_floor"),
        "seconds_per_time_unit": results.get("seconds_per_time_unit_truth"),
    }
    rows: list[Sequence[Any]] = []
    for name, measures in (("model", results), ("truth", truth), *baselines(run.results).items()):
        errors = (number(measures, "relative_error", place) for place in places)
        last = (number(measures, key, -1) for key in ("spread", "crps"))
        whole = (number(measures, key) for key in ("finite_fraction", "seconds_per_time_unit"))
        rows.append((name, *errors, *last, *whole))
    times = (f"error at {value_text(number(results, 'time', place))}" for place in places)
    head = ("in the solver", *times, "spread at the end", "CRPS at the end", "finite fraction", "s per time unit")
    return Table(head, rows)


def _statistics_table(run: Run) -> list[Block]:
    """What each ensemble says over the whole rollout, beside two true ones; nothing where an older run has none."""
    results = run.get("a_posteriori")
    if "spectrum_error" not in results:
        run.leave_out("rollout_statistics")
        return []
    floors = {name: results.get(f"{name}_floor") for name in _STATISTICS}
    floors["decorrelation_time"] = results.get("decorrelation_time_truth")
    named = (("model", results), ("two true ensembles", floors), *baselines(run.results).items())
    rows = [(name, *(number(values, key) for key in _STATISTICS)) for name, values in named]
    intro = (
        "Over all times of the rollout: root mean square log ratio of the enstrophy spectra over shells from 1 to n / 3; largest"
        " difference of the resolved enstrophy fluxes there, over the largest flux; log ratio of the densities of w where the"
        " truth's falls to 1e-4; first zero of the autocorrelation in time; share of"
        f" {value_text(look_up(results, 'stability', 'runs'))} runs that are finite after"
        f" {value_text(look_up(results, 'stability', 'turnovers'))} turnover times 2 π / rms(w)."
    )
    picture = run.picture(figures.rollout_statistics, run.arrays, list(baselines(run.results)))
    return [Paragraph(intro), Table(("in the solver", *_STATISTICS.values()), rows), picture]


def _calibration(run: Run) -> list[Block]:
    table = calibration.table(run.by_steps)
    if table is None:
        run.leave_out("calibration")
        return [Paragraph(calibration.NOT_MEASURED, missing=True)]
    return [table, run.picture(calibration.calibration, run.by_steps, run.results)]


def _configuration(run: Run) -> Details:
    text = json.dumps(run.config, indent=2, ensure_ascii=False)
    return Details("The resolved configuration, all fields", [Code(text)])


def _wall_time(run: Run) -> Table:
    seconds = run.seconds
    total = sum(seconds.values())
    rows = [
        (name.replace("_", " "), f"{value:.1f}", duration(value), f"{100 * value / (total or 1):.0f} %")
        for name, value in [*seconds.items(), ("total", total)]
    ]
    return Table(("phase", "seconds", "duration", "share"), rows)
