"""The paper's claims, held against the runs of a comparison: each verdict and each figure in it is computed.

A verdict is that of intervals over seeds, see `verdicts`; two models are compared seed by seed, since they share the data. A
sentence ends with the preset, the networks, the device and the seeds that it is about.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from closure_jax.pages.comparison import verdicts
from closure_jax.pages.comparison.estimates import interval
from closure_jax.pages.comparison.latents import FIELDS, MEASURES, NEAR_ONE, TOPOLOGY, geometry
from closure_jax.pages.comparison.runs import LATENTS, REGULARISED, Model, Run, Study, twin
from closure_jax.pages.comparison.verdicts import Verdict
from closure_jax.pages.results import number
from closure_jax.pages.tables import number_text

TOLERANCE = 0.05
"""Numbers that differ by less than this share are alike."""
SPREAD = (0.8, 1.25)
"""Spread ratios with which samples still stand for the law: one exact Euler step has 0, and returns the mean."""
SPEED_UP = 100.0
"""Two orders of magnitude."""
_PHYSICAL_STEPS = 50
_COST = "milliseconds_per_sample"
_DISTORTION = {"distance_ratio_spread": -1, "distortion": -1, "distance_correlation": 1}  # sign: 1 where more is better
_NOTHING = {"distance_ratio_spread": 2e-3, "distortion": 1e-2, "distance_correlation": 1e-3}
"""Differences that mean nothing however small the numbers are: latents of 0.9999 and 0.99999 are both isometric."""
_LEAST = 1e-9
"""Errors under it are 0."""
_NO_FEATURE = 2e-3  # of a persistence diagram, whose distances are those of normalised fields


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
      studies: those of kind data_efficiency are asked, of each preset by itself.
    """
    found = [one_step(models), speed(models), cheaper_than_physical(models)]
    found += [distortion(models, latent) for latent in REGULARISED]
    found += [topology(models, latent) for latent in REGULARISED]
    shares = [study for study in studies if study.kind == "data_efficiency"]
    for preset in dict.fromkeys(study.preset for study in shares) or [""]:
        alike = [study for study in shares if study.preset == preset]
        found += [data_efficiency(alike, latent) for latent in REGULARISED]
    return found


def _missing(title: str, what: str) -> Claim:
    return Claim(title, "not measured", f"Needs {what}.")


def _latent_models(models: Sequence[Model], process: str | None = None) -> list[Model]:
    return [model for model in models if model.latent != "physical" and process in (None, model.process)]


def one_step(models: Sequence[Model]) -> Claim:
    """Error, CRPS and spread of latent flow matching at one step against the same model at its best."""
    title = "Latent flow matching samples in one step"
    tests: list[bool | None] = []
    parts, used = [], []
    for model in _latent_models(models, "flow_matching"):
        best = model.best_steps
        if best is None:
            continue
        error, score = (_ratios(model, measure, best) for measure in ("over_floor", "crps_ratio"))
        spread = [number(run.results, *_A_PRIORI, "1", "spread_ratio") for run in model.runs]
        if not error or not score or None in spread:
            continue
        mean_holds = verdicts.within(error, high=1 + TOLERANCE)
        law_holds = _both(verdicts.within(score, high=1 + TOLERANCE), verdicts.within(spread, *SPREAD))
        tests.append(_both(mean_holds, law_holds))
        used.append(model)
        shown = {measure: [_text(model, steps, measure) for steps in (1, best)] for measure in _SHOWN}
        parts.append(
            f"{model.name}: the mean {verdicts.word(mean_holds)} (error / floor {shown['over_floor'][0]} "
            f"against {shown['over_floor'][1]} at {best} steps), the law "
            f"{verdicts.word(law_holds)} (spread {shown['spread_ratio'][0]} of the exact one against "
            f"{shown['spread_ratio'][1]}, CRPS / exact {shown['crps_ratio'][0]} against {shown['crps_ratio'][1]})"
        )
    if not tests:
        return _missing(title, "latent flow matching measured at one step")
    rule = (
        f" Asked for: error and CRPS at one step within {100 * TOLERANCE:.0f} % of the model's best, spread "
        f"{SPREAD[0]} to {SPREAD[1]} of the exact one. One exact Euler step returns the mean and has no spread."
    )
    return Claim(title, verdicts.of_tests(tests), "; ".join(parts) + "." + rule + _about(used))


_A_PRIORI = ("a_priori", "by_steps")
_SHOWN = ("over_floor", "spread_ratio", "crps_ratio")


def _ratios(model: Model, measure: str, steps: int) -> list[float]:
    """A measure at one step over that at `steps`, by run."""
    pairs = [[number(run.results, *_A_PRIORI, str(n), measure) for n in (1, steps)] for run in model.runs]
    return [one / best for one, best in pairs if one is not None and best]


def _text(model: Model, steps: int, measure: str) -> str:
    found = model.at(steps, measure)
    return "–" if found is None else str(found)


def _both(one: bool | None, other: bool | None) -> bool | None:
    return False if False in (one, other) else None if None in (one, other) else True


def _about(models: Sequence[Model], common: int | None = None) -> str:
    """Preset, networks, device and seeds of what a sentence is about; of models that are compared, how many seeds are common."""

    def all_of(name: str, values: Sequence[object]) -> str:
        return f"{name} {', '.join(dict.fromkeys(map(str, values)))}"

    seeds = sorted({run.config.get("seed", 0) for model in models for run in model.runs})
    facts = [
        all_of("preset", [model.preset for model in models]),
        all_of("networks", [model.setting("network.kind") or "fourier" for model in models]),
        all_of("on", [model.device for model in models]),
        all_of("seeds" if len(seeds) > 1 else "seed", seeds),
    ]
    return f" ({'; '.join(facts)}{_few(len(seeds) if common is None else common, common is not None)})"


def _few(seeds: int, common: bool = False) -> str:
    """Why there is no verdict, where there are too few seeds."""
    if seeds >= verdicts.FEWEST:
        return ""
    return f"; no verdict from fewer than {verdicts.FEWEST} seeds{' in common' if common else ''}"


Measure = Callable[[Run], float | None]


def _paired(model: Model, other: Model, measure: Measure, of_other: Measure | None = None) -> list[tuple[float, float]]:
    """A measure of both, or one of each, by seed that they have in common."""
    theirs = {run.config.get("seed"): (of_other or measure)(run) for run in other.runs}
    pairs = [(measure(run), theirs.get(run.config.get("seed"))) for run in model.runs]
    return [(mine, its) for mine, its in pairs if mine is not None and its is not None]


def _costs(model: Model, steps: int, other: Model, other_steps: int) -> list[float]:
    """Time per sample of `other` over that of `model`, by seed; none on different devices."""
    if model.device != other.device:
        return []

    def cost(steps: int) -> Measure:
        return lambda run: number(run.results, *_A_PRIORI, str(steps), _COST)

    return [its / own for own, its in _paired(model, other, cost(steps), cost(other_steps)) if own > 0]


def speed(models: Sequence[Model]) -> Claim:
    """Cost of a sample: latent flow matching at one step against physical diffusion at 50, on one device."""
    title = "One-step latent flow matching is up to two orders of magnitude faster than iterative diffusion"
    ratios, used = {}, []
    for model in _latent_models(models, "flow_matching"):
        other = twin(model, models, process="diffusion", latent="physical")
        if other and (found := _costs(model, 1, other, _PHYSICAL_STEPS)):
            ratios[model.name] = found
            used += [model, other]
    if not ratios:
        return _missing(
            title, f"latent FM at 1 step and physical DM at {_PHYSICAL_STEPS}, of one preset and on one device"
        )
    sentence = f"Time per sample of physical DM at {_PHYSICAL_STEPS} steps over that of one step: " + _each_of(ratios)
    fastest = max(ratios.values(), key=np.mean)
    about = _about(used, len(fastest))
    return Claim(title, verdicts.of_tests([verdicts.within(fastest, low=SPEED_UP)]), sentence + about)


def cheaper_than_physical(models: Sequence[Model]) -> Claim:
    """Cost of each latent model at its best setting against the physical model of the same process at its best."""
    title = "A latent model at its best setting costs less than its physical twin"
    ratios, used = {}, []
    for model in _latent_models(models):
        other = twin(model, models, latent="physical")
        if other is None or model.best_steps is None or other.best_steps is None:
            continue
        found = [1 / ratio for ratio in _costs(model, model.best_steps, other, other.best_steps)]
        if found:
            ratios[model.name] = found
            used += [model, other]
    if not ratios:
        return _missing(title, "a latent and a physical model of one process, of one preset and on one device")
    sentence = "Time per sample over that of the physical twin, each with the steps of its least CRPS: " + _each_of(
        ratios
    )
    tests = [verdicts.within(found, high=1.0) for found in ratios.values()]
    return Claim(title, verdicts.of_tests(tests), sentence + _about(used, min(map(len, ratios.values()))))


def _each_of(ratios: Mapping[str, Sequence[float]]) -> str:
    return "; ".join(f"{name} {interval(found)}" for name, found in ratios.items()) + "."


# --- geometry ----------------------------------------------------------------------------------------------------------


def _against_recon(models: Sequence[Model], latent: str) -> tuple[Model, Model] | None:
    """A model in `latent` and its twin in recon: of flow matching as its file has it, and of many seeds, where there is one."""
    candidates = [model for model in models if model.latent == latent]
    for model in sorted(candidates, key=lambda one: (one.process != "flow_matching", one.variant, -len(one.runs))):
        other = twin(model, models, latent="recon")
        if other is not None:
            return model, other
    return None


def _name(latent: str) -> str:
    """A latent space at the start of a sentence."""
    return LATENTS[latent][0].upper() + LATENTS[latent][1:]


def _geometry(
    models: Sequence[Model], latent: str, title: str, what: str, measures: Mapping[tuple, tuple[int, float]]
) -> Claim:
    """Holds measures of a latent space against those of recon.

    Args:
      models: gathered runs.
      latent: the latent space.
      title: the claim.
      what: what is needed to measure it, in words.
      measures: by path in latent_geometry (the field comes before the last key) the sign, 1 where more is better, else -1, and
        the difference that means nothing.
    """
    pair = _against_recon(models, latent)
    if pair is None:
        return _missing(title, what)
    compared: list[tuple[verdicts.Outcome, str]] = []
    common = len(_paired(*pair, lambda run: 1.0))
    for (*path, measure), (sign, nothing) in measures.items():
        for field, short in FIELDS.items():
            keys = ("latent_geometry", *path, field, measure)
            values = _paired(*pair, lambda run, keys=keys: number(run.results, *keys))
            mine, theirs = (geometry(model, *keys[1:]) for model in pair)
            if mine is None or theirs is None:
                continue
            margin = max(nothing, TOLERANCE * abs(theirs.mean)) if measure not in NEAR_ONE else nothing
            found = verdicts.outcome([sign * (one - other) for one, other in values], margin)
            text = f"{(MEASURES | TOPOLOGY)[measure]} of {short} {mine} against {theirs}, {found}"
            compared.append((found, text))
    if not compared:
        return _missing(title, what)
    outcomes: list[verdicts.Outcome] = [found for found, _ in compared]
    sentence = (
        f"{pair[0].name} is better than {pair[1].name} in {outcomes.count('better')} of {len(compared)} measures: "
    )
    return Claim(
        title,
        verdicts.of_outcomes(outcomes),
        sentence + "; ".join(text for _, text in compared) + "." + _about(pair, common),
    )


def distortion(models: Sequence[Model], latent: str) -> Claim:
    """Distance and decoder measures of a regularised latent space against those of recon."""
    title = f"{_name(latent)} latents are less distorted than those of reconstruction alone"
    what = f"latent geometry of {LATENTS[latent]} and recon runs of one process and preset"
    return _geometry(
        models, latent, title, what, {(name,): (sign, _NOTHING[name]) for name, sign in _DISTORTION.items()}
    )


def topology(models: Sequence[Model], latent: str) -> Claim:
    """Bottleneck distances to the full system's persistence diagrams against those of recon."""
    title = f"{_name(latent)} latents keep the topology of the full system better than reconstruction alone"
    what = f"persistence diagrams of {LATENTS[latent]} and recon runs: install closure_jax[topology] and evaluate again"
    return _geometry(models, latent, title, what, {("topology", name): (-1, _NO_FEATURE) for name in TOPOLOGY})


# --- data --------------------------------------------------------------------------------------------------------------


def learning_curve(studies: Sequence[Study], latent: str, measure: str) -> dict[float, tuple[float, float | None]]:
    """Mean of a measure over seeds and the number of trajectories, by fraction of the data, ascending."""
    by_fraction: dict[float, list[tuple[float, float | None]]] = {}
    for point in _points(studies, latent):
        fraction, value = number(point, "fraction"), number(point, measure)
        if fraction and value is not None:
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
        reached = max(error, _LEAST)
        if curve[before] <= reached:
            return fraction
        share = math.log(curve[before] / max(target, reached)) / math.log(curve[before] / reached)
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
    outcomes: list[verdicts.Outcome] = [
        verdicts.outcome(_gains(studies, latent, fraction), TOLERANCE) for fraction in scarce
    ]
    first = scarce[0]
    ratio = mine[first][0] / max(theirs[first][0], _LEAST)
    sentence = (
        f"The excess error is more than {100 * TOLERANCE:.0f} % under recon's at {outcomes.count('better')} of {len(outcomes)} "
        f"shares of the data below the largest; at the "
        f"least, {number_text(100 * first)} % of the trajectories, it is {number_text(ratio)} times recon's."
    )
    needed = fraction_needed({fraction: value for fraction, (value, _) in mine.items()}, theirs[common[-1]][0])
    if needed is None:
        sentence += " It never reaches the error that recon has with the most data."
    else:
        share = number_text(100 * needed / common[-1])
        sentence += f" It reaches the error that recon has with the most data with {share} % of them."
    return Claim(title, verdicts.of_outcomes(outcomes), sentence + _about_points(studies, latent))


def _points(studies: Sequence[Study], latent: str) -> list[Mapping[str, Any]]:
    shares = [study for study in studies if study.kind == "data_efficiency"]
    return [point for study in shares for point in study.points if point.get("latent") == latent]


def _gains(studies: Sequence[Study], latent: str, fraction: float) -> list[float]:
    """By seed, the share by which the excess error lies under recon's at a fraction of the data."""
    mine, theirs = (
        {
            point.get("seed"): number(point, "excess_error")
            for point in _points(studies, name)
            if number(point, "fraction") == fraction
        }
        for name in (latent, "recon")
    )
    pairs = [(mine.get(seed), its) for seed, its in theirs.items()]
    return [1 - own / its for own, its in pairs if own is not None and its is not None and its > 0]


def _about_points(studies: Sequence[Study], latent: str) -> str:
    """Preset and seeds of a study's points."""
    points = _points(studies, latent)
    seeds = sorted({point.get("seed", 0) for point in points})
    presets = dict.fromkeys(study.preset for study in studies if study.kind == "data_efficiency" and study.preset)
    where = f"preset {', '.join(presets)}; " if presets else ""
    return f" ({where}{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}{_few(len(seeds))})"
