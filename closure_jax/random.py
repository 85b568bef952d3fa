"""Random draws: streams of keys by name, and forms of a draw that XLA compiles fast."""

import math
import zlib

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

STREAMS = {
    "initialise": "first parameters of a phase of training",
    "train": "draws of a phase of training: step, then the example's place in the global batch",
    "validate": "draws of a phase's validation: number of the held-out example",
    "rectify": "the noise of a rectified transport's pairs: round, split, then number of the field",
    "samples": "a priori samples: state, then sample",
    "timing": "samples that are drawn to be timed",
    "true_ensemble": "the truth of rollouts: member",
    "second_true_ensemble": "another truth, which rollouts of a perfect closure would equal: member",
    "model_ensemble": "the model's rollouts: member",
    "baseline": "rollouts of the baselines: member",
    "coupling": "what a coupling rule is fitted with",
    "demo_start": "the state that the demo starts from",
    "demo_true": "the demo's true ensemble: member",
    "demo_model": "the demo's model ensemble: member",
}
"""What draws random numbers with a key of jax, by name: each draw of a run belongs to one of these, or to `TRAJECTORY`.

Not so what is the same in all runs: `transport.regression.fixed_noise`, where every draw would do. Which examples make up a
batch, and which points are landmarks, numpy draws from the seed itself: see `data.batches` and `latent`.
"""

TRAJECTORY = "trajectory"
"""The data's own stream: trajectory i has the key fold_in(key(seed), i), as in every data file that exists."""


def stream(seed: int, name: str, *parts: int | str) -> jax.Array:
    """The key of a stream, or of a part of it.

    Args:
      seed: of the run; of the data for trajectories.
      name: in `STREAMS`, or `TRAJECTORY`.
      *parts: numbers, or names such as a phase's, that lead to a part of the stream.
    Returns:
      A key; keys of different names or parts have nothing in common.
    Raises:
      KeyError: no such stream.
    """
    key = jax.random.key(seed)
    if name != TRAJECTORY:
        if name not in STREAMS:
            raise KeyError(f"stream '{name}': expected one of {', '.join(STREAMS)}")
        key = jax.random.fold_in(key, _number(name))
    for part in parts:
        key = jax.random.fold_in(key, _number(part) if isinstance(part, str) else part)
    return key


def _number(name: str) -> int:
    """A number of a name, the same everywhere: 2^31 or more, which no trajectory, step or member reaches."""
    return zlib.crc32(name.encode()) | 2**31


def normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """`jax.random.normal`, the same numbers: drawn flat and reshaped.

    Under vmap on a CPU, XLA needs 5 s to compile a draw of several axes and 0.2 s for a flat one (jax 0.10.2).
    """
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def lecun_normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Initialiser of kernels (..., inputs, outputs): normal, variance 1 / (inputs of one output)."""
    return normal(key, shape, dtype) * math.prod(shape[:-1]) ** -0.5
