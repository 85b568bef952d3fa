"""Latent geometry: what the encoder does to the distances, neighbourhoods and topology of the flow's states.

Full space x: fields normalised as the encoder sees them. Latent space z: standardised latents, as StochasticClosure uses
them. A distance is Euclidean and counted per entry (divided by the square root of the number of entries), and no measure
changes when either space is scaled. The states are test fields, spread evenly over the test trajectories.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from scipy.stats import rankdata

from closure_jax.closure import Scaling, StochasticClosure, apply
from closure_jax.data.batches import in_blocks
from closure_jax.data.dataset import FIELDS, Dataset
from closure_jax.evaluation import topology
from closure_jax.latent import diffusion_potential

_JACOBIAN_POINTS = 4  # states at which the decoder is differentiated, fewer where there are few states
_STATES_PER_POINT = 12
_TANGENTS = 32  # latent directions pushed through the decoder at once
_FEWEST = 8  # states under which neighbourhoods mean nothing
_NEIGHBOURS = 10
_SHOWN_PAIRS = 20_000


def evaluate(dataset: Dataset, model: StochasticClosure, states: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `latent_geometry` part of results.json, and arrays for the report; about `states` test fields are looked at.

    Returns:
      Results: {"states", "neighbours", "conditional_smoothness", "vorticity", "closure", "topology"}; the two fields have
      the measures below by name, "topology" has those of `topology.compare` by field. Where fewer than 8 states can be
      had, or latents are not finite, {"missing": why}.
      Arrays: `geometry_time` (snapshots,) and by field `geometry_FIELD_` + `embedding_full`, `embedding_latent`
      (trajectories, snapshots, 2), `explained` (2,), `distances` (2, pairs), `persistence_full`, `persistence_latent`.
    """
    trajectories, snapshots = dataset.vorticity["test"].shape[:2]
    rows, columns = spread(trajectories, snapshots, states)
    count = len(rows) * len(columns)
    if count < _FEWEST:
        return {"missing": f"the data hold {count} test fields, and {_FEWEST} are needed"}, {}
    neighbours = min(_NEIGHBOURS, count // 4)
    results: dict[str, Any] = {"states": count, "neighbours": neighbours, "topology": {}}
    arrays: dict[str, np.ndarray] = {"geometry_time": dataset.time[columns]}
    distances: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for field in FIELDS:
        values = getattr(dataset, field)["test"][np.ix_(rows, columns)]
        full, latent = spaces(model, field, values.reshape(count, *values.shape[2:]))
        if not (np.isfinite(full).all() and np.isfinite(latent).all()):
            return {"missing": f"latents of the {field} are not finite"}, {}
        pair = distances[field] = pairwise_distances(full), pairwise_distances(latent)
        points = np.linspace(0, count - 1, max(1, min(_JACOBIAN_POINTS, count // _STATES_PER_POINT))).astype(int)
        results[field] = distance_measures(*pair, neighbours) | decoder_measures(model, field, latent[points])
        found, diagrams = topology.compare(*pair)
        results["topology"] = found if "missing" in found else results["topology"] | {field: found}
        arrays |= {f"geometry_{field}_persistence_{name}": diagram for name, diagram in diagrams.items()}
        shown = _embeddings(full, latent, values.shape[:2]) | {"distances": _some_pairs(*pair)}
        arrays |= {f"geometry_{field}_{name}": array for name, array in shown.items()}
    trajectory = np.repeat(rows, len(columns))
    own = {field: [_in_own_units(one) for one in pair] for field, pair in distances.items()}
    in_full, in_latent = (conditional_smoothness(own["vorticity"][i], own["closure"][i], trajectory) for i in (0, 1))
    results["conditional_smoothness"] = in_latent / in_full if in_full > 0 else float("nan")
    return results, arrays


def _in_own_units(distances: np.ndarray) -> np.ndarray:
    """Over their root mean square: the unit of a latent is arbitrary."""
    return distances / max(float(np.sqrt(np.mean(distances**2, dtype=np.float64))), 1e-30)


def spread(trajectories: int, snapshots: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(trajectories taken, snapshots taken of each): about `count` states together, as many of each trajectory."""
    rows = np.unique(np.linspace(0, trajectories - 1, min(trajectories, count // 2)).round().astype(int))
    columns = np.unique(np.linspace(0, snapshots - 1, min(snapshots, count // len(rows))).round().astype(int))
    return rows, columns


def spaces(model: StochasticClosure, field: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised fields (N, n * n) and standardised latents (N, r, r, c), float32, of `values` (N, n, n) in physical units."""
    params, scalings = model.params[field]["encoder"], (model.scalings[field], model.scalings[f"latent_{field}"])
    full = np.asarray(scalings[0].apply(values)).reshape(len(values), -1)
    return full, in_blocks(lambda block: _encode(model.encoder, params, scalings, block), values)


@functools.partial(jax.jit, static_argnums=0)  # one program for both fields
def _encode(encoder: nn.Module, params: Any, scalings: tuple[Scaling, Scaling], fields: jax.Array) -> jax.Array:
    return scalings[1].apply(apply(encoder, params, scalings[0].apply(fields)))


def pairwise_distances(points: np.ndarray) -> np.ndarray:
    """(N, ...) -> (N, N) Euclidean distances per entry; in float64, as near points would cancel in float32."""
    flat = points.reshape(len(points), -1).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    products = flat @ flat.T
    squares = np.diag(products)
    squared = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(squared / flat.shape[1])


def distance_measures(full: np.ndarray, latent: np.ndarray, neighbours: int) -> dict[str, float]:
    """Measures of two (N, N) distance matrices of the same states.

    Returns:
      distance_correlation: Pearson correlation of the distances of all pairs (not Szekely's statistic of that name).
      distance_rank_correlation: Spearman's, of their ranks.
      distance_ratio_spread: standard deviation over pairs of log(d_z / d_x); 0 is an isometry up to scale.
      trustworthiness, continuity: see `trustworthiness`; continuity is that of the full space for the latent.
    """
    pairs = np.triu_indices(len(full), 1)
    d_x, d_z = full[pairs], latent[pairs]
    with np.errstate(invalid="ignore", divide="ignore"):  # a collapsed latent: all distances 0
        correlation = np.corrcoef(d_x, d_z)[0, 1]
        rank_correlation = np.corrcoef(rankdata(d_x), rankdata(d_z))[0, 1]
        ratio_spread = np.std(np.log(d_z / d_x))
    return {
        "distance_correlation": float(correlation),
        "distance_rank_correlation": float(rank_correlation),
        "distance_ratio_spread": float(ratio_spread),
        "trustworthiness": trustworthiness(full, latent, neighbours),
        "continuity": trustworthiness(latent, full, neighbours),
    }


def trustworthiness(reference: np.ndarray, shown: np.ndarray, neighbours: int) -> float:
    """Whether neighbours in `shown` are neighbours in `reference`: 1 if all are (Venna & Kaski, ICANN 2001).

        1 - 2 / (N k (2N - 3k - 1)) sum_i sum_{j in U_k(i)} (r(i, j) - k)

    U_k(i) are those of the k nearest of i in `shown` that are not in `reference`, r(i, j) their rank there. With the two
    matrices swapped it is the continuity.

    Args:
      reference, shown: (N, N) distances.
      neighbours: k, less than N / 2.
    """
    count, k = len(reference), neighbours
    near, ranks = _ranks(shown) <= k, _ranks(reference)
    intruders = near & (ranks > k)
    return float(1 - 2 / (count * k * (2 * count - 3 * k - 1)) * np.sum((ranks - k)[intruders]))


def _ranks(distances: np.ndarray) -> np.ndarray:
    """(N, N): place of j in the order of distance from i; 0 is i itself, 1 its nearest."""
    ordered = distances.copy()
    np.fill_diagonal(ordered, -1.0)
    order = np.argsort(ordered, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(len(order))[None, :], axis=1)
    return ranks


def conditional_smoothness(vorticity: np.ndarray, closure: np.ndarray, trajectory: np.ndarray) -> float:
    """How far the closure moves between neighbouring states, mean over states i of

        ||H(i) - H(nn)|| / ||w(i) - w(nn)||,      nn = the state of another trajectory whose vorticity is nearest to w(i)

    in one space; `evaluate` reports the latent's over the full space's. Under 1 the conditional map w -> H is smoother in
    the latent space, and so easier to learn. H carries its noise, in both spaces. Not a number for a single trajectory.

    Args:
      vorticity, closure: (N, N) distances of the states.
      trajectory: (N,) which trajectory each state is of.
    """
    other = np.where(trajectory[:, None] == trajectory[None, :], np.inf, vorticity)
    nearest, rows = np.argmin(other, axis=1), np.arange(len(vorticity))
    step = other[rows, nearest]
    if not (np.isfinite(step).all() and step.min() > 0):
        return float("nan")
    return float(np.mean(closure[rows, nearest] / step))


def decoder_measures(model: StochasticClosure, field: str, latents: np.ndarray) -> dict[str, float]:
    """How unevenly the decoder stretches latent directions, from its pullback metric J^T J at some latents (P, r, r, c).

    J is the decoder's derivative, its singular values s the square roots of the metric's eigenvalues. All latent directions
    count, those as well that no state of the flow takes.

    Returns:
      condition_number: median over points of s_max / s_min; 1 is a similarity.
      distortion: median of the standard deviation of log s, which a single small value does not rule; 0 is a similarity.
      effective_rank: median of exp(entropy of s / sum s) (Roy & Vetterli, EUSIPCO 2007); at most the number of entries.
    """
    entries, params = latents[0].size, model.params[field]["decoder"]
    raw = np.asarray(model.scalings[f"latent_{field}"].invert(latents))[:, None]  # scale and shift change no measure
    if not jax.tree.leaves(params) and jax.eval_shape(model.decoder.apply, params, raw[0]).size == entries:
        return {"condition_number": 1.0, "distortion": 0.0, "effective_rank": float(entries)}  # physical space
    decode = cast(Callable[[Any, jax.Array], jax.Array], model.decoder.apply)  # which makes no collection mutable
    values = singular_values(decode, params, raw)
    if not (np.isfinite(values).all() and values.max() > 0):
        return dict.fromkeys(("condition_number", "distortion", "effective_rank"), float("nan"))
    # what is smaller cannot be told from rounding in float32
    values = np.maximum(values, values.max(axis=1, keepdims=True) * np.finfo(np.float32).eps)
    share = values / values.sum(axis=1, keepdims=True)
    return {
        "condition_number": float(np.median(values[:, 0] / values[:, -1])),
        "distortion": float(np.median(np.std(np.log(values), axis=1))),
        "effective_rank": float(np.median(np.exp(-np.sum(share * np.log(share), axis=1)))),
    }


def singular_values(function: Callable[[Any, jax.Array], jax.Array], params: Any, points: np.ndarray) -> np.ndarray:
    """Singular values, descending, of the derivative of function(params, z) by z at each of `points`.

    Args:
      function: (params, one point) -> an array.
      params: passed on; not differentiated.
      points: (P, ...).
    Returns:
      (P, min(entries of a point, entries of a value)); not a number where the derivative is not finite.
    """
    jacobians = [np.asarray(_jacobian(function, params, z), np.float64).reshape(z.size, -1) for z in points]
    if not all(np.isfinite(jacobian).all() for jacobian in jacobians):
        return np.full((len(points), min(jacobians[0].shape)), np.nan)
    return np.stack([_roots(jacobian) for jacobian in jacobians])


def _roots(matrix: np.ndarray) -> np.ndarray:
    """Singular values in float64, the roots of the eigenvalues of the smaller product: many times faster than their own
    decomposition, and off by 1e-8 of the largest."""
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    return np.sqrt(np.maximum(np.linalg.eigvalsh(product)[::-1], 0))


def _jacobian(function: Callable[[Any, jax.Array], jax.Array], params: Any, point: jax.Array) -> np.ndarray:
    """(entries of the point, ...): the derivative in each direction of the point's basis, a few directions at once."""
    basis = np.eye(point.size, dtype=point.dtype).reshape(point.size, *point.shape)
    # not a loop of jax's: in one, XLA on a CPU takes a slow path for derivatives of convolutions
    parts = [basis[first : first + _TANGENTS] for first in range(0, point.size, _TANGENTS)]
    return np.concatenate([_pushed(function, params, point, part) for part in parts])


@functools.partial(jax.jit, static_argnums=0)  # one program for all points and both fields
def _pushed(
    function: Callable[[Any, jax.Array], jax.Array], params: Any, point: jax.Array, tangents: jax.Array
) -> jax.Array:
    return jax.vmap(lambda tangent: jax.jvp(lambda z: function(params, z), (point,), (tangent,))[1])(tangents)


def _embeddings(full: np.ndarray, latent: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Two leading principal components of both spaces, unit variance together, and the share of variance they hold."""
    flat = [points.reshape(len(points), -1) for points in (full, latent)]
    planes = [diffusion_potential.principal_components(points, 2, seed=0) for points in flat]
    total = [np.sum((points - points.mean(axis=0)) ** 2) for points in flat]
    held = [np.sum(plane**2) for plane in planes]
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = np.array(held) / np.array(total)
        a, b = (plane / np.sqrt(part / len(plane)) for plane, part in zip(planes, held, strict=True))
    if np.isfinite(b).all():
        left, _, right = np.linalg.svd(b.T @ a)
        b = b @ (left @ right)  # components have no sign: turned onto those of the full space (orthogonal Procrustes)
    return {"embedding_full": a.reshape(*shape, 2), "embedding_latent": b.reshape(*shape, 2), "explained": explained}


def _some_pairs(full: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """(2, pairs): both distances of at most `_SHOWN_PAIRS` pairs, evenly spread over all."""
    rows, columns = np.triu_indices(len(full), 1)
    stride = -(-len(rows) // _SHOWN_PAIRS)
    return np.stack([d[rows[::stride], columns[::stride]] for d in (full, latent)])
