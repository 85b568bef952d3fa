"""The report's figures of latent geometry, their captions, and how to read each measure of `latent_geometry`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from closure_jax.pages.drawing import WIDTH, label, legend, panels, png
from closure_jax.pages.run.style import MODEL, REFERENCE, SEQUENTIAL, TRUTH, Arrays

NOTES = {
    "distance_correlation": "Correlation of latent with full distances over all pairs of states: 1 is a similarity.",
    "distance_rank_correlation": "The same of their ranks: 1 keeps every order of distances.",
    "distance_ratio_spread": "Deviation of log(latent distance / full distance): 0 is a similarity.",
    "trustworthiness": "Whether neighbours in the latent space are neighbours in the full space: 1 if all are.",
    "continuity": "Whether neighbours in the full space stay neighbours in the latent space: 1 if all do.",
    "condition_number": "Most over least stretched latent direction of the decoder, also where no state goes: 1 is best.",
    "distortion": "Deviation of the logarithms of these stretches: 0 stretches all alike.",
    "effective_rank": "How many latent directions the decoder uses alike; at most the entries of the latent.",
    "bottleneck_h0": "Connected components: the largest move between the two persistence diagrams; 0 is the same topology.",
    "wasserstein_h0": "The same: the sum of all moves.",
    "bottleneck_h1": "Loops: the largest move between the two persistence diagrams; compare with the longest life.",
    "wasserstein_h1": "The same: the sum of all moves.",
    "longest_h1_full": "Longest life of a loop in the full space, in median distances.",
    "longest_h1_latent": "The same in the latent space.",
}

CAPTIONS = {
    "latent_embedding": """The test trajectories in the plane of their two leading principal components; a line is a
        trajectory, its colour the time. Left the full space, right the latent space, turned onto the left one and on
        the same scale, since principal components have no sign. A latent space that keeps the geometry shows the same
        picture twice.""",
    "latent_distances": """Shepard diagram: the latent distance of a pair of states against their distance in the full
        space, root mean square over entries. A straight line through zero is a similarity; a wide cloud at small
        distances means that the latent space reorders neighbours. The dotted line has the geometric mean of the
        ratios as its slope.""",
    "persistence_diagrams": """Persistent homology of the cloud of states: each mark is a connected component (H0) or a
        loop (H1), born and dying at the scales of its coordinates, in median distances of its space. Marks near the
        diagonal are noise of the sample. Latent marks on top of full ones mean the same topology.""",
}

_FIELDS = {"vorticity": "vorticity w", "closure": "closure H"}


@png
def latent_embedding(arrays: Arrays) -> Figure:
    """Two principal components of the full and the latent space (columns) for both fields (rows), coloured by time."""
    times = arrays["geometry_time"]
    figure, grid = panels(2, 2, (0.86 * WIDTH, 8.4), sharex="row", sharey="row")
    shade = Normalize(float(times[0]), float(max(times[-1], np.nextafter(times[0], np.inf))))
    for row, (field, name) in zip(grid, _FIELDS.items(), strict=True):
        shares = arrays[f"geometry_{field}_explained"]
        for axes, space, share in zip(row, ("full", "latent"), shares, strict=True):
            held = f"{100 * share:.0f} % of the variance" if np.isfinite(share) else "no variance"
            label(axes, "component 1", "component 2" if space == "full" else "", f"{name}, {space} space ({held})")
            _trajectories(axes, arrays[f"geometry_{field}_embedding_{space}"], times, shade)
    colors = ScalarMappable(shade, SEQUENTIAL)
    bar = figure.colorbar(colors, ax=grid, location="right", aspect=40, shrink=0.7, pad=0.02)
    bar.set_label("time t")
    bar.outline.set_visible(False)
    return figure


def _trajectories(axes: Axes, points: np.ndarray, times: np.ndarray, shade: Normalize) -> None:
    """Draws (trajectories, snapshots, 2) as thin lines and dots."""
    for track in np.ma.masked_invalid(points):
        pieces = np.ma.stack([track[:-1], track[1:]], axis=1)
        lines = LineCollection(list(pieces.filled(np.nan)), cmap=SEQUENTIAL, norm=shade, linewidth=0.8, alpha=0.7)
        lines.set_array(times[:-1])
        axes.add_collection(lines)
        axes.scatter(track[:, 0], track[:, 1], c=times, cmap=SEQUENTIAL, norm=shade, s=7, linewidths=0)
    axes.set_aspect("equal")
    axes.autoscale_view()


@png
def latent_distances(arrays: Arrays) -> Figure:
    """Latent against full distances of pairs of states (Shepard diagram), for both fields."""
    figure, (row,) = panels(1, 2, (WIDTH, 4.3))
    for axes, (field, name) in zip(row, _FIELDS.items(), strict=True):
        full, latent = (np.asarray(d, float) for d in arrays[f"geometry_{field}_distances"])
        label(axes, "distance in the full space", "distance in the latent space", name)
        shown = (full > 0) & (latent > 0)
        if shown.any():
            slope = float(np.exp(np.mean(np.log(latent[shown] / full[shown]))))
            far = 1.04 * full.max()
            bins = axes.hexbin(full, latent, gridsize=60, bins="log", mincnt=1, cmap=SEQUENTIAL, linewidths=0.1)
            axes.plot([0, far], [0, slope * far], label=f"latent = {slope:.3g} full", **REFERENCE)
            axes.set(xlim=(0, far), ylim=(0, 1.04 * latent.max()))
            bar = figure.colorbar(bins, ax=axes, aspect=30, shrink=0.9)
            bar.set_label("pairs")
            bar.outline.set_visible(False)
        legend(axes, loc="upper left")
    return figure


@png
def persistence_diagrams(arrays: Arrays) -> Figure:
    """Birth and death of components and loops in the full and the latent space, for both fields."""
    figure, (row,) = panels(1, 2, (WIDTH, 4.6))
    for axes, (field, name) in zip(row, _FIELDS.items(), strict=True):
        label(axes, "birth (median distances)", "death (median distances)", name)
        diagrams = {space: arrays[f"geometry_{field}_persistence_{space}"] for space in ("full", "latent")}
        for dimension, marker in enumerate("os"):
            for space, color, size in (("full", TRUTH["color"], 42), ("latent", MODEL["color"], 16)):
                marks = diagrams[space][diagrams[space][:, 0] == dimension]
                axes.scatter(
                    marks[:, 1],
                    marks[:, 2],
                    s=size,
                    marker=marker,
                    facecolors="none" if space == "full" else color,
                    edgecolors=color if space == "full" else "none",
                    linewidths=0.9,
                    label=f"H{dimension}, {space}",
                    clip_on=False,
                    zorder=3,
                )
        top = 1.05 * max([0.1, *(float(diagram[:, 2].max()) for diagram in diagrams.values() if len(diagram))])
        axes.plot([0, top], [0, top], label="born and dead at once", **REFERENCE)
        axes.set(xlim=(-0.02 * top, top), ylim=(0, top))
        legend(axes, loc="lower right")
    return figure
