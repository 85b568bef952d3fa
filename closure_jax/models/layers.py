"""Building blocks of every network: fields are (batch, n, n, channels), periodic in both directions of space.

Inside the transport network they are (y, x, batch, channels), see `SpectralConv`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from closure_jax import random
from closure_jax.models import convolution

MOST_WIDTH = 2048
"""Channels of a layer: far beyond any network of this field, and still counted in seconds by --dry_run."""
MOST_DEPTH = 32
"""Layers of one kind in turn."""

PRECISIONS = ("default", "high", "highest")
"""How products of float32 numbers are formed, see `jax.lax.Precision`: on a CPU all alike, on a GPU in TF32 but for `highest`, on
a TPU in one, three and six passes of bfloat16."""

exact_product = functools.partial(jnp.matmul, precision="highest")
exact_sum = functools.partial(jnp.einsum, precision="highest")
"""For transforms and resampling, which are to be what they are called on any device, whatever the precision of a network is."""

dense = functools.partial(nn.Dense, kernel_init=random.lecun_normal)
"""Dense layer over the channels."""


class JoinedDense(nn.Module):
    """`dense` of two inputs side by side, in two parts, so that the second need not be repeated while only the first changes."""

    widths: tuple[int, int]
    features: int

    def setup(self) -> None:
        self.kernel = self.param("kernel", random.lecun_normal, (sum(self.widths), self.features))
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def second(self, y: Float[Array, "*points {self.widths[1]}"]) -> Float[Array, "*points {self.features}"]:
        """The second input's share of the output, bias included."""
        return y @ self.kernel[self.widths[0] :] + self.bias

    def __call__(
        self, x: Float[Array, "*points {self.widths[0]}"], share: Float[Array, "*points {self.features}"]
    ) -> Float[Array, "*points {self.features}"]:
        """The output, from the first input and the share of the second."""
        return x @ self.kernel[: self.widths[0]] + share


class PeriodicConv(nn.Module):
    """Convolution that wraps, see `convolution.periodic`: from n^2 to (n / stride)^2 points.

    With `upsample`, after nearest-neighbour upsampling by 2, for a kernel of 3 of stride 1: from n^2 to (2 n)^2 points.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    upsample: bool = False
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = random.lecun_normal

    @nn.compact
    def __call__(self, x: Float[Array, "batch n n channels"]) -> Float[Array, "batch m m {self.features}"]:
        def convolve(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
            return convolution.upsampled(x, kernel) if self.upsample else convolution.periodic(x, kernel, self.stride)

        size = (self.kernel, self.kernel)
        return nn.Conv(
            self.features, size, use_bias=self.use_bias, kernel_init=self.kernel_init, conv_general_dilated=convolve
        )(x)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018), parameters as in `flax.linen.GroupNorm`.

    Moments are taken over the plane by channel, then over the channels of a group: four times as fast on a CPU as reducing over
    both at once, since the few channels of a group lie side by side in memory.
    """

    groups: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "batch n n channels"]) -> Float[Array, "batch n n channels"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def of_group(moment: Float[Array, "batch channels"]) -> Float[Array, "batch 1 1 channels"]:
            grouped = jnp.mean(moment.reshape(-1, 1, 1, self.groups, channels // self.groups), axis=-1)
            return jnp.repeat(grouped, channels // self.groups, axis=-1)

        mean, square = of_group(jnp.mean(x, axis=(1, 2))), of_group(jnp.mean(x * x, axis=(1, 2)))
        factor = scale * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0) + self.epsilon)
        return x * factor + (bias - mean * factor)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 shortcut in place of x where the width changes.

    Attributes:
      features: channels of the output.
      groups: of the norm, at most as many as there are channels; 0: no norm.
      zero_init: the second convolution starts at zero, so that the block starts as its shortcut.
    """

    features: int
    groups: int = 32
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch n n channels"]) -> Float[Array, "batch n n {self.features}"]:
        normalise = (lambda h: GroupNorm(min(self.groups, h.shape[-1]))(h)) if self.groups else lambda h: h
        init = nn.initializers.zeros if self.zero_init else random.lecun_normal
        h = PeriodicConv(self.features)(nn.silu(normalise(x)))
        h = PeriodicConv(self.features, kernel_init=init)(nn.silu(normalise(h)))
        shortcut = x if x.shape[-1] == self.features else dense(self.features)(x)
        return shortcut + h


def attend(
    query: Float[Array, "batch tokens heads width"],
    key: Float[Array, "batch tokens heads width"],
    value: Float[Array, "batch tokens heads width"],
    **_: Any,
) -> Float[Array, "batch tokens heads width"]:
    """Scaled dot-product attention; every head's products are of whole matrices. Other options of `flax.linen` are not used."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(-1, -2)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    return (weights @ value / jnp.sum(weights, axis=-1, keepdims=True)).swapaxes(1, 2)


class SelfAttention(nn.Module):
    """x + attention over all points of the plane; no positions, so it commutes with shifts."""

    heads: int
    groups: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n n channels"]) -> Float[Array, "batch n n channels"]:
        batch, n, _, channels = x.shape
        tokens = GroupNorm(min(self.groups, channels))(x).reshape(batch, n * n, channels)
        attention = nn.MultiHeadDotProductAttention(self.heads, kernel_init=random.lecun_normal, attention_fn=attend)
        return x + attention(tokens).reshape(x.shape)


@functools.lru_cache(maxsize=32)
def resampling_matrix(n: int, m: int) -> Float[np.ndarray, "{m} {n}"]:
    """The matrix that resamples a periodic line from n to m points by Fourier truncation or zero padding."""
    keep = min(n, m)
    spectrum = np.fft.rfft(np.eye(n), axis=0)[: keep // 2 + 1]
    if keep % 2 == 0 and m != n:  # the mode at half of `keep` stands for two: drop it on the way down, and up
        spectrum[-1] = 0
    return np.fft.irfft(spectrum, m, axis=0) * (m / n)


def resample(x: Float[Array, "batch n n channels"], size: int) -> Float[Array, "batch {size} {size} channels"]:
    """The periodic fields on size^2 points, by Fourier truncation or zero padding: two small dense products."""
    matrix = jnp.asarray(resampling_matrix(x.shape[1], size), x.dtype)
    return exact_sum("bxyc,ix,jy->bijc", x, matrix, matrix)


def space_to_depth(
    x: Float[Array, "batch n n channels"], factor: int
) -> Float[Array, "batch n//{factor} n//{factor} channels*{factor}**2"]:
    """Each patch of factor^2 points becomes channels of one point."""
    batch, n, _, channels = x.shape
    x = x.reshape(batch, n // factor, factor, n // factor, factor, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, n // factor, n // factor, factor * factor * channels)


def depth_to_space(
    x: Float[Array, "batch n n channels"], factor: int
) -> Float[Array, "batch n*{factor} n*{factor} channels//{factor}**2"]:
    """Inverse of `space_to_depth`."""
    batch, n, _, channels = x.shape
    x = x.reshape(batch, n, n, factor, factor, channels // factor**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, n * factor, n * factor, channels // factor**2)


@functools.lru_cache(maxsize=32)
def _fourier_matrices(
    n: int, modes: int
) -> tuple[
    Float[np.ndarray, "2*{modes} {n}"],
    Float[np.ndarray, "4*{modes} 2*{n}"],
    Float[np.ndarray, "2*{n} 4*{modes}"],
    Float[np.ndarray, "{n} 2*{modes}"],
]:
    """The transform of a real plane to its lowest modes and back, as four real matrices, one for each axis and way.

    A complex axis k stands as (k, part) or (part, k), part being real and imaginary; ky = 0..m-1, kx = -m..m-1.
      y to (ky, part): (2 m, n), exp(-i ky y) of a real line.
      (part, x) to (kx, part): (4 m, 2 n), exp(-i kx x) of a complex line.
      (kx, part) to (part, x): (2 n, 4 m), exp(i kx x).
      (ky, part) to y: (n, 2 m), the real part of exp(i ky y), where ky > 0 counts twice, over n^2.
    """
    ky, kx = np.arange(modes), np.arange(-modes, modes)
    wave_y: NDArray[np.complex128] = np.exp(-2j * np.pi * ky[:, None] * np.arange(n) / n)
    wave_x: NDArray[np.complex128] = np.exp(-2j * np.pi * kx[:, None] * np.arange(n) / n)
    complex_x = np.array([[wave_x.real, -wave_x.imag], [wave_x.imag, wave_x.real]])  # (part out, part in, kx, x)
    count = np.where(ky == 0, 1.0, 2.0)[:, None] / n**2
    return (
        np.stack([wave_y.real, wave_y.imag], axis=1).reshape(2 * modes, n),
        complex_x.transpose(2, 0, 1, 3).reshape(4 * modes, 2 * n),
        complex_x.transpose(1, 3, 2, 0).reshape(2 * n, 4 * modes),  # the conjugate is the transpose of a real form
        np.stack([count * wave_y.real, count * wave_y.imag], axis=1).reshape(2 * modes, n).T,
    )


class SpectralConv(nn.Module):
    """Fourier layer (Li et al. 2021): a complex matrix on each of the lowest modes, of fields (y, x, batch, channels).

    Keeps kx = -modes..modes-1, ky = 0..modes-1. Transforms are products with truncated DFT matrices in real arithmetic,
    equal to rfft2 / irfft2 and cheaper, since few modes are kept; at the highest precision. Space comes before the batch, so that
    each of them is one matrix product of arrays as they lie in memory.

    Attributes:
      features: channels of the output.
      modes: m, at most half of the points of a line, of input and output.
      scale: of the initial matrices; with 1 the output has about the variance of an input of these modes.
    """

    features: int
    modes: int
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "n n batch channels"], points: int | None = None
    ) -> Float[Array, "p p batch {self.features}"]:
        """The output, on `points` points a side: a line as long as the input's where it is None."""
        n, _, batch, channels = x.shape
        m, features, points = self.modes, self.features, points or n

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return self.scale * random.normal(key, shape) / np.sqrt(2 * channels)

        shape = (2 * m, m, channels, features)
        w_re, w_im = self.param("real", init, shape), self.param("imaginary", init, shape)
        weight = jnp.stack([jnp.stack([w_re, w_im], axis=3), jnp.stack([-w_im, w_re], axis=3)], axis=2)
        weight = weight.reshape(2 * m, m, 2 * channels, 2 * features)  # from (part, c) to (part, feature)
        *back, from_lines = _fourier_matrices(points, m)[2:]
        matrices = (*_fourier_matrices(n, m)[:2], *back, from_lines * (points / n) ** 2)
        to_ky, to_kx, from_kx, from_ky = (jnp.asarray(matrix, x.dtype) for matrix in matrices)

        lines = exact_product(to_ky, x.reshape(n, -1)).reshape(m, 2 * n, batch * channels)
        modes = exact_sum("jx,kxs->kjs", to_kx, lines).reshape(m, 2 * m, 2, batch, channels).swapaxes(2, 3)
        modes = exact_sum("kjbc,jkcf->kjbf", modes.reshape(m, 2 * m, batch, 2 * channels), weight)
        modes = modes.reshape(m, 2 * m, batch, 2, features).swapaxes(2, 3).reshape(m, 4 * m, batch * features)
        lines = exact_sum("xj,kjs->kxs", from_kx, modes).reshape(2 * m, -1)
        return exact_product(from_ky, lines).reshape(points, points, batch, features)


class TimeEmbedding(nn.Module):
    """Gaussian Fourier features of the transport time, then dense and SiLU.

    The frequencies are fixed: `scale` times standard normal numbers of a fixed seed.
    """

    features: int
    width: int = 256
    scale: float = 30.0

    @nn.compact
    def __call__(self, tau: Float[Array, " batch"]) -> Float[Array, "batch {self.features}"]:
        frequencies = np.random.default_rng(0).standard_normal(self.width // 2) * self.scale
        phase = 2 * np.pi * tau[:, None] * jnp.asarray(frequencies, tau.dtype)[None]
        embedding = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
        return nn.silu(dense(self.features)(embedding))
