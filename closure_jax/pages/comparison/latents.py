"""Latent spaces of several models: what is measured of them, and the tables that have a row for each model and field."""

import dataclasses
from collections.abc import Sequence

from closure_jax.pages.comparison.estimates import Estimate
from closure_jax.pages.comparison.runs import Model, Run
from closure_jax.pages.comparison.tables import Cell
from closure_jax.pages.results import measures_version, number
from closure_jax.pages.tables import Table

FIELDS = {"vorticity": "w", "closure": "H"}
"""Fields that have a latent, and their short names."""

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


def geometry(model: Model, *keys: str) -> Estimate | None:
    """A measure of latent_geometry as it is shown: its distance from 1 where that is what can be read."""
    found = model.estimate("latent_geometry", *keys)
    return dataclasses.replace(found, mean=1 - found.mean) if found and keys[-1] in NEAR_ONE else found


_IN_OWN_UNITS = 3  # version of the measures


def _smoothness(run: Run) -> float | None:
    """Conditional smoothness; of earlier measures it depended on the units of the latents."""
    early = measures_version(run.results) < _IN_OWN_UNITS
    return None if early else number(run.results, "latent_geometry", "conditional_smoothness")


def latent_table(models: Sequence[Model]) -> Table:
    """Reconstruction and geometry of the latent spaces: a row for each model and field."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        for field, short in FIELDS.items():
            cells = [model.estimate("autoencoder", field, "relative_error")]
            cells += [geometry(model, field, measure) for measure in MEASURES]
            cells += [model.estimate("latent_geometry", "topology", field, measure) for measure in TOPOLOGY]
            if field == "closure":
                cells.append(model.derived(_smoothness))
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
        for field, short in FIELDS.items():
            cells = [model.estimate("autoencoder", field, measure) for measure in columns]
            if any(cell is not None for cell in cells):
                rows.append((model.name, short, *cells))
    intro = (
        "What the geometry-aware term does to the latent that is trained with it: mean weight of pairs of neighbours over that "
        "of far pairs, and the term of this latent over that of the latent of reconstruction alone of the same data and seed, "
        "as they are and each multiplied by the factor that makes its term least. Near 1 the term finds nothing to mend."
    )
    return Table(("model", "field", *columns.values()), rows, intro=intro)
