"""Topology of a point cloud by persistent homology: connected components (H0) and loops (H1) over all scales.

The packages `ripser` and `persim` are an optional extra, closure_jax[topology]. Everything else works without them.
"""

import importlib
from typing import Any

import numpy as np

MISSING = "install closure_jax[topology] for persistent homology"

_MOST_POINTS = 200  # of a cloud; H1 of a Rips complex costs the cube of their number


def packages() -> tuple[Any, Any] | None:
    """(ripser, persim), None where either is not installed."""
    try:
        return importlib.import_module("ripser"), importlib.import_module("persim")
    except ImportError:
        return None


def compare(full: np.ndarray, latent: np.ndarray) -> tuple[dict[str, float | str], dict[str, np.ndarray]]:
    """Distances between the persistence diagrams of two clouds of the same points, and the diagrams.

    Each cloud is measured in units of its own median distance, so that scale does not count.

    Args:
      full, latent: (N, N) distances; at most 200 points, evenly spread over N, are used.
    Returns:
      {"bottleneck_h0", "wasserstein_h0", "bottleneck_h1", "wasserstein_h1", "longest_h1_full", "longest_h1_latent"}: the
      bottleneck distance (the largest move that turns one diagram into the other), the 1-Wasserstein distance (the sum of
      the moves), and the longest life of a loop; and {"full", "latent"}, (classes, 3): dimension, birth, death of each
      class that dies. Without the packages {"missing": what to install} and {}.
    """
    tools = packages()
    if tools is None:
        return {"missing": MISSING}, {}
    _, persim = tools
    diagrams = {name: persistence(distances) for name, distances in (("full", full), ("latent", latent))}
    measures: dict[str, float | str] = {}
    for dimension in (0, 1):
        pair = [_classes(diagram, dimension) for diagram in diagrams.values()]
        measures[f"bottleneck_h{dimension}"] = float(persim.bottleneck(*pair))
        measures[f"wasserstein_h{dimension}"] = float(persim.wasserstein(*pair))
    for name, diagram in diagrams.items():
        loops = _classes(diagram, 1)
        measures[f"longest_h1_{name}"] = float(np.max(loops[:, 1] - loops[:, 0], initial=0.0))
    return measures, diagrams


def persistence(distances: np.ndarray) -> np.ndarray:
    """Persistence diagram of the Vietoris-Rips filtration, (classes, 3): dimension (0 or 1), birth, death.

    Args:
      distances: (N, N); at most 200 points, evenly spread over N, are used.
    Returns:
      The classes that die, births and deaths in units of the median distance between the points.
    Raises:
      ImportError: ripser is not installed; see `packages`.
    """
    rows = np.unique(np.linspace(0, len(distances) - 1, _MOST_POINTS).round().astype(int))
    used = np.asarray(distances, np.float64)[np.ix_(rows, rows)]
    unit = float(np.median(used[np.triu_indices(len(used), 1)]))
    ripser = importlib.import_module("ripser")
    diagrams = ripser.ripser(used / (unit if unit > 0 else 1.0), maxdim=1, distance_matrix=True)["dgms"]
    classes = np.concatenate([np.column_stack([np.full(len(d), k), d]) for k, d in enumerate(diagrams)])
    return classes[np.isfinite(classes).all(axis=1)]


def _classes(diagram: np.ndarray, dimension: int) -> np.ndarray:
    """(classes, 2): birth and death of one dimension."""
    return diagram[diagram[:, 0] == dimension, 1:]
