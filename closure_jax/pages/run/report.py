"""report.html: what a run measured, on one page that opens without a network.

Reads what the run left in its work directory and computes no science of its own. Whatever is missing (null) is shown as
missing.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from closure_jax.pages import page
from closure_jax.pages.run import animation, figures, geometry_figures

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
_NOT_SHOWN = ("spread", "mean_squared_error")  # the same as others, in other units

_CAPTIONS = {
    "training_curves": """Loss of each training phase against its step, log scale. Validation that turns up while
        training still falls means over-fitting; a curve that still falls at its end was stopped early.""",
    "a_priori_fields": """One row a state; x to the right, y upwards, the whole periodic domain. The truth and the
        samples are single draws of one random law and need not agree point by point. The mean of all samples should
        equal the exact mean E[H | w] = −u·∇w; their difference has a finer scale of its own, and the finite number of
        samples adds to it. The spread should be uniform and equal to the exact deviation of the closure, the white
        mark on its scale.""",
    "a_priori_spectra": """Variance of the closure by shell of wavenumber, without k = 0, cut eight decades under the
        peak. Left: the whole field; its large scales are advection. Right: its random part, each sample less the
        mean. A curve under the exact one has too little noise at that scale; a flat or rising tail is white noise of
        the model.""",
    "sampler_steps": """Left: the error against the truth cannot fall below the floor, the error of the exact
        conditional mean; the error against the exact mean is what a better model could still lose. Middle: 1 is
        perfect; a spread under 1 is an over-confident ensemble, as few steps of an ODE sampler give. Right: what one
        sample costs.""",
    "rollout_scores": """The solver coupled to the sampled closure, from the same starts as the truth. Left: error of
        the ensemble mean; “no closure” is the solver alone. Middle: the two ensembles should spread alike; a sample
        held over several time steps makes the model's too wide. Right: lower is better; the dotted line is what a
        Gaussian ensemble with the true spread scores, spread / √π.""",
    "rollout_fields": """Vorticity of one member. One colour scale, set by the truth; beyond it colours are clipped,
        and values that overflowed are grey.""",
    "rollout_spectra": """Kinetic energy and enstrophy by shell of wavenumber, cut ten decades under the peak. A model
        over the truth at high wavenumbers adds noise there; one under it has lost small scales.""",
    "rollout_pdf": """Distribution of the vorticity's values over the domain. On the log scale the tails can be read:
        they are the strongest vortices.""",
    "rollout_animation": """Truth beside one member of the model's ensemble, from the same start. The difference is
        enlarged by the factor in its title and shares the colour scale.""",
    **geometry_figures.CAPTIONS,
}


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a run left: nested mappings, records by phase in order of step, and arrays by name."""

    config: Mapping[str, Any]
    phases: Mapping[str, list[dict[str, Any]]]
    arrays: Mapping[str, np.ndarray]
    results: Mapping[str, Any]


def write_report(directory: pathlib.Path, results: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Writes report.html and figures/ from config.json, metrics.jsonl, arrays.npz and the results of a run.

    Values in the results may be None or absent. A figure whose arrays are absent is left out, and the page says so.

    Args:
      directory: the work directory of a run.
      results: what results.json will hold, for a run that writes that file last; by default the file is read.
    Returns:
      The path of report.html.
    Raises:
      FileNotFoundError: one of the files is missing.
      ValueError: a file cannot be read; the message names the file, and the line of metrics.jsonl.
    """
    run = _read(directory, results)
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    sections = {
        "Summary": _summary(run),
        "Training": _training(run, folder),
        "A priori": _a_priori(run, folder),
        "Latent geometry": _latent_geometry(run, folder),
        "A posteriori": _a_posteriori(run, folder),
        "Configuration": _configuration(run),
        "Wall time": _wall_time(run),
    }
    path = directory / "report.html"
    path.write_text(_page(run, sections), encoding="utf-8")
    return path


def _read(directory: pathlib.Path, results: Mapping[str, Any] | None) -> _Run:
    def load(name: str) -> Any:
        try:
            return json.loads((directory / name).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{directory / name}: not JSON ({error})") from error

    results = load("results.json") if results is None else results
    with np.load(directory / "arrays.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return _Run(load("config.json"), _read_metrics(directory / "metrics.jsonl"), arrays, results)


def _read_metrics(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Records by phase. Of a step repeated by a resumed run the last record counts; a cut-off last line is dropped."""
    phases: dict[str, dict[int, dict[str, Any]]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            phases.setdefault(record["phase"], {})[record["step"]] = record
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a record with phase and step") from error
    return {phase: [records[step] for step in sorted(records)] for phase, records in phases.items()}


def _get(tree: Any, *keys: str) -> Any:
    """The value at a path of keys, None where the path ends early."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _last(values: Sequence | None) -> Any:
    return values[-1] if values else None


def _figure(folder: pathlib.Path, draw: Callable[..., bytes], *args: Any) -> str:
    """Draws a figure, keeps it as a file and returns it embedded in the page; says so where an array is missing."""
    name = draw.__name__
    path = folder / f"{name}.{'gif' if name == 'rollout_animation' else 'png'}"
    try:
        image = draw(*args)
    except KeyError as missing:
        path.unlink(missing_ok=True)
        return f"<p class=missing>{html.escape(f'{name}: left out, arrays.npz has no {missing}')}</p>"
    path.write_bytes(image)
    return page.figure(image, name.replace("_", " "), _CAPTIONS[name])


def _ascending(by_steps: Any) -> dict[int, Mapping[str, float | None]]:
    """Measures by number of sampler steps, from texts to whole numbers, ascending."""
    return {int(steps): by_steps[steps] or {} for steps in sorted(by_steps or {}, key=int)}


def _by_steps(run: _Run) -> dict[int, Mapping[str, float | None]]:
    """The a priori figures by number of sampler steps, ascending."""
    return _ascending(_get(run.results, "a_priori", "by_steps"))


_NOTES = {
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


def _summary(run: _Run) -> str:
    """The key figures, each with a sentence on how to read it."""
    prior, rollout, by_steps = _get(run.results, "a_priori"), _get(run.results, "a_posteriori"), _by_steps(run)
    chosen = [steps for steps in (1, 10) if steps in by_steps] or sorted({*list(by_steps)[:1], *list(by_steps)[-1:]})
    time = _last(_get(rollout, "time"))
    figures_of_run = [
        ("reconstruction error of w", "", _get(run.results, "autoencoder", "vorticity", "relative_error")),
        ("reconstruction error of H", "", _get(run.results, "autoencoder", "closure", "relative_error")),
        ("floor of the a priori error", "", _get(prior, "floor")),
        *[("error / floor", f", {figures.steps_text(n)}", by_steps[n].get("over_floor")) for n in chosen],
        *[("spread ratio", f", {figures.steps_text(n)}", by_steps[n].get("spread_ratio")) for n in chosen],
        (
            "rollout error at the last time",
            "" if time is None else f", {time:g} time units",
            _last(_get(rollout, "relative_error")),
        ),
        ("the same without closure", "", _last(_get(rollout, "relative_error_no_closure"))),
        ("finite fraction", "", _get(rollout, "finite_fraction")),
        ("wall time", "", page.duration(sum(_seconds(run).values()))),
    ]
    rows = [(name + detail, value, _NOTES[name]) for name, detail, value in figures_of_run]
    return page.table(("", "value", "how to read it"), rows, notes=1)


def _training(run: _Run, folder: pathlib.Path) -> str:
    rows = [
        (name, _get(part, "relative_error"), _get(part, "regulariser_weight"))
        for name, part in (_get(run.results, "autoencoder") or {}).items()
    ]
    table = page.table(("autoencoder", "relative error", "effective weight of the regulariser"), rows) if rows else ""
    if not run.phases:
        return table + "<p class=missing>metrics.jsonl holds no training records.</p>"
    return _figure(folder, figures.training_curves, run.phases) + table


def _a_priori(run: _Run, folder: pathlib.Path) -> str:
    results, by_steps = _get(run.results, "a_priori"), _by_steps(run)
    times = [time for time in _get(results, "times") or [] if time is not None]
    span = f" at t = {min(times):g} to {max(times):g}" if times else ""
    intro = (
        f"The closure sampled for {page.text(_get(results, 'states'))} test states{span}, "
        f"{page.text(_get(results, 'samples'))} samples each. Floor, the relative error of the exact conditional mean: "
        f"{page.text(_get(results, 'floor'))}. Excess error: against the exact mean, so without the irreducible part."
    )
    parts = [f"<p>{intro}</p>", _steps_table(by_steps), _parts_of_a_sample(results)]
    for schedule, steps in (_get(results, "by_schedule") or {}).items():
        parts.append(f"<h3>The same with {page.text(schedule)} sampler times</h3>{_steps_table(_ascending(steps))}")
    parts.append(_figure(folder, figures.a_priori_fields, run.arrays))
    parts.append(_figure(folder, figures.a_priori_spectra, run.arrays))
    if by_steps:
        parts.append(_figure(folder, figures.sampler_steps, by_steps, _get(results, "floor")))
    return "".join(parts)


def _steps_table(by_steps: Mapping[int, Mapping[str, float | None]]) -> str:
    """A row for each number of sampler steps; measures that only a fork knows come last, by their own names."""
    found = dict.fromkeys(key for values in by_steps.values() for key in values)
    extra = {key: key.replace("_", " ") for key in found if key not in _STEP_COLUMNS and key not in _NOT_SHOWN}
    columns = {key: label for key, label in _STEP_COLUMNS.items() if key in found or not found} | extra
    rows = [(steps, *(values.get(key) for key in columns)) for steps, values in by_steps.items()]
    return page.table(("sampler steps", *columns.values()), rows)


def _parts_of_a_sample(results: Any) -> str:
    """What encoding and decoding cost, and how the sampler's paths run."""
    cost, path = _get(results, "milliseconds"), _get(results, "path")
    if not cost or not path:
        return ""
    return (
        f"<p>Of a sample's time {page.text(cost.get('encode'))} ms go to encoding the vorticity and "
        f"{page.text(cost.get('decode'))} ms to decoding the closure, whatever the number of steps. From source to sample a "
        f"path of {page.text(path.get('steps'))} steps is {page.text(path.get('length'))} long per entry, for a displacement of "
        f"{page.text(path.get('displacement'))}: straightness {page.text(path.get('straightness'))}, 1 for a straight line; "
        "the noise of an SDE counts as length.</p>"
    )


def _latent_geometry(run: _Run, folder: pathlib.Path) -> str:
    results = _get(run.results, "latent_geometry") or {}
    if "missing" in results:
        return f"<p class=missing>Left out: {page.text(results['missing'])}.</p>"
    intro = (
        f"What the encoders do to the geometry of {page.text(results.get('states'))} test states; neighbourhoods of "
        f"{page.text(results.get('neighbours'))}. Conditional smoothness: {page.text(results.get('conditional_smoothness'))}, "
        "how far H moves between neighbouring w of different trajectories in the latent space, over the same in the full "
        "space; under 1 the map from w to H is smoother there. A similarity scales all distances alike, and no measure "
        "depends on that scale."
    )
    topology, fields = results.get("topology") or {}, ("vorticity", "closure")
    measures = {field: {**(results.get(field) or {}), **(topology.get(field) or {})} for field in fields}
    rows = [
        (name.replace("_", " "), *(measures[field].get(name) for field in fields), note)
        for name, note in geometry_figures.NOTES.items()
        if "missing" not in topology or "_h" not in name
    ]
    parts = [f"<p>{intro}</p>", page.table(("", "w", "H", "how to read it"), rows, notes=1)]
    for draw in (geometry_figures.latent_embedding, geometry_figures.latent_distances):
        parts.append(_figure(folder, draw, run.arrays))
    if "missing" in topology:
        (folder / "persistence_diagrams.png").unlink(missing_ok=True)
        parts.append(f"<p class=missing>persistence_diagrams: left out, {page.text(topology['missing'])}.</p>")
    else:
        parts.append(_figure(folder, geometry_figures.persistence_diagrams, run.arrays))
    return "".join(parts)


def _a_posteriori(run: _Run, folder: pathlib.Path) -> str:
    results, arrays = _get(run.results, "a_posteriori") or {}, run.arrays
    intro = (
        f"The closure inside the solver: {page.text(results.get('states'))} starts with {page.text(results.get('members'))} "
        f"members each, {page.text(results.get('sampler_steps'))} sampler steps, one sample held for "
        f"{page.text(results.get('hold'))} time steps, {page.text(results.get('seconds_per_time_unit'))} s of wall time per "
        f"time unit. Finite fraction: {page.text(results.get('finite_fraction'))}."
    )
    parts = [f"<p>{intro}</p>", _figure(folder, figures.rollout_scores, results, arrays)]
    for draw in (figures.rollout_fields, figures.rollout_spectra, figures.rollout_pdf, animation.rollout_animation):
        parts.append(_figure(folder, draw, arrays))
    return "".join(parts)


def _configuration(run: _Run) -> str:
    text = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    return f"<details><summary>The resolved configuration, all fields</summary><pre>{text}</pre></details>"


def _seconds(run: _Run) -> dict[str, float]:
    return {name: value for name, value in (_get(run.results, "wall_seconds") or {}).items() if value is not None}


def _wall_time(run: _Run) -> str:
    seconds = _seconds(run)
    total = sum(seconds.values())
    rows = [
        (name.replace("_", " "), f"{value:.1f}", page.duration(value), f"{100 * value / (total or 1):.0f} %")
        for name, value in [*seconds.items(), ("total", total)]
    ]
    return page.table(("phase", "seconds", "duration", "share"), rows)


def _page(run: _Run, sections: Mapping[str, str]) -> str:
    facts = {key: _get(run.results, key) for key in ("preset", "revision", "device", "seed")}
    return page.document(page.text(_get(run.results, "experiment")), facts, sections)
