"""Finished runs beside each other: gathered over seeds, named, and asked for their figures.

Computes no science of its own. Runs may be of older versions: what a file does not have, or has as null, is None here and a
dash on the page.
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from closure_jax.errors import UserError
from closure_jax.pages.comparison.estimates import Estimate, interval, mean_curve
from closure_jax.pages.results import look_up, measures_version, number, setting, settings

PROCESSES = {
    "flow_matching": "FM",
    "diffusion": "DM",
    "interpolant_gaussian": "SI Gaussian",
    "interpolant_empirical": "SI empirical",
    "mean_flow": "MF",
    "score": "CS",
    "oracle": "oracle",
}
"""Short names of transport processes, in the order of tables; others stand for themselves, after these."""

LATENTS = {"physical": "physical", "recon": "recon", "mp": "MP", "ga": "GA", "joint": "joint"}
"""The same for latent spaces."""

REGULARISED = ("mp", "ga", "joint")
"""Latent spaces that are shaped by more than reconstruction."""

_MOST_DETAILS = 3  # more differing fields than this make no name


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, config.json, results.json, and the arrays of arrays.npz (empty where there is none).

    `path` is a file, and `summary` what it holds, where the run is known by its summary alone.
    """

    path: pathlib.Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    summary: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """What tells the run from others: the name that its summary has, or that of its folder."""
        return str((self.summary or {}).get("name") or self.path.name)

    @property
    def circumstances(self) -> dict[str, Any]:
        """What numbers depend on beside the configuration: the device, and the version of the measures."""
        return {"device": str(look_up(self.results, "device")), "measures": measures_version(self.results)}


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.json: its `kind`, points with measures as in results.json, and the preset of their runs, "" where it has none.

    A point of data_efficiency has latent, fraction (of the training trajectories), trajectories and seed; one of holding has
    closure, seed, rule and period; one of latent_size has latent, resolution, seed and `whole`. `about` is the rest of the file.
    """

    path: pathlib.Path
    kind: str
    points: Sequence[Mapping[str, Any]]
    preset: str = ""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Model:
    """Runs that differ by their seed only, under the name that tables and figures give them."""

    name: str
    runs: tuple[Run, ...]

    def setting(self, name: str) -> Any:
        """A field of the configuration by its present dotted name; None where the runs have none."""
        return setting(self.runs[0].config, name)

    @property
    def process(self) -> str:
        """Transport process, as in the configuration; the exact law in place of a network is a process of its own."""
        return "oracle" if self.setting("network.kind") == "oracle" else str(self.setting("transport.process"))

    @property
    def latent(self) -> str:
        """Latent space, as in the configuration."""
        return str(self.setting("latent.kind"))

    @property
    def variant(self) -> str:
        """What more was done to a process than it asks for: "rectified", "converted", "online", or nothing."""
        done = {"rectified": self.setting("transport.rectify"), "converted": self.setting("transport.flow_steps")}
        done["online"] = self.setting("program.kind") == "online"
        return ", ".join(name for name, was in done.items() if was)

    @property
    def of_paper(self) -> bool:
        """Whether it is a closure of the paper's problem."""
        return self.setting("problem.kind") in (None, "kolmogorov")

    @property
    def preset(self) -> str:
        """Preset."""
        return str(self.setting("preset"))

    @property
    def device(self) -> str:
        """What the runs were measured on."""
        return str(look_up(self.runs[0].results, "device"))

    def derived(self, measure: Callable[[Run], float | None]) -> Estimate | None:
        """Estimate over seeds of what `measure` makes of a run."""
        return interval([measure(run) for run in self.runs])

    def estimate(self, *keys: str | int) -> Estimate | None:
        """Estimate over seeds of the number at a path of results.json."""
        return self.derived(lambda run: number(run.results, *keys))

    def at(self, steps: int | None, *measure: str) -> Estimate | None:
        """Estimate of an a priori measure, or of a part of it, at a number of sampler steps."""
        return None if steps is None else self.estimate("a_priori", "by_steps", str(steps), *measure)

    def curve(self, *keys: str | int) -> np.ndarray:
        """Mean over seeds of a list of numbers in results.json; nan where none has one."""
        lists = [look_up(run.results, *keys) for run in self.runs]
        return mean_curve([np.array(values, dtype=float) for values in lists if isinstance(values, list)])

    def array(self, name: str) -> np.ndarray:
        """Mean over seeds of an array of arrays.npz; empty where none has it."""
        return mean_curve([run.arrays[name] for run in self.runs if name in run.arrays])

    @functools.cached_property
    def steps(self) -> list[int]:
        """Numbers of sampler steps that were measured, ascending."""
        found = {
            int(steps)
            for run in self.runs
            for steps, values in (look_up(run.results, "a_priori", "by_steps") or {}).items()
            if steps.isdigit() and values
        }
        return sorted(found)

    @functools.cached_property
    def best_steps(self) -> int | None:
        """The number of sampler steps with the least mean CRPS on states of the validation split.

        Of runs without one that on the test states, over the exact one where it is known, or else with the least error against
        the truth; None where that is unknown too.
        """
        for measure in ("validation_crps", "crps_ratio", "crps", "relative_error"):
            scores = {steps: self.at(steps, measure) for steps in self.steps}
            known = {steps: score.mean for steps, score in scores.items() if score is not None}
            if known:
                return min(known, key=lambda steps: known[steps])
        return None

    def nearest_steps(self, steps: int) -> int | None:
        """The measured number of sampler steps nearest to `steps` by ratio."""
        return min(self.steps, key=lambda n: abs(math.log(n / steps))) if self.steps else None


def gather(runs: Sequence[Run]) -> list[Model]:
    """Runs of one configuration but for the seed, on one device and judged alike, as one model each, in the order of tables.

    Names are process and latent space, what more was done to it, the preset where there are several, and the fields by which two
    configurations differ, or the folder, where that is not enough.

    Raises:
      UserError: two runs of the same configuration, seed and circumstances, or runs of different problems.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        kinds = [str(setting(one.config, "problem.kind") or "kolmogorov") for one in (runs[0], run)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"'{runs[0].path}' is of the problem {kinds[0]}, '{run.path}' of {kinds[1]}: expected runs of one problem;"
                " compare them apart"
            )
        groups.setdefault(json.dumps([_identity(run), run.circumstances], sort_keys=True), []).append(run)
    models = [Model("", part) for group in groups.values() for part in _by_seed(group)]
    return [dataclasses.replace(model, name=name) for model, name in _names(sorted(models, key=_order))]


def _by_seed(group: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs that differ by seed at most, as one model: those from the same start apart, where a seed started from several."""
    seeds, parts = [run.config.get("seed") for run in group], {"": list(group)}
    if len(set(map(str, seeds))) < len(seeds):
        parts = {}
        for run in group:
            parts.setdefault(str(setting(run.config, "program.start")), []).append(run)
    for part in parts.values():
        for place, run in enumerate(part):
            for other in part[:place]:
                if other.config.get("seed") == run.config.get("seed"):
                    raise UserError(
                        f"'{other.path}' and '{run.path}' have the same configuration and seed: expected seeds that differ;"
                        " leave one out"
                    )
    return [tuple(sorted(part, key=lambda run: str(run.config.get("seed")))) for part in parts.values()]


def _identity(run: Run) -> dict[str, Any]:
    """The configuration but for the seed; of a closure to start from only that there is one, since each seed has its own."""
    found = {name: value for name, value in settings(run.config).items() if name != "seed"}
    return found | ({"program.start": bool(found["program.start"])} if "program.start" in found else {})


def _order(model: Model) -> tuple:
    """Preset, process, latent space: known ones first, in the order of their tables."""

    def place(name: str, known: Mapping[str, str]) -> tuple[int, str]:
        return (list(known).index(name) if name in known else len(known)), name

    return model.preset, place(model.process, PROCESSES), place(model.latent, LATENTS), model.runs[0].label


def _names(models: Sequence[Model]) -> Iterator[tuple[Model, str]]:
    several = len({model.preset for model in models}) > 1
    for model in models:
        name = f"{PROCESSES.get(model.process, model.process)} {LATENTS.get(model.latent, model.latent)}"
        name += "".join(f", {more}" for more in (model.variant, model.preset if several else "") if more)
        twins = [other for other in models if _kind(other) == _kind(model)]
        details = sorted({field for other in twins for field in different_fields(model, other)})
        mine = settings(model.runs[0].config) | model.runs[0].circumstances
        text = ", ".join(f"{field} {mine.get(field)}" for field in details)
        if len(details) > _MOST_DETAILS:
            text = model.runs[0].label
        yield model, f"{name} ({text})" if details else name


def _kind(model: Model) -> tuple[str, ...]:
    return model.process, model.latent, model.variant, model.preset


def different_fields(model: Model, other: Model) -> list[str]:
    """Fields, seed apart, by which two models' configurations or circumstances differ."""
    mine, theirs = (_identity(one.runs[0]) | one.runs[0].circumstances for one in (model, other))
    fields = [field for field in mine | theirs if mine.get(field) != theirs.get(field)]
    starts = [one.setting("program.start") for one in (model, other)]
    return fields or (["program.start"] if starts[0] != starts[1] else [])


def twin(model: Model, models: Sequence[Model], process: str | None = None, latent: str | None = None) -> Model | None:
    """The model of the same preset with another process or latent space; of several the one most like `model`."""
    wanted = (process or model.process, latent or model.latent, model.preset)
    found = [other for other in models if (other.process, other.latent, other.preset) == wanted]
    return min(found, key=lambda other: len(different_fields(model, other)), default=None)
