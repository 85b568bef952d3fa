"""The paper's claims, held against the runs of a comparison: each verdict and each figure in it is computed."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from closure_jax.pages.comparison.runs import LATENTS, REGULARISED, Model, Study, twin
from closure_jax.pages.comparison.tables import MEASURES, TOPOLOGY
from closure_jax.pages.results import number
from closure_jax.pages.tables import number_text

Verdict = Literal["holds", "holds in part", "does not hold", "not measured"]

TOLERANCE = 0.05
"""Errors that differ by less than this share are alike: one run's differ by a few percent from another seed's."""
SPREAD = (0.8, 1.25)
"""Spread ratios with which samples still stand for the law: one exact Euler step has 0, and returns the mean."""
SPEED_UP = 100.0
"""Two orders of magnitude."""
_PHYSICAL_STEPS = 50
_COST = "milliseconds_per_sample"
_FIELDS = {"vorticity": "w", "closure": "H"}
_DISTORTION = {"distance_ratio_spread": -1, "distortion": -1, "distance_correlation": 1}  # sign: 1 where more is better


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper, whether the runs bear it out, and by how much."""

    title: str
    verdict: Verdict
    sentence: str


def claims(models: Sequence[Model], studies: Sequence[Study] = ()) -> list[Claim]:
    """The published claims in turn.

    Args:
      models: gathered runs.
      studies: of kind data_efficiency.
    """
    found = [one_step(models), speed(models), cheaper_than_physical(models)]
    found += [distortion(models, latent) for latent in REGULARISED]
    found += [topology(models, latent) for latent in REGULARISED]
    return [*found, *(data_efficiency(studies, latent) for latent in REGULARISED)]


def _verdict(tests: Iterable[bool]) -> Verdict:
    tests = list(tests)
    if not tests:
        return "not measured"
    return "holds" if all(tests) else "holds in part" if any(tests) else "does not hold"


def _missing(title: str, what: str) -> Claim:
    return Claim(title, "not measured", f"Needs {what}.")


def _latent_models(models: Sequence[Model], process: str | None = None) -> list[Model]:
    return [model for model in models if model.latent != "physical" and process in (None, model.process)]


def one_step(models: Sequence[Model]) -> Claim:
    """Error, CRPS and spread of latent flow matching at one step against the same model at its best."""
    title = "Latent flow matching samples in one step"
    tests, parts = [], []
    for model in _latent_models(models, "flow_matching"):
        names = ("over_floor", "crps_ratio", "spread_ratio")
        at_one, at_best = ([model.at(steps, name) for name in names] for steps in (1, model.best_steps))
        known = [one.mean for one in (*at_one, *at_best) if one is not None]
        if len(known) < 6:
            continue
        error, score, spread, best_error, best_score, best_spread = known
        mean_holds = error <= (1 + TOLERANCE) * best_error
        law_holds = score <= (1 + TOLERANCE) * best_score and SPREAD[0] <= spread <= SPREAD[1]
        tests.append((mean_holds, law_holds))
        parts.append(
            f"{model.name}: the mean {'holds' if mean_holds else 'does not hold'} (error / floor {number_text(error)} "
            f"against {number_text(best_error)} at {model.best_steps} steps), the law "
            f"{'holds' if law_holds else 'does not hold'} (spread {number_text(spread)} of the exact one against "
            f"{number_text(best_spread)}, CRPS / exact {number_text(score)} against {number_text(best_score)})"
        )
    if not tests:
        return _missing(title, "latent flow matching measured at one step")
    rule = (
        f" Asked for: error and CRPS at one step within {100 * TOLERANCE:.0f} % of the model's best, spread "
        f"{SPREAD[0]} to {SPREAD[1]} of the exact one. One exact Euler step returns the mean and has no spread."
    )
    return Claim(title, _verdict(mean and law for mean, law in tests), "; ".join(parts) + "." + rule)


def speed(models: Sequence[Model]) -> Claim:
    """Cost of a sample: latent flow matching at one step against physical diffusion at 50, on one device."""
    title = "One-step latent flow matching is up to two orders of magnitude faster than iterative diffusion"
    ratios = {}
    for model in _latent_models(models, "flow_matching"):
        other = twin(model, models, process="diffusion", latent="physical")
        fast, slow = (model.at(1, _COST), other and other.at(_PHYSICAL_STEPS, _COST))
        if other and fast and slow and model.device == other.device:
            ratios[model.name] = slow.mean / fast.mean
    if not ratios:
        return _missing(
            title, f"latent FM at 1 step and physical DM at {_PHYSICAL_STEPS}, of one preset and on one device"
        )
    sentence = f"Time per sample of physical DM at {_PHYSICAL_STEPS} steps over that of one step: " + _each_of(
        {name: number_text(ratio) for name, ratio in ratios.items()}
    )
    return Claim(title, _verdict([max(ratios.values()) >= SPEED_UP]), sentence)


def cheaper_than_physical(models: Sequence[Model]) -> Claim:
    """Cost of each latent model at its best setting against the physical model of the same process at its best."""
    title = "A latent model at its best setting costs less than its physical twin"
    ratios = {}
    for model in _latent_models(models):
        other = twin(model, models, latent="physical")
        mine, theirs = model.at(model.best_steps, _COST), other and other.at(other.best_steps, _COST)
        if other and mine and theirs and model.device == other.device:
            ratios[model.name] = mine.mean / theirs.mean
    if not ratios:
        return _missing(title, "a latent and a physical model of one process, of one preset and on one device")
    sentence = "Time per sample over that of the physical twin, each with the steps of its least CRPS: " + _each_of(
        {name: number_text(ratio) for name, ratio in ratios.items()}
    )
    return Claim(title, _verdict(ratio < 1 for ratio in ratios.values()), sentence)


def _each_of(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {text}" for name, text in texts.items()) + "."


# --- geometry ----------------------------------------------------------------------------------------------------------


def _against_recon(models: Sequence[Model], latent: str) -> tuple[Model, Model] | None:
    """A model in `latent` and its twin in recon: of flow matching where there is one, since the first that has both."""
    candidates = [model for model in models if model.latent == latent]
    for model in sorted(candidates, key=lambda one: one.process != "flow_matching"):
        other = twin(model, models, latent="recon")
        if other is not None:
            return model, other
    return None


def _name(latent: str) -> str:
    """A latent space at the start of a sentence."""
    return LATENTS[latent][0].upper() + LATENTS[latent][1:]


def _geometry(models: Sequence[Model], latent: str, title: str, what: str, measures: Mapping[tuple, int]) -> Claim:
    """Holds measures of a latent space against those of recon.

    Args:
      models: gathered runs.
      latent: the latent space.
      title: the claim.
      what: what is needed to measure it, in words.
      measures: sign by path in latent_geometry (the field comes before the last key): 1 where more is better, else -1.
    """
    pair = _against_recon(models, latent)
    if pair is None:
        return _missing(title, what)
    compared = []
    for (*path, measure), sign in measures.items():
        for field, short in _FIELDS.items():
            mine, theirs = (model.estimate("latent_geometry", *path, field, measure) for model in pair)
            if mine is not None and theirs is not None:
                name = (MEASURES | TOPOLOGY)[measure]
                text = f"{name} of {short} {mine.with_count()} against {theirs.with_count()}"
                compared.append((sign * (mine.mean - theirs.mean) > 0, text))
    if not compared:
        return _missing(title, what)
    better = sum(test for test, _ in compared)
    sentence = f"{pair[0].name} is better than {pair[1].name} in {better} of {len(compared)} measures: "
    return Claim(
        title, _verdict(test for test, _ in compared), sentence + "; ".join(text for _, text in compared) + "."
    )


def distortion(models: Sequence[Model], latent: str) -> Claim:
    """Distance and decoder measures of a regularised latent space against those of recon."""
    title = f"{_name(latent)} latents are less distorted than those of reconstruction alone"
    what = f"latent geometry of {LATENTS[latent]} and recon runs of one process and preset"
    return _geometry(models, latent, title, what, {(measure,): sign for measure, sign in _DISTORTION.items()})


def topology(models: Sequence[Model], latent: str) -> Claim:
    """Bottleneck distances to the full system's persistence diagrams against those of recon."""
    title = f"{_name(latent)} latents keep the topology of the full system better than reconstruction alone"
    what = f"persistence diagrams of {LATENTS[latent]} and recon runs: install closure_jax[topology] and evaluate again"
    return _geometry(models, latent, title, what, {("topology", measure): -1 for measure in TOPOLOGY})


# --- data --------------------------------------------------------------------------------------------------------------


def learning_curve(studies: Sequence[Study], latent: str, measure: str) -> dict[float, tuple[float, float | None]]:
    """Mean of a measure over seeds and the number of trajectories, by fraction of the data, ascending."""
    points = [point for study in studies for point in study.points if point.get("latent") == latent]
    by_fraction: dict[float, list[tuple[float, float | None]]] = {}
    for point in points:
        fraction, value = number(point, "fraction"), number(point, measure)
        if fraction and value is not None and value > 0:
            by_fraction.setdefault(fraction, []).append((value, number(point, "trajectories")))
    return {
        fraction: (float(np.mean([value for value, _ in found])), found[0][1])
        for fraction, found in sorted(by_fraction.items())
    }


def fraction_needed(curve: Mapping[float, float], target: float) -> float | None:
    """The least fraction of the data at which a curve reaches an error, between its points by log-log interpolation."""
    fractions = list(curve)
    for place, fraction in enumerate(fractions):
        error = curve[fraction]
        if error > target:
            continue
        if place == 0:
            return fraction
        before = fractions[place - 1]
        share = math.log(curve[before] / target) / math.log(curve[before] / error)
        return before * (fraction / before) ** share
    return None


def data_efficiency(studies: Sequence[Study], latent: str) -> Claim:
    """Excess error at each share of the data, all of it apart, against recon; and the data that reach recon's last error."""
    title = f"{_name(latent)} latents need less training data than those of reconstruction alone"
    mine, theirs = (learning_curve(studies, name, "excess_error") for name in (latent, "recon"))
    common = sorted(set(mine) & set(theirs))
    if len(common) < 2:
        return _missing(
            title, f"a study of kind data_efficiency with {LATENTS[latent]} and recon at two shares of the data"
        )
    scarce = common[:-1]
    tests = [mine[fraction][0] < (1 - TOLERANCE) * theirs[fraction][0] for fraction in scarce]
    first = scarce[0]
    ratio = mine[first][0] / theirs[first][0]
    sentence = (
        f"The excess error is more than {100 * TOLERANCE:.0f} % under recon's at {sum(tests)} of {len(tests)} shares of the data "
        f"below the largest; at the "
        f"least, {number_text(100 * first)} % of the trajectories, it is {number_text(ratio)} times recon's."
    )
    needed = fraction_needed({fraction: value for fraction, (value, _) in mine.items()}, theirs[common[-1]][0])
    if needed is None:
        sentence += " It never reaches the error that recon has with the most data."
    else:
        share = number_text(100 * needed / common[-1])
        sentence += f" It reaches the error that recon has with the most data with {share} % of them."
    return Claim(title, _verdict(tests), sentence)
