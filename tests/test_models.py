"""Networks against what they stand for: convolutions, transforms, symmetries of the torus and published sizes."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import traverse_util
from helpers import built, refusal

from closure_jax import random
from closure_jax.errors import UserError
from closure_jax.models import autoencoder, convolution, layers, velocity_field
from closure_jax.models.autoencoders import AUTOENCODERS
from closure_jax.models.published_field import PublishedVelocityField

EPSILON = np.finfo(np.float32).eps


def standard_normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def lively(module, *inputs, seed=0, **how):
    """Parameters of which none is at an initial zero or one: normal with the deviation 1 / sqrt(fan in), biases 0.3."""
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **how), *inputs)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        deviation = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.3
        return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, shapes)


def shifted(x, by):
    return jnp.roll(x, by, axis=(1, 2))


def assert_same(actual, expected, rounding):
    """Equal to `rounding` times single precision's, relative to the largest value."""
    np.testing.assert_allclose(actual, expected, atol=rounding * EPSILON * np.abs(expected).max())


# --- layers ---


def test_periodic_convolution_is_the_circular_one():
    for kernel in [1, 3, 5]:
        x = standard_normal(2, 8, 8, 3)
        module = layers.PeriodicConv(4, kernel=kernel)
        params = lively(module, x)
        circular = nn.Conv(4, (kernel, kernel), padding="CIRCULAR")
        expected = circular.apply({"params": params["params"]["Conv_0"]}, x)
        assert_same(module.apply(params, x), expected, rounding=3 * kernel**2)  # sums of 3 kernel^2 products


def test_periodic_convolution_commutes_with_shifts_by_its_stride():
    for stride, by in [(1, (3, -2)), (2, (2, -4))]:
        x = standard_normal(2, 8, 8, 3)
        module = layers.PeriodicConv(4, stride=stride)
        params = lively(module, x)
        y = np.asarray(module.apply(params, x))
        assert y.shape == (2, 8 // stride, 8 // stride, 4)
        assert_same(module.apply(params, shifted(x, by)), shifted(y, tuple(b // stride for b in by)), rounding=27)


def test_strided_convolution_takes_the_odd_points_of_the_full_one():
    for kernel in [3, 5]:
        x = standard_normal(1, 8, 8, 2)
        params = lively(layers.PeriodicConv(3, kernel=kernel), x)
        full = np.asarray(layers.PeriodicConv(3, kernel=kernel).apply(params, x))
        strided = layers.PeriodicConv(3, kernel=kernel, stride=2).apply(params, x)
        assert_same(strided, full[:, 1::2, 1::2], rounding=2 * kernel**2)


def test_periodic_convolution_wastes_no_more_than_a_border():
    for stride in [1, 2]:
        n, x = 16, standard_normal(1, 16, 16, 8)
        module = layers.PeriodicConv(8, stride=stride)
        params = lively(module, x)
        analysis = jax.jit(module.apply).lower(params, x).cost_analysis()
        needed = 2 * 9 * 8 * 8 * (n // stride) ** 2
        assert needed <= analysis["flops"] < 1.02 * needed * ((n + 2) / n) ** 2


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_derivatives_of_a_periodic_convolution_are_those_of_the_circular_one(kernel, stride):
    """By field and kernel, forward and in reverse; a stride takes odd points of the circular one."""
    x, dx = standard_normal(2, 2, 8, 8, 3)
    weight, dweight = standard_normal(2, kernel, kernel, 3, 4) / kernel
    circular = nn.Conv(4, (kernel, kernel), padding="CIRCULAR", use_bias=False)

    def expected(x, weight):
        out = circular.apply({"params": {"kernel": weight}}, x)
        return out[:, stride - 1 :: stride, stride - 1 :: stride]

    def actual(x, weight):
        return convolution.periodic(x, weight, stride)

    def both(function):
        out, tangent = jax.jvp(function, (x, weight), (dx, dweight))
        _, by_field = jax.jvp(lambda x: function(x, weight), (x,), (dx,))
        return out, tangent, by_field, *jax.vjp(function, x, weight)[1](jnp.cos(out))

    for one, other in zip(jax.jit(lambda: both(actual))(), jax.jit(lambda: both(expected))(), strict=True):
        assert_same(one, other, rounding=9 * kernel**2)


@pytest.mark.slow
def test_edges_of_a_periodic_convolution_on_small_squares_and_on_other_platforms():
    for n in [1, 2, 3, 16]:
        x, weight = standard_normal(2, n, n, 3), standard_normal(3, 3, 3, 4)
        expected = convolution._wrapped_before(x, weight)
        assert_same(convolution._with_edges(x, weight), expected, rounding=27)
        assert_same(convolution._wrapped(x, weight, 1), expected, rounding=27)


def test_convolution_after_upsampling_is_done_before_it():
    for n in [1, 2, 8]:
        x, weight = standard_normal(2, n, n, 3), standard_normal(3, 3, 3, 4)
        repeated = x.repeat(2, axis=1).repeat(2, axis=2)
        assert_same(convolution.upsampled(x, weight), convolution.periodic(repeated, weight), rounding=27)


def test_convolutions_in_a_differentiated_loop_are_in_the_layout_that_xla_runs_fast():
    weight = standard_normal(3, 3, 4, 4)

    def loss(x, weight):
        return jnp.sum(jax.lax.scan(lambda x, _: (jnp.sin(convolution.periodic(x, weight)), None), x, length=2)[0])

    program = jax.jit(jax.grad(loss, (0, 1))).lower(standard_normal(2, 8, 8, 4), weight).compile().as_text()
    labels = re.findall(r"dim_labels=(\S+?),", program)
    assert len(labels) >= 3 and set(labels) == {"b01f_01io->b01f"}


@pytest.mark.slow
def test_group_norm_is_that_of_flax():
    x = 3 + 2 * standard_normal(2, 6, 6, 8)
    ours, theirs = layers.GroupNorm(4), nn.GroupNorm(4)
    params = lively(ours, x)
    assert jax.tree.structure(params) == jax.tree.structure(theirs.init(jax.random.key(0), x))
    weight = standard_normal(*x.shape, seed=1)

    def loss(module, params, x):
        return jnp.sum(weight * jnp.sin(module.apply(params, x)))

    assert_same(ours.apply(params, x), theirs.apply(params, x), rounding=30)
    slopes = [jax.grad(functools.partial(loss, module), (0, 1))(params, x) for module in (ours, theirs)]
    for one, other in zip(*map(jax.tree.leaves, slopes), strict=True):
        assert_same(one, other, rounding=100)


def test_attention_is_that_of_flax_even_where_the_exponential_would_overflow():
    query, key, value = 20 * standard_normal(3, 2, 9, 4, 6)
    assert float(jnp.max(jnp.einsum("bqhc,bkhc->bhqk", query, key))) > 89 * 6**0.5
    assert_same(layers.attend(query, key, value), nn.dot_product_attention(query, key, value), rounding=300)


SPACE_FIRST = (2, 1, 0, 3)  # between (batch, x, y, c) and (y, x, batch, c), either way


def spectral_conv_by_fft(x, weight, modes):
    """The Fourier layer with rfft2 and irfft2, in double precision; weight (2 modes, modes, c, features), kx from -modes."""
    n = x.shape[1]
    x_hat = np.fft.rfft2(np.asarray(x, float), axes=(1, 2))
    y_hat = np.zeros((len(x), n, n // 2 + 1, weight.shape[-1]), complex)
    for j, kx in enumerate(range(-modes, modes)):
        for ky in range(modes):
            y_hat[:, kx, ky] = x_hat[:, kx, ky] @ weight[j, ky]
    return np.fft.irfft2(y_hat, s=(n, n), axes=(1, 2))


def test_spectral_convolution_is_that_of_the_fft():
    for n, modes in [(16, 6), (8, 4), (9, 4)]:
        x = standard_normal(2, n, n, 3)
        module = layers.SpectralConv(5, modes)
        params = lively(module, x.transpose(SPACE_FIRST))
        weight = np.asarray(params["params"]["real"], float) + 1j * np.asarray(params["params"]["imaginary"], float)
        actual = jax.jit(module.apply)(params, x.transpose(SPACE_FIRST)).transpose(SPACE_FIRST)
        assert_same(actual, spectral_conv_by_fft(x, weight, modes), rounding=2 * n)  # sums over n and n


def test_spectral_convolution_starts_with_complex_weights_of_variance_one_over_channels():
    channels = 16
    init = jax.jit(layers.SpectralConv(16, 4).init)
    params = init(jax.random.key(0), jnp.zeros((8, 8, 1, channels)))["params"]
    assert params["real"].size == params["imaginary"].size == 2 * 4 * 4 * channels * 16
    for part in params.values():
        np.testing.assert_allclose(np.mean(part**2), 0.5 / channels, rtol=5 * np.sqrt(2 / part.size))
    assert abs(np.mean(params["real"] * params["imaginary"])) < 5 * 0.5 / channels / np.sqrt(part.size)


def test_layers_start_with_the_variance_of_their_fan_in():
    kernel = np.asarray(random.lecun_normal(jax.random.key(0), (3, 3, 20, 50)))
    np.testing.assert_allclose(np.var(kernel), 1 / 180, rtol=5 * np.sqrt(2 / kernel.size))


def wave(n, kx, ky, phase=0.0):
    """cos(kx x + ky y + phase) on n^2 points of a torus of 2 pi, (1, n, n, 1)."""
    x = 2 * np.pi * np.arange(n) / n
    return jnp.asarray(np.cos(kx * x[:, None] + ky * x[None, :] + phase)[None, :, :, None], jnp.float32)


def test_resampling_keeps_what_both_grids_resolve_and_drops_the_rest():
    for n, m in [(16, 8), (12, 6), (15, 5)]:
        resolved = [(0, 0), (1, 0), (0, -2), (2, 1), (-1, 2)]
        for kx, ky in resolved:
            for start, end in ((n, m), (m, n)):
                assert_same(layers.resample(wave(start, kx, ky, 0.7), end), wave(end, kx, ky, 0.7), rounding=n)
        for kx, ky in [(m // 2 + 1, 0), (1, m // 2 + 1)]:  # would alias
            np.testing.assert_allclose(layers.resample(wave(n, kx, ky), m), 0, atol=n * EPSILON)


def test_resampling_down_and_up_is_the_projection_on_the_coarse_band():
    n, m = 16, 8
    x = standard_normal(2, n, n, 3)
    index = np.abs(np.fft.fftfreq(n, 1 / n))
    band = (index[:, None] < m / 2) & (index[None, :] < m / 2)
    projected = np.fft.ifft2(np.fft.fft2(x, axes=(1, 2)) * band[None, :, :, None], axes=(1, 2)).real
    assert_same(layers.resample(layers.resample(x, m), n), projected, rounding=2 * n)
    assert_same(layers.resample(x, n), x, rounding=n)


def test_each_patch_becomes_channels_and_comes_back():
    x = standard_normal(2, 12, 12, 3)
    patches = layers.space_to_depth(x, 4)
    assert patches.shape == (2, 3, 3, 48)
    np.testing.assert_array_equal(patches[1, 2, 0], x[1, 8:12, 0:4].reshape(-1))
    np.testing.assert_array_equal(layers.depth_to_space(patches, 4), x)
    np.testing.assert_array_equal(layers.space_to_depth(layers.depth_to_space(patches, 2), 2), patches)


def test_time_embedding_tells_near_times_apart_as_its_scale_says():
    width, scale = 1024, 2.0
    module = layers.TimeEmbedding(width, width, scale)
    # the dense layer replaced by the identity, far up where SiLU is the identity too: the features themselves
    params = {"params": {"Dense_0": {"kernel": jnp.eye(width), "bias": jnp.full(width, 64.0)}}}
    tau = jnp.array([0.3, 0.4, 0.9])
    features = np.asarray(module.apply(params, tau)) - 64
    correlation = features @ features.T / (width / 2)
    # E cos(2 pi w (t - t')) for normal w = exp(-(2 pi scale (t - t'))^2 / 2), over width / 2 frequencies
    expected = np.exp(-((2 * np.pi * scale * (tau[:, None] - tau[None, :])) ** 2) / 2)
    np.testing.assert_allclose(correlation, expected, atol=4 * np.sqrt(0.5 / (width / 2)))
    np.testing.assert_allclose(np.diag(correlation), 1, atol=1e-4)


# --- networks ---

N, R = 16, 4
ENCODERS = {
    "compact": autoencoder.CompactEncoder(R, channels=2, width=8, blocks=2),
    "published": autoencoder.PublishedEncoder(channels=2, width=8),
}
DECODERS = {
    "compact": autoencoder.CompactDecoder(N, width=8, blocks=2),
    "published": autoencoder.PublishedDecoder(width=8),
}
NETWORK_ROUNDING = 1000  # ten layers, each a sum of a hundred products, with normalisations between


@pytest.mark.slow
def test_a_published_autoencoder_halves_twice_or_more():
    piece = AUTOENCODERS["published"](latent_resolution=2, width=16)
    assert piece.latent_shape(16) == (2, 2, 1)
    encoder, decoder = piece.modules(16)
    field = standard_normal(2, 16, 16)
    params = lively(encoder, field)
    latent = encoder.apply(params, field)
    assert latent.shape == (2, 2, 2, 1)
    assert_same(encoder.apply(params, shifted(field, (8, -8))), shifted(latent, (1, -1)), NETWORK_ROUNDING)
    assert decoder.apply(decoder.init(jax.random.key(0), latent), latent).shape == field.shape
    assert piece.modules(8)[0] == autoencoder.PublishedEncoder(channels=1, width=16)  # as published
    for resolution in (4, 12):  # halved once, and not a power of two
        assert "halves twice or more" in refusal(piece.latent_shape, resolution)


def test_every_autoencoder_is_tested():
    assert set(ENCODERS) == set(DECODERS) == set(AUTOENCODERS) - {"identity"}


def test_physical_space_is_its_own_latent_without_parameters():
    encoder, decoder = AUTOENCODERS["identity"]().modules(N)
    field = standard_normal(2, N, N)
    latent = encoder.apply({}, field)
    assert latent.shape == (2, N, N, 1)
    np.testing.assert_array_equal(decoder.apply({}, latent), field)
    assert jax.tree.leaves([encoder.init(jax.random.key(0), field), decoder.init(jax.random.key(0), latent)]) == []


@pytest.mark.slow
def test_encoders_commute_with_shifts_by_a_patch():
    for name in ENCODERS:
        module, field = ENCODERS[name], standard_normal(2, N, N)
        params = lively(module, field)
        encode = jax.jit(module.apply)
        latent = np.asarray(encode(params, field))
        assert latent.shape == (2, R, R, 2)
        factor = N // R
        assert_same(encode(params, shifted(field, (factor, -2 * factor))), shifted(latent, (1, -2)), NETWORK_ROUNDING)
        assert np.abs(encode(params, shifted(field, (1, 0))) - latent).max() > 0.01 * np.abs(latent).max()


@pytest.mark.slow
def test_decoders_commute_with_shifts_by_a_patch():
    for name in DECODERS:
        module, latent = DECODERS[name], standard_normal(2, R, R, 2)
        params = lively(module, latent)
        decode = jax.jit(module.apply)
        field = np.asarray(decode(params, latent))
        assert field.shape == (2, N, N)
        factor = N // R
        assert_same(decode(params, shifted(latent, (1, -2))), shifted(field, (factor, -2 * factor)), NETWORK_ROUNDING)


@pytest.mark.slow
def test_compact_autoencoder_starts_as_fourier_truncation_and_padding():
    field = wave(N, 1, -1, 0.4)[..., 0] + wave(N, 5, 0)[..., 0]
    encoder, decoder = autoencoder.CompactEncoder(R, 1, 4, 1), autoencoder.CompactDecoder(N, 4, 1)
    latent = jax.jit(encoder.init_with_output)(jax.random.key(0), field)[0]
    assert_same(latent, wave(R, 1, -1, 0.4), rounding=N)
    back = jax.jit(decoder.init_with_output)(jax.random.key(0), latent)[0]
    assert_same(back, wave(N, 1, -1, 0.4)[..., 0], rounding=2 * N)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.slow
def test_velocity_network_commutes_with_shifts_and_splits_at_the_condition(gated):
    module = velocity_field.FourierVelocityField(
        width=6,
        modes=3,
        depth=2,
        condition_width=5,
        condition_depth=2,
        condition_gated=gated,
        hidden=8,
        time_features=16,
    )
    x, condition, tau = (
        standard_normal(2, 8, 8, 1),
        standard_normal(2, 8, 8, 1, seed=1),
        jnp.array([0.2, 0.7]),
    )
    params = lively(module, x, condition, tau)
    velocity = jax.jit(module.apply)
    v = np.asarray(velocity(params, x, condition, tau))
    assert v.shape == x.shape
    by = (3, -2)
    assert_same(velocity(params, shifted(x, by), shifted(condition, by), tau), shifted(v, by), NETWORK_ROUNDING)

    @jax.jit
    def composed(params, x, condition, tau):
        features = module.apply(params, condition, method="encode_condition")
        assert features.shape == (8, 8, 2, 11)
        return module.apply(params, x, features, tau, method="velocity")

    assert_same(composed(params, x, condition, tau), v, NETWORK_ROUNDING)
    for other in (  # each input counts, and the two examples do not meet
        velocity(params, shifted(x, by), condition, tau),
        velocity(params, x, condition, tau[::-1]),
        velocity(params, x, shifted(condition, by), tau),
    ):
        assert np.abs(other - v).max() > 1e-2 * np.abs(v).max()
    one = np.stack([x[0], 2 * x[1]])
    assert_same(velocity(params, one, condition, tau)[0], v[0], NETWORK_ROUNDING)


@pytest.mark.slow
def test_a_velocity_network_takes_any_number_of_times():
    """Each time has an embedding of its own, and what a network of fewer times has keeps its name and initial values."""

    def network(times):
        return velocity_field.FourierVelocityField(width=4, modes=2, depth=1, hidden=8, time_features=8, times=times)

    x, condition = standard_normal(2, 8, 8, 1), standard_normal(2, 8, 8, 1, seed=1)
    s, t = np.array([0.2, 0.7], np.float32), np.array([0.9, 0.4], np.float32)
    none, one, two = (
        traverse_util.flatten_dict(network(n).init(jax.random.key(0), x, condition, *[t] * n), sep="/")
        for n in range(3)
    )
    assert not any("embedding" in name for name in none)
    assert {name for name in two if name not in one} == {
        f"params/further_time_embeddings_0/Dense_0/{leaf}" for leaf in ("kernel", "bias")
    }
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name])
    common = {name for name, leaf in none.items() if name in one and one[name].shape == leaf.shape}
    assert {name for name in none if "state_branch" not in name} <= common

    params = lively(network(2), x, condition, s, t)
    v = network(2).apply(params, x, condition, s, t)
    for other in ((t, s), (s, s), (t, t)):  # each counts, and they are not the same to the network
        assert np.abs(network(2).apply(params, x, condition, *other) - v).max() > 1e-3 * np.abs(v).max()
    assert network(0).apply(lively(network(0), x, condition), x, condition).shape == x.shape
    with pytest.raises(UserError, match="1 transport times: expected times = 2"):
        network(2).apply(params, x, condition, s)


# --- published sizes ---------------------------------------------------------------------------------------------------


def sizes(params) -> dict[str, int]:
    """Number of parameters by path; a complex weight, kept as two real ones, is counted once."""
    flat = traverse_util.flatten_dict(jax.tree.map(lambda leaf: leaf.size, params), sep="/")
    return {path: size for path, size in flat.items() if not path.endswith("/imaginary")}


@pytest.mark.parametrize(
    ("process", "latent", "published"),
    [
        ("flow_matching", "ga", 181_037),
        ("flow_matching", "physical", 1_021_497),
        ("diffusion", "physical", 1_228_729),
    ],
)
def test_the_published_networks_have_the_published_number_of_parameters(process, latent, published):
    e = built("paper", process, latent)
    counted = sizes(jax.eval_shape(lambda: e.init_network(jax.random.key(0)))["params"])
    coordinates, frequencies = 2 * 2 * e.network.width, e.network.time_features // 2  # see the module's docstring
    assert sum(counted.values()) == published - coordinates - frequencies


def test_the_published_network_is_the_published_formula():
    """Every layer by NumPy's transforms: one projection of the time for all layers, exact GELU, none behind the last layer."""
    module = PublishedVelocityField(width=4, modes=2, depth=3, hidden=6, time_features=8)
    x, condition = standard_normal(2, 8, 8, 1), standard_normal(2, 8, 8, 1, seed=1)
    tau = np.array([0.2, 0.7], np.float32)
    variables = lively(module, x, condition, tau)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def gelu(h):
        return 0.5 * h * (1 + scipy.special.erf(h / 2**0.5))

    def dense(layer, h):
        return h @ layer["kernel"] + layer["bias"]

    def spectral(layer, h):  # (batch, x, y, c)
        weight = layer["real"] + 1j * layer["imaginary"]  # kx = -2 .. 1, ky = 0, 1
        h_hat = np.fft.rfft2(h, axes=(1, 2))
        out = np.zeros_like(h_hat)
        for row, kx in enumerate(range(-2, 2)):
            for ky in range(2):
                out[:, kx, ky] = h_hat[:, kx, ky] @ weight[row, ky]
        return np.fft.irfft2(out, (8, 8), axes=(1, 2))

    def branch(layers, h, time):
        h = dense(layers["Dense_0"], h)
        for number in range(3):
            h = gelu(h) if number else h
            h = spectral(layers[f"SpectralConv_{number}"], h) + dense(layers[f"Dense_{number + 1}"], h) + time
        return h

    phase = 2 * np.pi * tau[:, None] * np.random.default_rng(0).standard_normal(4) * 30.0
    embedded = dense(p["time_embeddings_0"]["Dense_0"], np.concatenate([np.sin(phase), np.cos(phase)], axis=1))
    embedded = embedded / (1 + np.exp(-embedded))
    time = dense(p["time_layer"], embedded)[:, None, None]
    h = np.concatenate([branch(p["state_branch"], x, time), branch(p["condition_branch"], condition, 0.0)], axis=-1)
    h = gelu(dense(p["mix_1"], gelu(dense(p["mix_0"], h))))
    expected = dense(p["output_layer"], gelu(dense(p["hidden_layer"], h)))
    found = np.asarray(jax.jit(module.apply)(variables, x, condition, tau))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(found - module.apply(variables, x, condition, tau[::-1])).max() > 1e-3 * np.abs(expected).max()
    with pytest.raises(UserError, match="0 transport times: expected times = 1"):
        module.apply(variables, x, condition)


def test_the_published_autoencoder_has_the_published_number_of_parameters_but_for_its_attention():
    e = built("paper")
    counted = sizes(jax.eval_shape(lambda: e.init_autoencoder(jax.random.key(0))))
    assert sum(counted.values()) == 8_478_978
    # the release projects queries, keys and values a second time in both attentions: 9.0 M in all
    channels = 4 * e.autoencoder.width
    again = 2 * 4 * channels * (channels + 1)
    assert sum(counted.values()) + again == pytest.approx(9.0e6, rel=2e-3)
