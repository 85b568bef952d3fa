"""A batch is a pure function of (seed, step): a restart needs no saved iterator."""

import numpy as np


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


_cache: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    key = (seed, epoch, count)
    if key not in _cache:
        if len(_cache) > 3:
            _cache.clear()
        _cache[key] = np.random.default_rng([seed, epoch]).permutation(count)
    return _cache[key]
