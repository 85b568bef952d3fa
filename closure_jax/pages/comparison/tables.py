"""The tables of a comparison that have a row for each model, and their form as CSV."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from closure_jax import config as config_lib
from closure_jax.errors import UserError
from closure_jax.pages.comparison.estimates import Estimate
from closure_jax.pages.comparison.runs import Model, Run
from closure_jax.pages.results import baselines, flat, look_up, number, setting
from closure_jax.pages.tables import Table, duration, value_text

Cell = Estimate | str | int | None


def _last_spread_ratio(run: Run) -> float | None:
    spread = number(run.results, "a_posteriori", "spread", -1)
    truth = number(run.results, "a_posteriori", "spread_truth", -1)
    return spread / truth if spread is not None and truth else None


_NOT_TRAINING = ("data", "a_priori", "latent_geometry", "a_posteriori", "report")


def _member_milliseconds(key: str) -> Callable[[Model], Estimate | None]:
    """Wall time of a rollout by member and time unit, since ensembles differ in size."""

    def measure(run: Run) -> float | None:
        seconds, states, members = (number(run.results, "a_posteriori", name) for name in (key, "states", "members"))
        return seconds / (states * members) * 1e3 if seconds is not None and states and members else None

    return lambda model: model.derived(measure)


def _training_seconds(run: Run) -> float | None:
    """Wall time of all phases but the simulation of data and the evaluation; phases of other runs are not in it."""
    seconds = look_up(run.results, "wall_seconds") or {}
    parts = [number(seconds, phase) for phase in seconds if phase not in _NOT_TRAINING]
    return sum(part for part in parts if part is not None) or None


def _mean_duration(model: Model) -> str | None:
    seconds = model.derived(_training_seconds)
    return duration(seconds.mean) if seconds else None


def _each(model: Model, *keys: str) -> str | None:
    """Different values of a text over the seeds."""
    texts = [look_up(run.results, *keys) for run in model.runs]
    return ", ".join(dict.fromkeys(str(text) for text in texts if text is not None)) or None


def _experiment_now(name: str, preset: str) -> dict[str, Any]:
    """Fields of an experiment of the folder experiments/ as its file has them now; empty where there is none that loads."""
    try:
        files = [file for file in config_lib.experiments() if file.stem == name]
        return flat(config_lib.to_dict(config_lib.load(f"{files[0]}:{preset}"))) if files else {}
    except UserError:
        return {}


def _command(model: Model) -> str:
    """The experiment's command, with the fields that are not as its file has them now."""
    stored = model.runs[0].config
    known = _experiment_now(str(model.setting("experiment")), model.preset)
    given = ("seed", "experiment", "experiment_file", "preset")
    fields = {field: setting(stored, field) for field in known if field not in given}
    changes = [
        f" --config.{field}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for field, value in fields.items()
        if value is not None and known[field] != value
    ]
    return f"./launch.sh experiments/{model.setting('experiment')}.py:{model.preset}" + "".join(changes)


Column = tuple[str, Callable[[Model], Cell]]


def _result(*keys: str | int) -> Callable[[Model], Cell]:
    return lambda model: model.estimate(*keys)


def _alone(model: Model) -> Estimate | None:
    """Error of the solver alone at the last time."""
    return model.derived(lambda run: number(baselines(run.results), "no closure", "relative_error", -1))


def _statistic_alone(model: Model) -> Estimate | None:
    """Error of the spectrum of the solver alone."""
    return model.derived(lambda run: number(baselines(run.results), "no closure", "spectrum_error"))


def _at(steps: int | None, *measure: str) -> Callable[[Model], Cell]:
    """A measure at a number of sampler steps; None: at the best number."""
    return lambda model: model.at(steps or model.best_steps, *measure)


_COLUMNS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "A priori": (
        "The closure sampled for single states. Best: the number of sampler steps with the least CRPS on these same states, of "
        "runs without one with the least error. Error / floor, spread and CRPS are ratios to the exact law, 1 is perfect; the "
        "excess error is that against the exact mean; all four are dashes where nobody knows the law of the closure. Coverage "
        "of the central interval that should hold 90 %, and spread over the error of the mean, 1 is perfect, need draws of the "
        "truth alone.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("best steps", lambda model: model.best_steps),
            ("error / floor at 1 step", _at(1, "over_floor")),
            ("at 10 steps", _at(10, "over_floor")),
            ("at best", _at(None, "over_floor")),
            ("excess error at best", _at(None, "excess_error")),
            ("spread ratio at 1 step", _at(1, "spread_ratio")),
            ("spread ratio at best", _at(None, "spread_ratio")),
            ("CRPS / exact at 1 step", _at(1, "crps_ratio")),
            ("CRPS / exact at best", _at(None, "crps_ratio")),
            ("coverage of 90 % at best", _at(None, "coverage", "90")),
            ("spread / error at best", _at(None, "spread_over_error")),
        ),
    ),
    "Cost": (
        "Milliseconds per sample, in a batch, at the best number of sampler steps, and split into encoding the condition, "
        "sampling, and decoding; the coupled rollout, and the true ensemble, which runs of the same data share and time once. "
        "Training counts the phases that the runs trained themselves, not autoencoders taken over from another experiment. "
        "Times of different devices do not compare, and those of a busy machine scatter.",
        (
            ("best steps", lambda model: model.best_steps),
            ("ms per sample", _at(None, "milliseconds_per_sample")),
            ("encode", _result("a_priori", "milliseconds", "encode")),
            ("sample", _at(None, "milliseconds_sampling")),
            ("decode", _result("a_priori", "milliseconds", "decode")),
            ("ms per sample at 1 step", _at(1, "milliseconds_per_sample")),
            ("rollout, ms per member and time unit", _member_milliseconds("seconds_per_time_unit")),
            ("true system, the same", _member_milliseconds("seconds_per_time_unit_truth")),
            ("training", _mean_duration),
        ),
    ),
    "A posteriori": (
        "The closure inside the solver, at the last time of the rollout: error of the ensemble mean relative to the true "
        "one, that of a second true ensemble, the solver alone, ensemble spread over the true spread and over its own error "
        "(1 is perfect), how many true members the central 90 % of the ensemble hold, share of rollouts without overflow.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("sampler steps", lambda model: look_up(model.runs[0].results, "a_posteriori", "sampler_steps")),
            ("time units", _result("a_posteriori", "time", -1)),
            ("error", _result("a_posteriori", "relative_error", -1)),
            ("a second truth", _result("a_posteriori", "relative_error_floor", -1)),
            ("no closure", _alone),
            ("spread / true spread", lambda model: model.derived(_last_spread_ratio)),
            ("spread / error", _result("a_posteriori", "spread_over_error", -1)),
            ("coverage of 90 %", _result("a_posteriori", "coverage", "90", -1)),
            ("CRPS", _result("a_posteriori", "crps", -1)),
            ("finite fraction", _result("a_posteriori", "finite_fraction")),
        ),
    ),
    "Statistics": (
        "The closure inside the solver, over all times of the rollout: root mean square log ratio of the enstrophy spectra over "
        "shells from 1 to n / 3, and that of two true ensembles; largest difference of the resolved enstrophy fluxes over the "
        "largest flux; log ratio of the densities of vorticity where the truth's falls to 1e-4. A priori: R² and correlation of "
        "the mean of samples with the truth.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("R²", _at(None, "r2")),
            ("correlation", _at(None, "correlation")),
            ("spectrum error", _result("a_posteriori", "spectrum_error")),
            ("of two truths", _result("a_posteriori", "spectrum_error_floor")),
            ("no closure", _statistic_alone),
            ("flux error", _result("a_posteriori", "enstrophy_flux_error")),
            ("tail error", _result("a_posteriori", "tail_error")),
        ),
    ),
    "Provenance": (
        "What the figures come from; the command gives them again, with --config.seed=N for other seeds.",
        (
            ("seeds", lambda model: ", ".join(str(setting(run.config, "seed")) for run in model.runs)),
            ("trained at revision", lambda model: _each(model, "trained_revision") or _each(model, "revision")),
            ("judged at revision", lambda model: _each(model, "revision")),
            ("device", lambda model: _each(model, "device")),
            ("command", _command),
        ),
    ),
}
_TEXT_TABLES = ("Provenance",)

MEASURES = {
    "distance_correlation": "1 - distance correlation",
    "distance_rank_correlation": "1 - rank correlation",
    "distance_ratio_spread": "distance ratio spread",
    "condition_number": "condition number",
    "distortion": "distortion",
    "trustworthiness": "1 - trustworthiness",
    "continuity": "1 - continuity",
}
"""Measures of latent_geometry by field, and what tables and figures call them; see `geometry`."""
NEAR_ONE = ("distance_correlation", "distance_rank_correlation", "trustworthiness", "continuity")
"""Those that are 1 for a perfect space, and so near it that only their distance from 1 can be read."""
TOPOLOGY = {"bottleneck_h0": "bottleneck H0", "bottleneck_h1": "bottleneck H1"}
"""Measures of latent_geometry.topology by field."""


def model_tables(models: Sequence[Model]) -> dict[str, Table]:
    """The tables that have a row for each model, by title."""
    tables = {}
    for title, (intro, columns) in _COLUMNS.items():
        head = ("model", *(heading for heading, _ in columns))
        rows = [(model.name, *(get(model) for _, get in columns)) for model in models]
        tables[title] = Table(head, rows, len(columns) if title in _TEXT_TABLES else 0, intro)
    return tables


def geometry(model: Model, *keys: str) -> Estimate | None:
    """A measure of latent_geometry as it is shown: its distance from 1 where that is what can be read."""
    found = model.estimate("latent_geometry", *keys)
    return dataclasses.replace(found, mean=1 - found.mean) if found and keys[-1] in NEAR_ONE else found


def measured(table: Table) -> Table:
    """The table without rows of models that have nothing in it beside their number of seeds."""
    rows = [row for row in table.rows if any(cell is not None for cell in row[2:])]
    return Table(table.head, rows, table.notes, table.intro)


def latent_table(models: Sequence[Model]) -> Table:
    """Reconstruction and geometry of the latent spaces: a row for each model and field."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        for field, short in (("vorticity", "w"), ("closure", "H")):
            cells = [model.estimate("autoencoder", field, "relative_error")]
            cells += [geometry(model, field, measure) for measure in MEASURES]
            cells += [model.estimate("latent_geometry", "topology", field, measure) for measure in TOPOLOGY]
            if field == "closure":
                cells.append(model.estimate("latent_geometry", "conditional_smoothness"))
                cells.append(model.estimate("a_priori", "path", "straightness"))
            else:
                cells += [None, None]
            if any(cell is not None for cell in cells):
                rows.append((model.name, short, *cells))
    head = (
        "model",
        "field",
        "reconstruction",
        *MEASURES.values(),
        *TOPOLOGY.values(),
        "conditional smoothness",
        "straightness",
    )
    intro = (
        "What encoding does to a field's geometry. What lacks to 1, the value of a perfect space, of correlations of pairwise "
        "distances, trustworthiness and continuity; the spread of distance ratios and the distortion (deviation of the "
        "decoder's log singular values) are 0 for a space that keeps shapes up to scale; bottleneck distances between "
        "persistence diagrams are 0 where the topology is kept. Conditional smoothness: how far H moves between neighbouring w "
        "in the latent space, over the same in full space; under 1 the map is smoother there. Straightness of the sampler's "
        "path from source to sample: 1 for a straight line, which one Euler step follows; the noise of an SDE counts."
    )
    return Table(head, rows, intro=intro)


def term_table(models: Sequence[Model]) -> Table:
    """What the geometry-aware term did to the latents that were trained with it: a row for each of them and field."""
    columns = {
        "near_far_weight": "weight of near pairs / of far pairs",
        "term_ratio": "term / recon's",
        "term_ratio_best_factor": "the same, best factors",
    }
    rows: list[Sequence[Cell]] = []
    for model in models:
        for field, short in (("vorticity", "w"), ("closure", "H")):
            cells = [model.estimate("autoencoder", field, measure) for measure in columns]
            if any(cell is not None for cell in cells):
                rows.append((model.name, short, *cells))
    intro = (
        "What the geometry-aware term does to the latent that is trained with it: mean weight of pairs of neighbours over that "
        "of far pairs, and the term of this latent over that of the latent of reconstruction alone of the same data and seed, "
        "as they are and each multiplied by the factor that makes its term least. Near 1 the term finds nothing to mend."
    )
    return Table(("model", "field", *columns.values()), rows, intro=intro)


def settings_table(models: Sequence[Model]) -> Table:
    """All a priori measures at every number of sampler steps, and of other schedules where they were measured."""
    measures = {
        "over_floor": "error / floor",
        "excess_error": "excess error",
        "spread_ratio": "spread ratio",
        "noise_spectrum_error": "noise spectrum error",
        "crps_ratio": "CRPS / exact",
        "milliseconds_per_sample": "ms per sample",
    }
    rows: list[Sequence[Cell]] = []
    for model in models:
        for schedule, path in _schedules(model):
            for steps in sorted(int(text) for text in look_up(model.runs[0].results, *path) or {} if text.isdigit()):
                cells = [model.estimate(*path, str(steps), measure) for measure in measures]
                rows.append((model.name + schedule, steps, *cells))
    return Table(("model", "sampler steps", *measures.values()), rows, intro="Every measured setting.")


def _schedules(model: Model) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "", ("a_priori", "by_steps")
    for name in look_up(model.runs[0].results, "a_priori", "by_schedule") or {}:
        yield f", {name} times", ("a_priori", "by_schedule", name)


# --- forms -------------------------------------------------------------------------------------------------------------


def cell_text(cell: Any, seeds: int = 0) -> str:
    """A cell as plain text, with its own number of seeds where that is not the row's."""
    if isinstance(cell, Estimate) and seeds > 1 and cell.count not in (0, seeds):
        return f"{cell} ({cell.count} seed{'s' if cell.count > 1 else ''})"
    return value_text(cell)


def as_text(table: Table) -> Table:
    """The table with its estimates as text."""
    counts = [max((cell.count for cell in row if isinstance(cell, Estimate)), default=0) for row in table.rows]
    rows = [[cell_text(cell, count) for cell in row] for row, count in zip(table.rows, counts, strict=True)]
    return Table(table.head, rows, table.notes, table.intro)


def to_csv(models: Sequence[Model]) -> str:
    """All tables with a row for each model in one: each estimate as mean, half width of its interval, and seeds."""
    tables = model_tables(models)
    head, rows = ["model"], [[model.name] for model in models]
    for title, table in tables.items():
        for place, heading in enumerate(table.head[1:], start=1):
            column = [row[place] for row in table.rows]
            wide = any(isinstance(cell, Estimate) for cell in column)
            name = f"{title}: {heading}"
            head += [name, f"{name}, half width", f"{name}, seeds"] if wide else [name]
            for row, cell in zip(rows, column, strict=True):
                row += _plain(cell) if wide else ["" if cell is None else cell]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *rows])
    return buffer.getvalue()


def _plain(cell: Cell) -> list[Any]:
    if not isinstance(cell, Estimate):
        return ["" if cell is None else cell, "", ""]
    return [cell.mean, "" if cell.half_width is None else cell.half_width, cell.count]
