"""A batch is a pure function of (seed, step): a restart needs no saved iterator."""

from typing import Any

import numpy as np

_BLOCK = 256  # fields that pass through a network together


def batch_indices(seed: int, step: int, count: int, size: int) -> np.ndarray:
    """Which examples make up the batch of a step: (size,) whole numbers below `count`.

    Epochs are permutations, laid end to end; a batch may reach over the seam. Each example of an epoch is seen once.
    """
    positions = step * size + np.arange(size)
    epochs = positions // count
    indices = np.empty(size, np.int64)
    for epoch in np.unique(epochs):
        rows = epochs == epoch
        permutation = _permutation(seed, int(epoch), count)
        indices[rows] = permutation[positions[rows] % count]
    return indices


def paired_indices(seed: int, step: int, companions: np.ndarray, size: int) -> np.ndarray:
    """A batch whose second half stands near the first: (size,) whole numbers below the number of examples.

    Args:
      seed, step: as of `batch_indices`, from which the first half comes.
      companions: (count, k), of each example those that may stand beside it; one of them, by chance, does.
      size: of the batch; where it is odd, the last of the first half stands alone.
    """
    first = batch_indices(seed, step, len(companions), size - size // 2)
    chosen = np.random.default_rng([seed, step, companions.shape[1]]).integers(companions.shape[1], size=size // 2)
    return np.concatenate([first, companions[first[: size // 2], chosen]])


_cache: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    key = (seed, epoch, count)
    if key not in _cache:
        if len(_cache) > 3:
            _cache.clear()
        _cache[key] = np.random.default_rng([seed, epoch]).permutation(count)
    return _cache[key]


def in_blocks(function: Any, values: np.ndarray, size: int = _BLOCK) -> np.ndarray:
    """function over blocks of the first axis, joined; the last block is padded, so that one program serves."""
    size = min(size, len(values))
    parts = []
    for start in range(0, len(values), size):
        first = min(start, len(values) - size)
        parts.append(np.asarray(function(values[first : first + size]))[start - first :])
    return np.concatenate(parts)
