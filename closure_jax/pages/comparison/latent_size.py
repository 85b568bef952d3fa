"""A study of kind latent_size: the geometry of latents of several sizes; a table and a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from closure_jax.pages import drawing
from closure_jax.pages.comparison import style
from closure_jax.pages.comparison.estimates import Estimate, interval
from closure_jax.pages.comparison.latents import FIELDS, MEASURES, NEAR_ONE
from closure_jax.pages.comparison.runs import LATENTS, Study
from closure_jax.pages.results import number
from closure_jax.pages.tables import Table

CAPTIONS = {
    "latent_size": """What a smaller latent loses: scatter of the logarithm of latent over full distances (0 keeps them up to
        scale), what the rank correlation of distances lacks to 1, and the error of reconstruction, against points a side;
        filled for w and open for H. The line of recon alone decided at which size the others were trained."""
}
"""How to read each figure, by name."""

Point = Mapping[str, Any]
"""One run: latent, resolution, seed, whether it was trained and judged as a whole, and measures."""

_GEOMETRY = ("distance_ratio_spread", "distance_rank_correlation", "trustworthiness", "distortion")
_SHOWN = {**{name: MEASURES[name] for name in _GEOMETRY}, "reconstruction": "reconstruction"}
_DRAWN = ("distance_ratio_spread", "distance_rank_correlation", "reconstruction")
_OF_SAMPLES = {"over_floor": "error / floor", "spread_ratio": "spread ratio", "crps_ratio": "CRPS / exact"}


def points_of(studies: Sequence[Study]) -> dict[tuple[str, int], list[Point]]:
    """By latent and points a side, of studies of kind latent_size: its whole runs where there are some, else its geometry.

    A latent is named after its preset too where there are several.
    """
    mine = [study for study in studies if study.kind == "latent_size"]
    several = len({study.preset for study in mine}) > 1
    found: dict[tuple[str, int], list[Point]] = {}
    for study in mine:
        for point in study.points:
            latent = str(point["latent"])
            name = f"{study.preset} {LATENTS.get(latent, latent)}" if several else latent
            found.setdefault((name, int(point["resolution"])), []).append(point)
    return {name: [one for one in group if one.get("whole")] or group for name, group in found.items()}


def how_chosen(studies: Sequence[Study]) -> str:
    """A sentence for each study: at which sizes recon passes the bound, and where the others were trained."""
    said = []
    for study in (study for study in studies if study.kind == "latent_size"):
        about, at = (
            study.about,
            ", ".join(f"{size}²" for size in sorted(study.about.get("distorted", []), reverse=True)),
        )
        said.append(
            f"Recon alone passes {about.get('bound', 0):g} of distance ratio spread, of w or of H, at {at or 'no size'}: the "
            f"whole runs have {about.get('chosen', 0)}², {'the largest of these' if at else 'the smallest'}."
        )
    return " ".join(said)


def measure(points: Sequence[Point], name: str, field: str) -> Estimate | None:
    """Estimate over seeds of a measure of one field, or of what it lacks to 1."""
    values = [number(point, f"{name}_{field}") for point in points]
    return interval([None if one is None else 1 - one if name in NEAR_ONE else one for one in values])


def table(found: Mapping[tuple[str, int], Sequence[Point]], chosen: str) -> Table:
    """A row for each latent, size and field; `chosen` says how the size of the whole runs was."""
    rows = [
        (
            f"{LATENTS.get(latent, latent)}, {size}²",
            FIELDS[field],
            len(points),
            *(measure(points, name, field) for name in _SHOWN),
            *(
                interval([number(point, name) for point in points])
                if field == "closure" and points[0].get("whole")
                else None
                for name in _OF_SAMPLES
            ),
        )
        for (latent, size), points in found.items()
        for field in FIELDS
    ]
    intro = (
        "Latents of several sizes: what encoding does to distances and neighbourhoods of test fields, the error of "
        "reconstruction, and of those that were trained as a whole the samples at 10 steps. 0 is perfect for the first five, 1 "
        f"for the last three. {chosen}"
    )
    return Table(("latent", "field", "seeds", *_SHOWN.values(), *_OF_SAMPLES.values()), rows, intro=intro)


@style.small_png
def latent_size(found: Mapping[tuple[str, int], Sequence[Point]]) -> Figure:
    """Three measures against the size, a line for each latent and field."""
    figure, (panels,) = drawing.panels(1, 3, style.size_beside_legend(2 * len({latent for latent, _ in found})))
    sizes = sorted({size for _, size in found})
    for axes, name in zip(panels, _DRAWN, strict=True):
        drawing.label(axes, "points a side", "", _SHOWN[name], "log", "log")
        for latent in dict.fromkeys(latent for latent, _ in found):
            mine = sorted(size for other, size in found if other == latent)
            dashes, marker = style.LATENT_STYLES.get(latent, style.OTHER_STYLE)
            color = style.LATENT_COLORS.get(latent, style.MORE_COLORS[0])
            for field in FIELDS:
                values = [measure(found[latent, size], name, field) for size in mine]
                look = {"color": color, "linestyle": dashes, "marker": marker}
                look |= {"markerfacecolor": "white"} if field == "closure" else {}
                label = f"{LATENTS.get(latent, latent)}, {FIELDS[field]}"
                drawing.plot(axes, mine, [None if one is None else one.mean for one in values], label=label, **look)
        axes.set_xticks(sizes, labels=[str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
    style.legend_beside(figure, panels, "latent, field")
    return figure
