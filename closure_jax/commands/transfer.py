"""`./launch.sh transfer RUN --config.flow.FIELD=VALUE`: what a closure does in a flow that it was not trained on.

Nothing is trained, nor fitted: the coefficients of the closures beside the model, and the memory of noise, are those of the data
that the model has seen.
"""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from closure_jax import config as config_lib
from closure_jax import files, pretrained
from closure_jax.commands import cli, origins, train
from closure_jax.config import Experiment, sections
from closure_jax.errors import UserError, check
from closure_jax.evaluation import evaluate
from closure_jax.pages import results as results_lib
from closure_jax.pages.tables import Table
from closure_jax.parallel import processes
from closure_jax.workdir import WorkDir, provenance

TRAINED = "as trained"
"""The case that stands beside the others: the run's own."""

MEASURES = {
    "r2": "R² a priori",
    "relative_error": "error of the ensemble mean at the end",
    "spectrum_error": "error of the enstrophy spectrum",
    "stable_fraction": "share of long runs that are finite",
}
"""What a closure breaks by; a table each."""

_JUDGED = ("data.", "evaluation.", "sampler.", "coupling.")


def _command(arguments: Sequence[str]) -> None:
    parser = cli.Parser("transfer", "Judge the closure of a finished run in another flow; nothing is trained.")
    parser.add_argument("run", metavar="RUN", type=cli.path, help="work directory of a finished run")
    parser.add_argument("--output", type=cli.path, help="folder of all cases; default RUN-transfer")
    parser.epilog = (
        "--config.flow.FIELD=VALUE or --config.problem.FIELD=VALUE says what differs: --config.flow.viscosity=2e-3 of the"
        " paper's problem, --config.problem.viscosity=1e-3 of LES."
    )
    options, changes = parser.options_and_fields(arguments)
    if options.output is not None:
        files.check_folder(options.output, "--output")
    run = pathlib.Path(os.path.abspath(options.run))
    processes.start()
    with processes.main_speaks():
        transfer(options.run, changes, options.output or run.with_name(f"{run.name}-transfer"))


def transfer(run: pathlib.Path, changes: Sequence[str], output: pathlib.Path) -> None:
    """Judges the closure of a run in a changed flow, in a folder of its own below `output`, and tells of all cases there.

    Args:
      run: work directory of a finished run.
      changes: SECTION.FIELD=VALUE of the problem or of a part of it, such as `flow`, and fields of how it is judged.
      output: folder of the cases, and of transfer.md, their table.
    Raises:
      UserError: `output` holds other results, the run has not ended, its data are others by now, or the changes are of no
        other flow, or of more than the flow.
    """
    origins.check_data_folder()
    _check_output(output)
    check(WorkDir(run).results() is not None, f"'{run}' has no results.json: expected a run that has ended")
    model, trained = pretrained.opened(run)
    experiment = _changed(run, trained, changes)
    work = WorkDir(output / _name(changes, _of_flow(experiment.config)))
    work.check(experiment.config)
    seen = origins.data_of(trained)
    origins.check_same_data(WorkDir(run).provenance(), seen, WorkDir(run))
    with work.lock():
        if evaluate.is_stale(experiment, work):
            dataset = origins.simulated_data(experiment, work)
            facts = provenance.provenance(dataset.path, dataset.checksum)
            stored = WorkDir(run).provenance()
            facts |= {"transferred_from": str(run), "trained_revision": stored.get("trained_revision", "")}
            model = model.replace(steps=experiment.sampler.steps)
            processes.on_main(lambda: train.judge(experiment, dataset, model, work, facts, seen))
        else:
            print(f"evaluation: already done, {work.path / 'results.json'}")
    cases = {TRAINED: WorkDir(run).results() or {}}
    cases |= {folder.name: WorkDir(folder).results() or {} for folder in _cases(output)}
    text = "\n".join(table.intro + "\n\n" + table.markdown() for table in tables(cases))
    with files.aside(output / "transfer.md") as partial:
        partial.write_text(text, encoding="utf-8")
    for table in tables(cases):
        print(f"\n{table.intro}\n{table.plain('  ')}")
    print(f"\ntable: {output / 'transfer.md'}")


def _cases(output: pathlib.Path) -> list[pathlib.Path]:
    """The folders that hold results."""
    return sorted(path.parent for path in output.glob("*/results.json"))


def _check_output(output: pathlib.Path) -> None:
    """Raises UserError where `output` can't be the folder of cases: it is a file, or results in it are no cases of a transfer."""
    files.check_folder(output, "--output")
    for folder in _cases(output):
        check(
            "transferred_from" in WorkDir(folder).provenance(),
            f"--output={output}: '{folder}' holds results of no transfer, expected a folder of cases alone, or a new one",
        )


def tables(cases: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """A table of each measure that any case has: closures by cases, a dash where one broke or was not measured."""
    found = []
    for measure, title in MEASURES.items():
        values = {case: _by_closure(results, measure) for case, results in cases.items()}
        names = dict.fromkeys(name for of_case in values.values() for name in of_case)
        rows = [(name, *(of_case.get(name) for of_case in values.values())) for name in names]
        if any(value is not None for _, *row in rows for value in row):
            found.append(Table((measure, *cases), rows, intro=title[0].upper() + title[1:]))
    return found


def _by_closure(results: Mapping[str, Any], measure: str) -> dict[str, float | None]:
    """The measure of the model, of closures beside it, and of two true ensembles."""
    if measure == "r2":
        steps = results["a_priori"]["by_steps"]
        best = [of_steps["r2"] for of_steps in steps.values() if of_steps.get("r2") is not None]
        return {"model": max(best, default=None)}
    rollout = results.get("a_posteriori") or {}
    beside = results_lib.baselines(results)
    found = {name: _last(values.get(measure)) for name, values in {"model": rollout, **beside}.items()}
    if f"{measure}_floor" in rollout:
        found["two true ensembles"] = _last(rollout[f"{measure}_floor"])
    return found


def _last(value: Any) -> float | None:
    return value[-1] if isinstance(value, list) else value


def _changed(run: pathlib.Path, trained: Experiment, changes: Sequence[str]) -> Experiment:
    """The experiment of the run in another flow."""
    config = WorkDir(run).config()
    flow = _of_flow(config)
    example = f"--config.{flow[-1]}viscosity=1e-3"
    check(any(text.startswith(flow) for text in changes), f"transfer: expected a change of the flow, such as {example}")
    for text in changes:
        if not config_lib.current_name(config, text.partition("=")[0]).startswith((*flow, *_JUDGED)):
            raise UserError(
                f"--config.{text}: the closure stays as it is, expected fields of {', '.join((*flow, *_JUDGED))} alone"
            )
    config_lib.override(config, changes)
    experiment = config_lib.build(config)
    for one in (trained, experiment):
        check(not one.data.path, f"transfer: '{run}' is of given data, expected data that a problem makes")
    check(
        experiment.data.resolution == trained.data.resolution,
        f"--config.data.resolution={experiment.data.resolution}: expected that of the closure, {trained.data.resolution}",
    )
    same = experiment.simulation().file_name() == trained.simulation().file_name()
    check(not same, f"transfer: {', '.join(changes)} is the flow that '{run}' was trained on, expected another")
    return experiment


def _of_flow(config: ConfigDict) -> tuple[str, ...]:
    """What names of fields begin with that make the flow: the section of the problem, and those of its parts."""
    return ("problem.", *(f"{name}." for name in sections.sections_of(config) if name not in sections.SECTIONS))


def _name(changes: Sequence[str], flow: tuple[str, ...]) -> str:
    """Of a case's folder, after what differs in its flow: forcing_wavenumber=3,viscosity=1e-3."""
    return ",".join(sorted(text.partition(".")[2] for text in changes if text.startswith(flow))).replace("/", "_")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh transfer`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), continues=True)


if __name__ == "__main__":
    cli.leave(main())
