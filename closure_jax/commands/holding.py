"""`./launch.sh study holding`: how long may a draw be held, and by which rule?

Closures that are trained already run in the solver; nothing is trained.
"""

import argparse
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from closure_jax import files, pretrained, random
from closure_jax.commands import compare, origins
from closure_jax.config import Experiment
from closure_jax.coupling import COUPLINGS, Coupling, Draw, FixedSteps
from closure_jax.coupling.draw import is_random
from closure_jax.data.dataset import Dataset
from closure_jax.errors import UserError, check
from closure_jax.evaluation import evaluate, measures, reference
from closure_jax.files import Kept
from closure_jax.parallel import devices, processes
from closure_jax.problems.oracle import exact_law
from closure_jax.workdir import WorkDir, provenance, write_json

ORACLE = "oracle"
"""The exact law, which stands beside the closures where it is known."""


@dataclasses.dataclass(frozen=True)
class Closure:
    """One of those compared.

    Attributes:
      name, seed: of its experiment; of its ensembles too, so that seeds differ by their noise as well.
      where: it was found.
      digest: of its numbers; a run that is trained anew is another closure.
      draw: what is drawn from.
    """

    name: str
    seed: int
    where: str
    digest: str
    draw: Draw


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this study alone."""
    parser.add_argument(
        "--closures", default="cs_ga", help="names of those that ship, and folders of runs; default cs_ga"
    )
    rules = "held,scaled,extrapolated"
    parser.add_argument("--rules", default=rules, help=f"coupling rules, fresh the dearest; default {rules}")
    parser.add_argument("--periods", default="5,20", help="solver steps for which a draw is held; default 5,20")
    parser.add_argument("--states", type=int, default=2, help="test states from which ensembles start; default 2")
    parser.add_argument("--members", type=int, default=64, help="members from each state; default 64")
    parser.add_argument("--time", type=int, default=10, help="whole time units; default 10")
    parser.epilog = "The oracle, the exact law of the closure, stands beside them where it is known."


def study(options: argparse.Namespace, preset: str, overrides: Sequence[str], folder: pathlib.Path) -> None:
    """Runs an ensemble of each closure by each rule and period from the same states; writes study.json and its comparison.

    study.json is written after each ensemble, and the same command goes on with those that it lacks.

    Raises:
      UserError: an option is impossible, closures are of different data, or not of those that are there now, or the folder holds
        another study.
    """
    check(
        not preset and not overrides,
        "study holding: closures bring preset and configuration along, expected neither :PRESET nor --config.",
    )
    origins.check_data_folder()
    processes.start()
    for kind in options.rules.split(","):
        check(kind in COUPLINGS, f"--rules: '{kind}': expected some of {', '.join(COUPLINGS)}")
    closures, experiments = _closures(options.closures.split(","))
    experiment = next(iter(experiments.values()))
    periods = _periods(options.periods, experiment)
    planned = [
        (closure, kind, rule)
        for closure in closures
        for kind in _kinds(options.rules, closure.draw, experiment)
        for rule in _rules(kind, periods, closure.draw)
    ]
    settings = _settings(options, experiment)
    data = experiment.data.path or experiment.simulation().file_name()
    with WorkDir(folder).lock():
        content = _begun(folder / "study.json", {"data": data, **settings.facts()})
        known = [_identity(point) for point in content["points"]]
        missing = [one for one in planned if _identity(_facts(*one)) not in known]
        print(f"study: {len(planned)} ensembles, {len(planned) - len(missing)} done before", flush=True)
        kept = Kept(folder / "rollouts", [data, vars(settings), provenance.revision(), devices.describe()])
        for point in _run(missing, experiments, settings, kept):
            content["points"].append(point)
            write_json(folder / "study.json", content)
        shutil.rmtree(kept.folder, ignore_errors=True)
    compare.compare([folder], folder / "compare")
    print(f"study: {folder / 'study.json'}")


def _run(
    planned: Sequence[tuple[Closure, str, Coupling]],
    experiments: dict[str, Experiment],
    settings: reference.Settings,
    kept: Kept,
) -> Iterator[dict[str, Any]]:
    """A point for each ensemble, as it ends; the true ones run first."""
    if not planned:
        return
    experiment, dataset = next(iter(experiments.values())), _data(experiments)
    shared = evaluate.shared_ensembles(experiment, dataset, origins.data_folder())
    true = reference.reference(experiment.problem, dataset, shared.seed, settings, kept, shared)
    for closure, kind, rule in planned:
        print(f"study: {closure.where} {kind} {rule.period}", flush=True)
        fitted = rule.fit(closure.draw, true.windows)
        label = " ".join(["closed ensemble", *map(str, _identity(_facts(closure, kind, rule)))])
        run = true.closed(closure.draw, fitted, random.stream(closure.seed, "model_ensemble"), label)
        yield _facts(closure, kind, rule) | true.facts() | true.judge(run)
        kept.drop(label)


def _data(experiments: dict[str, Experiment]) -> Dataset:
    """The data of the first, after a look at whether runs still have those that they were trained on."""
    found: dict[tuple[str, int], Dataset] = {}
    for where, experiment in experiments.items():
        part = experiment.data.path, experiment.data.train_trajectories
        if part not in found:
            found[part] = origins.data_of(experiment)
        origins.check_same_data(WorkDir(where).provenance(), found[part], WorkDir(where))
    return next(iter(found.values()))


def _closures(names: Sequence[str]) -> tuple[list[Closure], dict[str, Experiment]]:
    """The closures, the oracle last, and their experiments by where they were found; they have problem and data in common."""
    found: list[Closure] = []
    experiments: dict[str, Experiment] = {}
    for where in names:
        model, experiment = pretrained.opened(where)
        experiments[where] = experiment
        first = experiments[names[0]]
        check(
            experiment.simulation().file_name() == first.simulation().file_name(),
            f"--closures: '{where}' is of other data than '{names[0]}', expected closures of one problem and its data",
        )
        model = model.replace(transport=model.transport.in_rollouts())
        draw = FixedSteps(model, experiment.evaluation.rollout_sampler_steps)
        for other in found:
            check(
                (other.name, other.seed) != (experiment.name, experiment.seed),
                f"--closures: '{other.where}' and '{where}' have experiment and seed in common, expected one of them",
            )
        found.append(Closure(experiment.name, experiment.seed, where, model.digest(), draw))
    law = exact_law(experiments[names[0]].problem)
    if law is not None and ORACLE not in [closure.name for closure in found]:
        found.append(Closure(ORACLE, 0, ORACLE, "", law))
    return found, experiments


def _kinds(rules: str, draw: Draw, experiment: Experiment) -> list[str]:
    """The rules by which a draw is run: one without noise has none to hold."""
    return rules.split(",") if is_random(draw, experiment.data.resolution) else ["fresh"]


def _rules(kind: str, periods: Sequence[int], draw: Draw) -> list[Coupling]:
    """A rule of each period; of `fresh` the one that there is. A draw that is linear in its noise is scaled at one call."""
    rule: Any = COUPLINGS[kind]
    fields = _fields(rule)
    linear = {"mean": "linear"} if "mean" in fields and getattr(draw, "linear_in_noise", False) else {}
    return [rule(period=period, **linear) for period in periods] if "period" in fields else [rule(**linear)]


def _fields(rule: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(rule)]


def _periods(text: str, experiment: Experiment) -> list[int]:
    solver = experiment.problem.solver()
    check(solver is not None, "study holding: the closures' problem has no solver, expected one")
    assert solver is not None
    unit, periods = round(1 / solver.dt), text.split(",")
    for period in periods:
        check(
            period.isascii() and period.isdigit() and len(period) < 10 and int(period) > 0 and unit % int(period) == 0,
            f"--periods: '{period}': expected divisors of the {unit} solver steps in a time unit",
        )
    return [int(period) for period in periods]


def _settings(options: argparse.Namespace, experiment: Experiment) -> reference.Settings:
    tests, ev = experiment.data.test_trajectories, experiment.evaluation
    check(
        1 <= options.states <= tests,
        f"--states={options.states}: expected a whole number from 1 to {tests}, the test trajectories",
    )
    check(
        2 <= options.members <= 1_000_000, f"--members={options.members}: expected a whole number from 2 to 1,000,000"
    )
    check(1 <= options.time <= 100_000, f"--time={options.time}: expected a whole number from 1 to 100,000 time units")
    return reference.Settings(options.states, options.members, ev.rollout_start, options.time, ev.rollout_chunk)


def _begun(file: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The study that the file holds, or one without a point."""
    if not file.is_file():
        return {"kind": "holding", "settings": settings, "measures": measures.VERSION, "points": []}
    content = files.read_json(file, "restore it, or give another --output") or {}
    if content.get("kind") != "holding" or content.get("settings") != settings:
        raise UserError(
            f"'{file}' is another study, or of other settings: expected a folder of its own, give another --output"
        )
    check(
        content.get("measures", 2) == measures.VERSION,  # releases that did not say had the second
        f"'{file}' holds measures of version {content.get('measures')}, and these are of {measures.VERSION}: expected points that"
        " compare; give another --output",
    )
    return content


def _facts(closure: Closure, kind: str, rule: Coupling) -> dict[str, Any]:
    """What a point is of."""
    of_closure = {"closure": closure.name, "seed": closure.seed, "where": closure.where, "digest": closure.digest}
    return of_closure | {"rule": kind, "period": rule.period}


def _identity(point: dict[str, Any]) -> tuple:
    return tuple(point.get(name) for name in ("closure", "seed", "digest", "rule", "period"))
