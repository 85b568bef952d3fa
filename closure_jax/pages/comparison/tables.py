"""The tables of a comparison that have a row for each model, and their form as CSV."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from closure_jax import config as config_lib
from closure_jax.errors import UserError
from closure_jax.evaluation.calibration import is_blunt
from closure_jax.pages.comparison.estimates import Estimate
from closure_jax.pages.comparison.runs import Model, Run
from closure_jax.pages.results import baselines, flat, look_up, member_milliseconds, number, setting
from closure_jax.pages.tables import Table, duration, value_text

Cell = Estimate | str | int | None


def _last_spread_ratio(run: Run) -> float | None:
    spread = number(run.results, "a_posteriori", "spread", -1)
    truth = number(run.results, "a_posteriori", "spread_truth", -1)
    return spread / truth if spread is not None and truth else None


_NOT_TRAINING = ("data", "a_priori", "latent_geometry", "a_posteriori", "report")


def _rollout_cost(key: str) -> Callable[[Model], Estimate | None]:
    """Milliseconds by member and time unit of the rollout whose seconds are a_posteriori.KEY."""
    members = "members_truth" if key.endswith("_truth") else "members"
    return lambda model: model.derived(
        lambda run: member_milliseconds(
            run.results,
            number(run.results, "a_posteriori", key),
            number(run.results, "a_posteriori", members),
        )
    )


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


def _transfer(way: str) -> Callable[[Model], Estimate | None]:
    """Enstrophy that samples carry this way, over the truth's."""

    def ratio(run: Run, steps: int | None) -> float | None:
        found = number(run.results, "a_priori", "by_steps", str(steps), f"transfer_{way}")
        truth = number(run.results, "a_priori", f"transfer_{way}_truth")
        return found / truth if found is not None and truth else None

    return lambda model: model.derived(lambda run: ratio(run, model.best_steps))


def _at(steps: int | None, *measure: str) -> Callable[[Model], Cell]:
    """A measure at a number of sampler steps; None: at the best number."""
    return lambda model: model.at(steps or model.best_steps, *measure)


def _chosen_on(model: Model) -> Cell:
    """The states by which the best number of steps was chosen; None where there was no choice."""
    if model.best_steps is None or len(model.steps) < 2:
        return None
    return "validation" if model.at(model.best_steps, "validation_crps") is not None else "test"


def _covered(run: Run) -> float | None:
    """Coverage of 90 % at the rollout's last time; None of ensembles that are too small."""
    members = number(run.results, "a_posteriori", "members")
    blunt = members is None or is_blunt(90, members)
    return None if blunt else number(run.results, "a_posteriori", "coverage", "90", -1)


_COLUMNS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "A priori": (
        "The closure sampled for single states. Best: the number of sampler steps with the least CRPS on states of the "
        "validation split; where those were not sampled, with the least CRPS, or else error, on the test states. Error / floor, "
        "spread and CRPS are ratios to the exact law, 1 is perfect; the excess error is that against the exact mean; all "
        "four are dashes where nobody knows the law of the closure. Coverage of the central interval that should hold 90 %, and "
        "spread over the error of the mean, 1 is perfect, need draws of the truth alone.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("best steps", lambda model: model.best_steps),
            ("chosen on", _chosen_on),
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
        "sampling, and decoding, each timed by itself, so that parts and whole agree within their scatter; the coupled "
        "rollout, and the true ensemble, which runs of the same data share and time once. "
        "Training counts the phases that the runs trained themselves, not autoencoders taken over from another experiment. "
        "Times of different devices do not compare, and those of a busy machine scatter.",
        (
            ("best steps", lambda model: model.best_steps),
            ("ms per sample", _at(None, "milliseconds_per_sample")),
            ("encode", _result("a_priori", "milliseconds", "encode")),
            ("sample", _at(None, "milliseconds_sampling")),
            ("decode", _result("a_priori", "milliseconds", "decode")),
            ("ms per sample at 1 step", _at(1, "milliseconds_per_sample")),
            ("rollout, ms per member and time unit", _rollout_cost("seconds_per_time_unit")),
            ("true system, the same", _rollout_cost("seconds_per_time_unit_truth")),
            ("training", _mean_duration),
        ),
    ),
    "A posteriori": (
        "The closure inside the solver, at the last time of the rollout: error of the ensemble mean relative to the true "
        "one, that of a second true ensemble, the solver alone, ensemble spread over the true spread and over its own error "
        "(1 is perfect), how many true members the central 90 % of the ensemble hold, a dash where its members are too few to "
        "say, share of rollouts without overflow. Floors fall with the number of members and grow with time.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("sampler steps", lambda model: look_up(model.runs[0].results, "a_posteriori", "sampler_steps")),
            ("time units", _result("a_posteriori", "time", -1)),
            ("members", _result("a_posteriori", "members")),
            ("error", _result("a_posteriori", "relative_error", -1)),
            ("a second truth", _result("a_posteriori", "relative_error_floor", -1)),
            ("no closure", _alone),
            ("spread / true spread", lambda model: model.derived(_last_spread_ratio)),
            ("spread / error", _result("a_posteriori", "spread_over_error", -1)),
            ("coverage of 90 %", lambda model: model.derived(_covered)),
            ("CRPS", _result("a_posteriori", "crps", -1)),
            ("finite fraction", _result("a_posteriori", "finite_fraction")),
        ),
    ),
    "Statistics": (
        "Of single states: R² and correlation of the mean of samples with the truth, CRPS, which for a closure without noise is "
        "its mean absolute error, and the enstrophy that the closure takes and gives back over the truth's.",
        (
            ("seeds", lambda model: len(model.runs)),
            ("R²", _at(None, "r2")),
            ("correlation", _at(None, "correlation")),
            ("CRPS", _at(None, "crps")),
            ("taken / truth", _transfer("forward")),
            ("given back / truth", _transfer("back")),
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


def model_tables(models: Sequence[Model]) -> dict[str, Table]:
    """The tables that have a row for each model, by title."""
    tables = {}
    for title, (intro, columns) in _COLUMNS.items():
        head = ("model", *(heading for heading, _ in columns))
        rows = [(model.name, *(get(model) for _, get in columns)) for model in models]
        tables[title] = Table(head, rows, len(columns) if title in _TEXT_TABLES else 0, intro)
    return tables


def measured(table: Table) -> Table:
    """The table without rows of models that have nothing in it beside their number of seeds, and without empty columns."""
    rows = [row for row in table.rows if any(cell is not None for cell in row[2:])]
    kept = [place for place in range(len(table.head)) if any(row[place] is not None for row in rows)]
    return Table(
        [table.head[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        table.notes,
        table.intro,
    )


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
