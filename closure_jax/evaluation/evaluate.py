"""The whole evaluation: reconstruction, a priori, latent geometry, a posteriori."""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from closure_jax import config as config_lib
from closure_jax.closure import StochasticClosure
from closure_jax.config import Experiment
from closure_jax.coupling.draw import FixedSteps, is_random
from closure_jax.data.batches import in_blocks
from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.evaluation import (
    a_posteriori,
    a_priori,
    latent_geometry,
    latent_terms,
    measures,
    metrics,
    reference,
)
from closure_jax.evaluation.shared import Shared
from closure_jax.files import Kept
from closure_jax.parallel import devices
from closure_jax.training.phase import Run
from closure_jax.workdir import JUDGED_FIELDS, WorkDir, provenance

_ROLLOUT_FIELDS = tuple(field.removeprefix("problem.") for field in JUDGED_FIELDS if field.startswith("problem."))
"""Fields of problems that change rollouts and no data."""


def settings(experiment: Experiment) -> dict[str, Any]:
    """What an evaluation depends on beside the model, as stored in results.json."""
    stored = config_lib.to_dict(experiment.config)
    stored["evaluation"].pop("rollout_chunk", None)  # changes the memory, not the numbers
    judged = {"evaluation": stored["evaluation"], "sampler": stored["sampler"], "coupling": stored["coupling"]}
    if stored["coupling"].get("white_noise"):
        judged["white_noise"] = "of each further step"  # before it was of each draw
    judged |= {name: stored["problem"][name] for name in _ROLLOUT_FIELDS if name in stored["problem"]}
    return judged | {"rollout_t_max": stored["transport"].get("rollout_t_max"), "measures": measures.VERSION}


def is_stale(experiment: Experiment, work: WorkDir) -> bool:
    """Whether there is no results.json of these settings and of today's measures yet."""
    results = work.results()
    return results is None or results.get("settings") != settings(experiment)


PHASES = ("a_priori", "latent_geometry", "a_posteriori")
"""What an evaluation spends its time on, by name in wall_seconds."""


def run(
    experiment: Experiment,
    dataset: Dataset,
    model: StochasticClosure,
    work: WorkDir,
    cache: pathlib.Path | None = None,
    seen: Dataset | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Judges a model; times go to the work directory.

    Args:
      experiment: what is judged, and how.
      dataset: that it is judged by.
      model: the closure.
      work: the run's folder.
      cache: folder for ensembles that no model changes; None makes them anew.
      seen: data that the model was trained on, where they are others.

    Returns:
      The measured parts of results.json, without `a_posteriori` where the problem has no solver; arrays for the report.
    """
    problem, ev, seed = experiment.problem, experiment.evaluation, experiment.seed
    print("evaluation: reconstruction and a priori")
    with work.timed("a_priori"):
        results: dict[str, Any] = {"autoencoder": reconstruction_errors(dataset, model, work)}
        for field, found in latent_terms.effects(Run(experiment, dataset, work, cache), model) if cache else ():
            results["autoencoder"][field] |= found
        results["a_priori"], arrays = a_priori.evaluate(
            problem, dataset, model, seed, ev.states, ev.samples, ev.steps, experiment.measures
        )
    print("evaluation: latent geometry")
    with work.timed("latent_geometry"):
        results["latent_geometry"], shown = latent_geometry.evaluate(dataset, model, ev.geometry_states)
    if problem.solver() is not None and problem.truth() is not None:
        print("evaluation: a posteriori rollouts")
        with work.timed("a_posteriori"):
            draw = FixedSteps(model.replace(transport=model.transport.in_rollouts()), ev.rollout_sampler_steps)
            results["a_posteriori"], more = a_posteriori.evaluate(
                problem,
                experiment.coupling,
                dataset,
                draw,
                seed,
                _rollouts(experiment),
                _kept(experiment, dataset, model, work),
                shared=None if cache is None else shared_ensembles(experiment, dataset, cache),
                seen=seen,
            )
        results["a_posteriori"]["sampler_steps"] = ev.rollout_sampler_steps
        fitted = results["a_posteriori"]["coupling"]
        kind = experiment.config.coupling.kind if is_random(draw, experiment.data.resolution) else "fresh"
        results["a_posteriori"]["coupling"] = {"kind": kind, **fitted}
        arrays |= more
    results["settings"] = settings(experiment)
    return results, {name: np.asarray(array, np.float32) for name, array in (arrays | shown).items()}


def forget_rollouts(work: WorkDir) -> None:
    """Deletes the rollouts that `run` keeps beside the results: they are of no use when those are written."""
    shutil.rmtree(work.path / "rollouts", ignore_errors=True)


def _kept(experiment: Experiment, dataset: Dataset, model: StochasticClosure, work: WorkDir) -> Kept:
    facts = provenance.provenance(dataset.path, dataset.checksum)
    facts.pop("data_path")
    return Kept(work.path / "rollouts", [experiment.seed, settings(experiment), model.digest(), facts])


def shared_ensembles(experiment: Experiment, dataset: Dataset, cache: pathlib.Path) -> Shared:
    """Ensembles of the truth and of closures without noise, for all runs on these data that compute on such devices."""
    begins = experiment.config.problem.get("settling_time")
    identity = [dataset.checksum, experiment.problem.identity(), begins, devices.describe()]
    return Shared(cache / "ensembles", identity, experiment.data.seed)


def _rollouts(experiment: Experiment) -> reference.Settings:
    ev = experiment.evaluation
    return reference.Settings(
        states=ev.rollout_states,
        members=ev.rollout_members,
        start=ev.rollout_start,
        units=round(ev.rollout_time),
        chunk=ev.rollout_chunk,
        true_chunk=experiment.data.chunk,
        turnovers=ev.turnovers,
    )


def reconstruction_errors(dataset: Dataset, model: StochasticClosure, work: WorkDir) -> dict[str, Any]:
    """Per field: relative error of reconstruction on the test split, and the mean pair weight of the regulariser."""
    rebuild = jax.jit(StochasticClosure.reconstruct, static_argnums=1)
    errors = {}
    for field in FIELDS:
        values = dataset.fields(field, "test")
        rebuilt = in_blocks(lambda block, field=field: rebuild(model, field, block), values)
        weights = [
            record["regulariser_weight"]
            for record in work.records(f"autoencoder_{field}")
            if record.get("regulariser_weight") is not None
        ]
        errors[field] = {
            "relative_error": metrics.relative_error(rebuilt, values),
            "regulariser_weight": float(np.mean(weights)) if weights else None,
        }
    return errors
