"""The paper's own figures, what follows from them, and ours beside them."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from closure_jax.pages.comparison.estimates import Estimate, interval
from closure_jax.pages.comparison.runs import LATENTS, PROCESSES, Model, Run
from closure_jax.pages.comparison.tables import Cell
from closure_jax.pages.results import number
from closure_jax.pages.tables import Table


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the paper's a priori table (10 test states, 100 samples each) and its autoencoder's reconstruction errors.

    Attributes:
      steps: sampler steps.
      mean_squared_error: of the mean of samples against the truth, (1/time^2)^2.
      relative_error: the same as mean over states of ||mean - H|| / ||H||.
      deviation: sample standard deviation, 1/time^2.
      reconstruction_vorticity, reconstruction_closure: relative errors, None where there is no autoencoder.
    """

    process: str
    latent: str
    steps: int
    mean_squared_error: float
    relative_error: float
    deviation: float
    reconstruction_vorticity: float | None = None
    reconstruction_closure: float | None = None

    @property
    def name(self) -> str:
        """As ours, marked as published."""
        return f"{PROCESSES[self.process]} {LATENTS[self.latent]}, published"


SOURCE = "Dong, Yang, Wu, arXiv 2602.17089, Computer Physics Communications 328 (2026) 110341"
PUBLISHED_STATES, PUBLISHED_SAMPLES = 10, 100
NOISE_ALPHA = 0.005
PUBLISHED = (
    Published("diffusion", "physical", 50, 4.288e-4, 8.329e-2, 1.944e-2),
    Published("flow_matching", "physical", 50, 4.548e-4, 8.556e-2, 1.998e-2),
    Published("interpolant_gaussian", "physical", 50, 4.575e-4, 8.617e-2, 2.046e-2),
    Published("interpolant_empirical", "physical", 50, 4.497e-4, 8.553e-2, 2.057e-2),
    Published("diffusion", "joint", 10, 4.889e-4, 8.985e-2, 1.890e-2, 2.49e-3, 4.03e-2),
    Published("interpolant_gaussian", "joint", 10, 5.132e-4, 9.221e-2, 1.506e-2, 7.65e-3, 2.43e-2),
)
"""Figures of `SOURCE`, whose noise is that of the paper preset."""

EXACT_DEVIATION = 0.01995
"""Pointwise standard deviation of the exact closure's noise there, sigma sqrt(kappa / (4 pi alpha dt)), 1/time^2."""


def error_over_floor(mean_squared_error: float, deviation: float) -> float:
    """Root of the mean squared error over its floor, which is the variance of the noise."""
    return math.sqrt(mean_squared_error) / deviation


def excess_error(
    mean_squared_error: float, relative_error: float, exact_deviation: float, deviation: float, samples: int
) -> float:
    """What a better model could still lose, relative to the norm of H, from published figures alone.

        MSE = exact variance + variance of samples / number of samples + (error of the model's mean)^2

    The last term's root is taken in units of sqrt(MSE) / relative error, the root mean square of H. 0 where the sum of the
    first two is over the MSE.

    Args:
      mean_squared_error: of the mean of samples against the truth, (1/time^2)^2.
      relative_error: root of the same over the root mean square of H.
      exact_deviation: standard deviation of the exact noise, 1/time^2.
      deviation: standard deviation of the samples, 1/time^2.
      samples: number of samples a state.
    """
    left = mean_squared_error - exact_deviation**2 - deviation**2 / samples
    return math.sqrt(max(0.0, left)) * relative_error / math.sqrt(mean_squared_error)


_COLUMNS = {  # heading: factor from the figure to what is shown
    "MSE · 10⁴": 1e4,
    "relative error, %": 100,
    "sample deviation · 10²": 100,
    "√(MSE / floor)": 1,
    "excess error, %": 100,
    "reconstruction of w, %": 100,
    "of H, %": 100,
}


def floor_uncertainty(states: int) -> float:
    """Relative standard deviation of the noise's mean square over the fields of `states` states: sqrt(4 pi alpha / states).

    For a Gaussian field with spectrum S the mean square over the domain has relative variance 2 sum S^2 / (sum S)^2; here
    S = exp(-alpha (2 pi k)^2), alpha = 0.005, whose sums over all wavenumbers are 1 / (4 pi alpha) and 1 / (8 pi alpha).
    """
    return math.sqrt(4 * math.pi * NOISE_ALPHA / states)


def published_table(models: Sequence[Model]) -> Table:
    """Each published row with ours of the same process and latent space under it, then the rest of ours."""
    rows: list[Sequence[Cell]] = []
    rest = list(models)
    for one in PUBLISHED:
        error, deviation = one.mean_squared_error, one.deviation
        over_floor = error_over_floor(error, EXACT_DEVIATION)
        excess = excess_error(error, one.relative_error, EXACT_DEVIATION, deviation, PUBLISHED_SAMPLES)
        figures = (error, one.relative_error, deviation, over_floor, excess)
        figures += (one.reconstruction_vorticity, one.reconstruction_closure)
        rows.append(_row(one.name, one.steps, [interval([figure]) for figure in figures]))
        for model in [model for model in rest if (model.process, model.latent) == (one.process, one.latent)]:
            rest.remove(model)
            rows.append(_like_published(model, one.steps))
    rows += [_like_published(model, 50 if model.latent == "physical" else 10) for model in rest]
    intro = (
        f"Published figures ({SOURCE}; {PUBLISHED_STATES} test states, {PUBLISHED_SAMPLES} samples each) beside ours at the "
        f"nearest number of sampler steps. The floor of the MSE is the variance of the noise, {EXACT_DEVIATION}² = "
        f"{EXACT_DEVIATION**2:.3g}, so that most of each error is irreducible; √(MSE / floor) and the excess error, "
        "relative to the norm of H, are computed here, for both by the same formula from MSE, relative error and "
        f"deviation. The noise drawn for {PUBLISHED_STATES} states varies: their floor by "
        f"{100 * floor_uncertainty(PUBLISHED_STATES):.0f} % (one standard deviation), in all rows of these states alike; "
        "the error / floor and the excess error of the first table, against the exact mean, are free of that. Relative "
        "errors depend on the times of the test states as well: H grows as the flow spins up."
    )
    return Table(("model", "sampler steps", *_COLUMNS), rows, intro=intro)


def _row(name: str, steps: int | None, figures: Sequence[Estimate | None]) -> Sequence[Cell]:
    scaled = (one and one.scaled(factor) for one, factor in zip(figures, _COLUMNS.values(), strict=True))
    return name, steps, *scaled


def _like_published(model: Model, steps: int) -> Sequence[Cell]:
    """One of our models in the columns of the published table."""
    nearest = model.nearest_steps(steps)

    def of_run(derive: Callable[[float, float, float, float, int], float]) -> Estimate | None:
        def measure(run: Run) -> float | None:
            at = ("a_priori", "by_steps", str(nearest))
            error, relative = number(run.results, *at, "mean_squared_error"), number(run.results, *at, "relative_error")
            ratio, exact = (
                number(run.results, *at, "spread_ratio"),
                number(run.results, "a_priori", "exact_standard_deviation"),
            )
            samples = number(run.results, "a_priori", "samples")
            if not error or not exact or not samples or relative is None or ratio is None:
                return None
            return derive(error, relative, exact, ratio * exact, int(samples))

        return model.derived(measure)

    figures = [
        model.at(nearest, "mean_squared_error"),
        model.at(nearest, "relative_error"),
        of_run(lambda error, relative, exact, deviation, samples: deviation),
        of_run(lambda error, relative, exact, deviation, samples: error_over_floor(error, exact)),
        of_run(excess_error),
        model.estimate("autoencoder", "vorticity", "relative_error"),
        model.estimate("autoencoder", "closure", "relative_error"),
    ]
    return _row(model.name, nearest, figures)
