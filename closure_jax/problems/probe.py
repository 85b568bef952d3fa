"""A digest of what an equation computes, so that data made by one equation are never taken for those of another."""

import contextlib
import functools
import hashlib
import json
from typing import Any

import jax
import numpy as np

from closure_jax.physics.flow import KolmogorovFlow

_PROJECTIONS = 4
_STEP = 0.1  # of the implicit solve; any that is neither negligible nor overwhelming


@functools.lru_cache(maxsize=16)
def equation_digest(flow: KolmogorovFlow) -> str:
    """Twelve hexadecimal digits that change with any term of the equation on the flow's grid.

    A fixed random state passes through the explicit terms closed by advection, the implicit terms and the implicit solve, in
    double precision. Each result is told by its norm and a few random projections, relative to the norm, to four digits:
    the same on every machine, where rounding is 1e-15, and different for a term that changes by about 1e-3.
    """
    n = flow.grid.shape[0]
    rng = np.random.default_rng(0)
    probe = np.fft.rfft2(rng.standard_normal((n, n)))
    weights = rng.standard_normal((_PROJECTIONS, 2, n, n // 2 + 1))

    def terms(state: jax.Array) -> tuple[jax.Array, ...]:
        closed = flow.with_advection()
        return closed.explicit_terms(state), closed.implicit_terms(state), closed.implicit_solve(state, _STEP)

    with jax.enable_x64(True), _on_cpu():
        results = [np.asarray(term) for term in jax.jit(terms)(probe)]
    told = [_told(np.stack([np.real(term), np.imag(term)]), weights) for term in results]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _told(values: np.ndarray, weights: np.ndarray) -> list[str]:
    """Norm, and projections over the norm, as texts of four digits; zeros where all values are."""
    norm = float(np.sqrt(np.sum(values**2)))
    if norm == 0:
        return ["0"]
    projections = np.tensordot(weights, values, axes=values.ndim) / norm  # of order 1, since weights are normal
    return [f"{norm:.3e}", *(f"{round(float(p), 4) + 0.0:.4f}" for p in projections)]


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """The CPU as the default device where jax has one: accelerators may have no double precision."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
