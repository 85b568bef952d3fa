"""Periodic convolutions, and derivatives of them that stay fast inside a loop.

XLA on a CPU (jax 0.10.2) is fast for zero padding of SAME, half as fast without padding, and brings an operand into the
layout of its fast path only outside loops: in a `scan`, the gradient of a convolution of 32 channels takes 13 times as long,
of 128 channels 37 times. So the zero-padded convolution is what runs, what the period adds to it is added at the edges, and
the derivative is written in the layout whose transpose needs no change; a forward derivative in a loop stays slow.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Fields = Float[Array, "batch n n channels"]
Kernel = Float[Array, "size size channels features"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def periodic(x: Fields, kernel: Kernel, stride: int = 1) -> Float[Array, "batch n//{stride} n//{stride} features"]:
    """Convolution on a periodic square: as padding='CIRCULAR', of stride 2 at odd points; `stride` divides n."""
    if kernel.shape[:2] != (3, 3) or stride != 1:
        return _wrapped(x, kernel, stride)
    return lax.platform_dependent(x, kernel, cpu=_with_edges, default=_wrapped_before)


@functools.partial(periodic.defjvp, symbolic_zeros=True)
def _(stride: int, primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    out = periodic(*primals, stride)
    return out, _tangent(lambda x, kernel: _wrapped(x, kernel, stride), primals, tangents, out)


def upsampled(x: Fields, kernel: Float[Array, "3 3 channels features"]) -> Float[Array, "batch 2*n 2*n features"]:
    """`periodic` after nearest-neighbour upsampling by 2, with 4/9 of its operations.

    Of its three taps in a direction two fall on the same point: what comes out at even and at odd points are convolutions of
    size 2, each with its own sums of taps.
    """
    batch, n, _, channels = x.shape
    features = kernel.shape[-1]
    sums = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], x.dtype)  # (parity, tap of 2, tap of 3)
    pairs = jnp.einsum("pah,qbw,hwcf->abcpqf", sums, sums, kernel).reshape(2, 2, channels, 4 * features)
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    out = _zero_padded(wide, pairs, 1).reshape(batch, n + 2, n + 2, 2, 2, features)
    rows = [jnp.stack([out[:, p : p + n, q : q + n, p, q] for q in (0, 1)], axis=3) for p in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * n, 2 * n, features)


# --- zero padding ----------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _zero_padded(x: Fields, kernel: Kernel, stride: int) -> Float[Array, "batch m m features"]:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@functools.partial(_zero_padded.defjvp, symbolic_zeros=True)
def _(stride: int, primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    out = _zero_padded(x, kernel, stride)
    tangent = jnp.zeros_like(out)
    if not isinstance(dx, SymbolicZero):
        tangent += _by_field(dx, kernel, stride)
    if not isinstance(dkernel, SymbolicZero):
        tangent += _by_kernel(x, dkernel, stride)
    return out, tangent


def _by_field(x: Fields, kernel: Kernel, stride: int) -> Float[Array, "batch m m features"]:
    """`_zero_padded`, written such that its transpose by x is in XLA's favoured layout."""
    kernel = kernel.swapaxes(2, 3)
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWOI", "NHWC"))


def _by_kernel(x: Fields, kernel: Kernel, stride: int) -> Float[Array, "batch m m features"]:
    """`_zero_padded`, written such that its transpose by the kernel is in XLA's favoured layout."""
    x, kernel = x.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3)
    out = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("CHWN", "IHWO", "HWNC"))
    return out.transpose(2, 0, 1, 3)


# --- the period ------------------------------------------------------------------------------------------------------


def _wrapped(x: Fields, kernel: Kernel, stride: int) -> Float[Array, "batch n//{stride} n//{stride} features"]:
    """Wraps by as much as SAME fills with zeros, rounded up to strides to keep the same points; crops what those touched."""
    size = x.shape[1] // stride
    zeros = max(kernel.shape[0] - stride, 0)
    low, high = (stride * math.ceil(part / stride) for part in (zeros // 2, zeros - zeros // 2))
    first = low // stride
    out = _zero_padded(jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)), mode="wrap"), kernel, stride)
    return out[:, first : first + size, first : first + size]


def _wrapped_before(x: Fields, kernel: Float[Array, "3 3 channels features"]) -> Float[Array, "batch n n features"]:
    """A kernel of 3 after wrapping by one point: what suits a GPU or TPU."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    return lax.conv_general_dilated(wide, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _with_edges(x: Fields, kernel: Float[Array, "3 3 channels features"]) -> Float[Array, "batch n n features"]:
    """A kernel of 3 on zeros beyond the square, and then what the opposite edge adds to each; corners come with the rows."""
    n = x.shape[1]
    lines = jnp.stack([x[:, -1], x[:, 0], x[:, :, -1], x[:, :, 0]])
    taps = jnp.stack([kernel[0], kernel[2], kernel[:, 0], kernel[:, 2]]).reshape(4, -1, kernel.shape[-1])
    ends = np.ones((4, 1, n + 2, 1), x.dtype)
    ends[2:, :, [0, -1]] = 0  # the columns do not wrap: their corners are in the rows
    lines = jnp.pad(lines, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="wrap") * ends
    lines = jnp.concatenate([lines[:, :, shift : shift + n] for shift in range(3)], axis=-1)
    top, bottom, left, right = jnp.einsum("ebnc,ecf->ebnf", lines, taps)
    out = _zero_padded(x, kernel, 1)
    return out.at[:, 0].add(top).at[:, -1].add(bottom).at[:, :, 0].add(left).at[:, :, -1].add(right)


def _tangent(
    function: Callable[..., jax.Array], primals: tuple[jax.Array, ...], tangents: tuple[Any, ...], out: jax.Array
) -> jax.Array:
    """The derivative of `function` along those arguments whose tangents are not symbolic zeros; zero where all are."""
    moving = [place for place, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

    def along(*values: jax.Array) -> jax.Array:
        arguments = list(primals)
        for place, value in zip(moving, values, strict=True):
            arguments[place] = value
        return function(*arguments)

    if not moving:
        return jnp.zeros_like(out)
    at, direction = (tuple(values[place] for place in moving) for values in (primals, tangents))
    return jax.jvp(along, at, direction)[1]
