"""What a draw's mean misses of the closure along true trajectories: the residual, to which rules with a memory are fitted."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from closure_jax import random
from closure_jax.coupling.base import Windows
from closure_jax.coupling.draw import Draw
from closure_jax.errors import check
from closure_jax.physics import spectral

_FIELDS, _FIELDS_OF_PAIRS = 4_096, 256  # of the windows, whose residual is computed; where pairs estimate the mean
_PAIRS = 4  # antithetic pairs that estimate a conditional mean which the draw does not know
_BLOCK = 16  # fields at a time


@dataclasses.dataclass(frozen=True)
class Residual:
    """r = H - E[H | w] along pieces of true trajectories.

    Attributes:
      values: (window, time, n, n), physical units, float64.
      vorticity: (window, time, n, n), where it was taken.
      error_power: (n, n // 2 + 1), what the estimate of the mean adds to the mean of |transform|^2; 0 where the draw knows its
        mean.
    """

    values: Float[np.ndarray, "window time n n"]
    vorticity: Float[np.ndarray, "window time n n"]
    error_power: Float[np.ndarray, "n half"]

    @property
    def error(self) -> float:
        """The variance that the estimate of the mean adds."""
        n = self.error_power.shape[0]
        _, weight = spectral.shells(n)
        return float(np.sum(weight * self.error_power)) / n**4


def residual(draw: Draw, windows: Windows, label: str) -> Residual:
    """The residual on at most 4,096 fields of the windows, 256 where a draw does not know its mean.

    Args:
      draw: whose conditional mean is taken away, its own or that of four antithetic pairs.
      windows: pieces of true trajectories.
      label: what a refusal begins with, 'FIELD=VALUE'.
    Raises:
      UserError: fewer than two windows, or than three fields in each.
    """
    count, times = windows.vorticity.shape[:2]
    check_windows(label, count, times)
    field = jax.ShapeDtypeStruct((1, *windows.vorticity.shape[2:]), jnp.float32)
    most = _FIELDS_OF_PAIRS if jax.eval_shape(draw.mean, field) is None else _FIELDS
    taken = np.linspace(0, count - 1, min(count, most // 4)).round().astype(int)
    length = min(times, most // len(taken))
    span = slice((times - length) // 2, (times - length) // 2 + length)
    vorticity, closure = windows.vorticity[taken, span], windows.closure[taken, span]
    mean, error = _conditional_mean(draw, vorticity.reshape(-1, *vorticity.shape[2:]))
    return Residual(np.asarray(closure, np.float64) - mean.reshape(closure.shape), vorticity, error)


def check_windows(label: str, count: int, times: int) -> None:
    """Raises UserError for `label` where so many windows of so many fields each have no residual to fit to."""
    check(
        count >= 2 and times >= 3,
        f"{label}: {count} training trajectories of {times} snapshots, expected at least 2 of 3 to fit it; give"
        " a number of solver steps, 0 for white noise",
    )


def standard_error(contributions: np.ndarray) -> Any:
    """Of a mean over windows, the first axis, which are independent: a number, or an array of the other axes."""
    return np.std(contributions, axis=0, ddof=1) / np.sqrt(len(contributions))


def _conditional_mean(
    draw: Draw, vorticity: Float[np.ndarray, "batch n n"]
) -> tuple[Float[np.ndarray, "batch n n"], Float[np.ndarray, "n half"]]:
    """E[H | w] by the draw itself, else estimated by antithetic pairs; and the power of what the estimate is wrong by."""
    keys = random.stream(0, "coupling")

    def block(numbers: Int[Array, " batch"], fields: Float[Array, "batch n n"]) -> tuple[Array, Array]:
        own = draw.mean(fields)
        if own is not None:
            return own, jnp.zeros(spectral.shells(fields.shape[-1])[0].shape)
        repeated = jnp.repeat(fields, _PAIRS, axis=0)
        of_field = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(keys, number), _PAIRS))(numbers)
        noise = draw.noise(of_field.reshape(-1), repeated)
        pairs = (draw.draw(noise, repeated) + draw.draw(jax.tree.map(jnp.negative, noise), repeated)) / 2
        pairs = pairs.reshape(len(fields), _PAIRS, *fields.shape[1:])
        deviations = jnp.fft.rfft2(pairs - pairs.mean(axis=1, keepdims=True))
        return pairs.mean(axis=1), jnp.mean(jnp.abs(deviations) ** 2, axis=(0, 1)) / (_PAIRS - 1)

    run, found = jax.jit(block), []
    for first in range(0, len(vorticity), _BLOCK):
        numbers = np.arange(first, first + _BLOCK) % len(
            vorticity
        )  # the last block takes some of the first fields again
        found.append(run(numbers, jnp.asarray(vorticity[numbers])))
    means, errors = zip(*found, strict=True)
    return np.concatenate(means)[: len(vorticity)].astype(np.float64), np.mean(errors, axis=0)
