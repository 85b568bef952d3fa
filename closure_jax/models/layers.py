"""Building blocks of every network: fields are (batch, n, n, channels), periodic in both directions of space."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import random
from closure_jax.models import convolution

dense = functools.partial(nn.Dense, kernel_init=random.lecun_normal)
"""Dense layer over the channels."""


class PeriodicConv(nn.Module):
    """Convolution that wraps, see `convolution.periodic`: (batch, n, n, c) -> (batch, n / stride, n / stride, features).

    With `upsample`, after nearest-neighbour upsampling by 2, for a kernel of 3 of stride 1: -> (batch, 2 n, 2 n, features).
    """

    features: int
    kernel: int = 3
    stride: int = 1
    upsample: bool = False
    kernel_init: Callable = random.lecun_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def convolve(x, kernel, *_, **__):
            return convolution.upsampled(x, kernel) if self.upsample else convolution.periodic(x, kernel, self.stride)

        size = (self.kernel, self.kernel)
        return nn.Conv(self.features, size, kernel_init=self.kernel_init, conv_general_dilated=convolve)(x)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 shortcut where the width changes; no norm if groups = 0.

    The second convolution starts at zero, so that the block starts as its shortcut.
    """

    features: int
    groups: int = 32
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normalise = (lambda h: nn.GroupNorm(min(self.groups, h.shape[-1]))(h)) if self.groups else lambda h: h
        init = nn.initializers.zeros if self.zero_init else random.lecun_normal
        h = PeriodicConv(self.features)(nn.silu(normalise(x)))
        h = PeriodicConv(self.features, kernel_init=init)(nn.silu(normalise(h)))
        shortcut = x if x.shape[-1] == self.features else dense(self.features)(x)
        return shortcut + h


class SelfAttention(nn.Module):
    """x + attention over all points of the plane, (batch, n, n, c) unchanged in shape; no positions, so it is periodic."""

    heads: int
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, n, _, channels = x.shape
        tokens = nn.GroupNorm(min(self.groups, channels))(x).reshape(batch, n * n, channels)
        return x + nn.MultiHeadDotProductAttention(self.heads, kernel_init=random.lecun_normal)(tokens).reshape(x.shape)


@functools.lru_cache(maxsize=32)
def resampling_matrix(n: int, m: int) -> np.ndarray:
    """The (m, n) real matrix that resamples a periodic line from n to m points by Fourier truncation or zero padding."""
    keep = min(n, m)
    spectrum = np.fft.rfft(np.eye(n), axis=0)[: keep // 2 + 1]
    if keep % 2 == 0 and m != n:  # the mode at half of `keep` stands for two: drop it on the way down, and up
        spectrum[-1] = 0
    return np.fft.irfft(spectrum, m, axis=0) * (m / n)


def resample(x: jax.Array, size: int) -> jax.Array:
    """(batch, n, n, c) -> (batch, size, size, c) by Fourier truncation or zero padding, as two small dense products."""
    matrix = jnp.asarray(resampling_matrix(x.shape[1], size), x.dtype)
    return jnp.einsum("bxyc,ix,jy->bijc", x, matrix, matrix)


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """(batch, n, n, c) -> (batch, n / factor, n / factor, factor^2 c): each patch becomes channels."""
    batch, n, _, channels = x.shape
    x = x.reshape(batch, n // factor, factor, n // factor, factor, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, n // factor, n // factor, factor * factor * channels)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Inverse of `space_to_depth`."""
    batch, n, _, channels = x.shape
    x = x.reshape(batch, n, n, factor, factor, channels // factor**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, n * factor, n * factor, channels // factor**2)


@functools.lru_cache(maxsize=32)
def _fourier_matrices(n: int, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """exp(-2 pi i k x / n) for k = -modes..modes-1 and for k = 0..modes-1, shapes (n, 2 modes) and (n, modes)."""
    x = np.arange(n)[:, None]
    both = np.exp(-2j * np.pi * x * np.arange(-modes, modes)[None] / n)
    half = np.exp(-2j * np.pi * x * np.arange(modes)[None] / n)
    return both, half


class SpectralConv(nn.Module):
    """Fourier layer (Li et al. 2021): a complex matrix on each of the lowest modes, (b, n, n, c) -> (b, n, n, features).

    Keeps kx = -modes..modes-1, ky = 0..modes-1. Transforms are products with truncated DFT matrices in real arithmetic,
    equal to rfft2 / irfft2 and cheaper, since few modes are kept.
    """

    features: int
    modes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, channels = x.shape[1], x.shape[-1]
        m = self.modes
        scale = 1.0 / np.sqrt(channels)

        def init(key, shape):
            return random.normal(key, shape) * (scale / np.sqrt(2))

        shape = (2 * m, m, channels, self.features)
        w_re, w_im = self.param("real", init, shape), self.param("imaginary", init, shape)
        both, half = _fourier_matrices(n, m)
        fx_re, fx_im = jnp.asarray(both.real, x.dtype), jnp.asarray(both.imag, x.dtype)
        fy = jnp.asarray(np.concatenate([half.real, half.imag], axis=1), x.dtype)

        rows = jnp.einsum("bxyc,yk->bxkc", x, fy)
        r_re, r_im = rows[:, :, :m], rows[:, :, m:]
        z_re = jnp.einsum("bxkc,xj->jkbc", r_re, fx_re) - jnp.einsum("bxkc,xj->jkbc", r_im, fx_im)
        z_im = jnp.einsum("bxkc,xj->jkbc", r_re, fx_im) + jnp.einsum("bxkc,xj->jkbc", r_im, fx_re)
        z = jnp.concatenate([z_re, z_im], axis=-1)
        weight = jnp.concatenate(
            [jnp.concatenate([w_re, w_im], axis=-1), jnp.concatenate([-w_im, w_re], axis=-1)], axis=-2
        )
        y = jnp.einsum("jkbc,jkco->jkbo", z, weight)
        y_re, y_im = y[..., : self.features], y[..., self.features :]
        # inverse: exp(+i) along x, then Re of exp(+i) along y, where ky > 0 counts twice
        s_re = jnp.einsum("jkbo,xj->bxko", y_re, fx_re) + jnp.einsum("jkbo,xj->bxko", y_im, fx_im)
        s_im = jnp.einsum("jkbo,xj->bxko", y_im, fx_re) - jnp.einsum("jkbo,xj->bxko", y_re, fx_im)
        count = np.where(np.arange(m) == 0, 1.0, 2.0) / n**2
        back = jnp.asarray(np.concatenate([half.real * count, half.imag * count], axis=1), x.dtype)
        return jnp.einsum("bxko,yk->bxyo", jnp.concatenate([s_re, s_im], axis=2), back)


class TimeEmbedding(nn.Module):
    """Gaussian Fourier features of the transport time, then dense and SiLU: (batch,) -> (batch, features).

    The frequencies are fixed: `scale` times standard normal numbers of a fixed seed.
    """

    features: int
    width: int = 256
    scale: float = 30.0

    @nn.compact
    def __call__(self, tau: jax.Array) -> jax.Array:
        frequencies = np.random.default_rng(0).standard_normal(self.width // 2) * self.scale
        phase = 2 * np.pi * tau[:, None] * jnp.asarray(frequencies, tau.dtype)[None]
        embedding = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
        return nn.silu(dense(self.features)(embedding))
