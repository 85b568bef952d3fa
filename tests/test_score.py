"""The score that a generator of one call is trained by, and the generator, against laws that are known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built, refusal

from closure_jax import config
from closure_jax.errors import UserError
from closure_jax.models.generator import ProductGenerator
from closure_jax.transport import paths
from closure_jax.transport.conditional_mean import ConditionalMean
from closure_jax.transport.score import Score, ensemble_score, fourier_parts

MANY = 5.0  # standard deviations of an estimate; draws are fixed, so a pass stays a pass
BATCH, N = 4096, 4


def by_pairs(samples, truth, fairness):
    """The score of its definition, pair by pair, of numbers."""
    count = len(samples)
    pairs = sum(np.mean(abs(a - b)) for a, b in itertools.product(samples, samples))
    return np.mean(abs(samples - truth)) - (1 - (1 - fairness) / count) * pairs / (2 * count * (count - 1))


@pytest.mark.parametrize("members", [2, 3, 4, 5])
def test_the_score_is_that_of_its_pairs(members, x64):
    rng = np.random.default_rng(0)
    samples, truth = rng.normal(size=(members, 7, 2)), rng.normal(size=(7, 2))
    for fairness in (1.0, 0.95):
        score = ensemble_score(jnp.asarray(samples), jnp.asarray(truth), lambda d: jnp.mean(jnp.abs(d)), fairness)
        np.testing.assert_allclose(score, by_pairs(samples, truth, fairness), rtol=1e-12)


def test_fourier_parts_of_white_noise_have_half_its_variance_each():
    parts = fourier_parts(jax.random.normal(jax.random.key(0), (BATCH, 8, 8, 1)), 1)
    assert parts.shape == (BATCH, 8, 5, 1, 2)
    inner = np.asarray(parts[:, :, 1:4])  # modes that are not their own conjugates
    np.testing.assert_allclose(np.mean(inner**2), 0.5, rtol=MANY * np.sqrt(2 / inner.size))


# --- a Gaussian toy: y = 1 + 0.5 L z, L a filter that makes neighbours alike ---


def noise_of(z, share):
    """Noise of variance 1: a share of it common to all points of a line, the rest white."""
    common = jnp.mean(z, axis=1, keepdims=True) * np.sqrt(z.shape[1])
    return jnp.sqrt(share) * common + jnp.sqrt(1 - share) * (z - jnp.mean(z, axis=1, keepdims=True)) * np.sqrt(
        N / (N - 1)
    )


TRUE = {"mean": 1.0, "deviation": 0.5, "share": 0.5}


@functools.cache
def gradients_of(transport):
    """(parameters, keys, truth) -> the loss's gradient, for each example."""

    def loss(parameters, key, y):
        def field(z):
            return parameters["mean"] + parameters["deviation"] * noise_of(z, parameters["share"])

        return transport.loss(field, key[None], jnp.zeros((1, N, N, 1)), y[None])[0]

    return jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))


def toy_gradients(transport, **changed):
    """Mean over many examples of the loss's gradient at a law, and its standard error, by parameter."""
    truth = 1.0 + 0.5 * noise_of(jax.random.normal(jax.random.key(1), (BATCH, N, N, 1)), TRUE["share"])
    at = {name: jnp.float32(value) for name, value in (TRUE | changed).items()}
    each = gradients_of(transport)(at, jax.random.split(jax.random.key(2), BATCH), truth)
    return {name: (float(np.mean(g)), float(np.std(g) / np.sqrt(BATCH))) for name, g in each.items()}


@pytest.mark.parametrize("transport", [Score(), Score(members=5), Score(score="energy", members=4)], ids=str)
def test_the_gradient_vanishes_at_the_true_law_and_nowhere_near_it(transport):
    for mean, error in toy_gradients(transport).values():
        assert abs(mean) < MANY * error
    for name, value in (("mean", 1.1), ("mean", 0.9), ("deviation", 0.6), ("deviation", 0.4), ("share", 0.8)):
        mean, error = toy_gradients(transport, **{name: value})[name]
        assert mean * np.sign(value - TRUE[name]) > MANY * error  # downhill is back to the truth


def test_points_alone_do_not_see_how_neighbours_hang_together():
    mean, error = toy_gradients(Score(spectral_weight=0.0, members=4), share=0.8)["share"]
    seen, other_error = toy_gradients(Score(members=4), share=0.8)["share"]
    assert abs(mean) < MANY * error and seen > MANY * other_error


def test_the_fair_score_does_not_depend_on_the_number_of_members_and_the_other_does():
    def score(transport):
        truth = jax.random.normal(jax.random.key(1), (BATCH, N, N, 1))
        keys = jax.random.split(jax.random.key(2), BATCH)
        one = jax.vmap(lambda key, y: transport.loss(lambda z: 0.8 * z, key[None], y[None], y[None])[0])
        values = np.asarray(jax.jit(one)(keys, truth))
        return values.mean(), values.std() / np.sqrt(BATCH)

    (two, two_error), (six, six_error) = score(Score(members=2)), score(Score(members=6))
    assert abs(two - six) < MANY * np.hypot(two_error, six_error)
    (two, two_error), (six, six_error) = score(Score(members=2, fairness=0.5)), score(Score(members=6, fairness=0.5))
    assert two - six > MANY * np.hypot(two_error, six_error)


# --- one call ---


def test_one_call_makes_a_sample_and_another_number_is_refused():
    transport, condition = Score(), jnp.ones((3, 4, 4, 2))
    noise = transport.noise(jax.random.split(jax.random.key(0), 3), (4, 4, 2), 50)
    assert noise["source"].shape == condition.shape
    np.testing.assert_array_equal(
        transport.sample(lambda z: 2 * z + condition, noise, condition, 1), 2 * noise["source"] + 1
    )
    assert transport.trajectory(lambda z: z, noise, condition, 1).shape == (2, *condition.shape)
    assert "steps=4" in refusal(lambda: transport.sample(lambda z: z, noise, condition, 4))


@pytest.mark.parametrize(
    ("field", "value"), [("members", 1), ("score", "points"), ("spectral_weight", -1.0), ("fairness", 0.0)]
)
def test_impossible_fields_are_refused(field, value):
    assert refusal(lambda: Score(**{field: value})).startswith(f"{field}={value}: expected ")


def test_the_configuration_refuses_more_calls_than_one_and_networks_that_do_not_fit():
    for text in ("sampler.steps=10", "evaluation.steps=1,10", "evaluation.rollout_sampler_steps=4"):
        c = config.load("experiments/cs_ga.py:tiny")
        config.override(c, [text])
        assert refusal(lambda c=c: config.build(c)).startswith(f"--config.{text.split('=')[0]}=")
    c = config.load("experiments/fm_ga.py:tiny")
    config.use(c, "network", "products", modes=4)
    assert "expected transport.process = score" in refusal(lambda: config.build(c))


# --- the generator ---


def generator(**fields):
    module = ProductGenerator(width=3, modes=4, depth=2, hidden=5, **fields)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 8, 8, 1)))
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    return jax.jit(lambda z, condition: module.apply(moved, z, condition))


@pytest.mark.slow
@pytest.mark.parametrize("noise_width", [0, 2])
def test_the_generator_is_linear_in_its_noise_and_commutes_with_shifts(noise_width):
    call = generator(noise_width=noise_width)
    z, condition = jax.random.normal(jax.random.key(1), (2, 2, 8, 8, 1))
    mean = call(0 * z, condition)
    np.testing.assert_allclose(call(3 * z, condition) - mean, 3 * (call(z, condition) - mean), atol=2e-4)
    moved = call(jnp.roll(z, (2, 3), (1, 2)), jnp.roll(condition, (2, 3), (1, 2)))
    np.testing.assert_allclose(moved, jnp.roll(call(z, condition), (2, 3), (1, 2)), atol=2e-4)


def test_products_of_the_generator_do_not_alias():
    """cos^2(3 x) = (1 + cos(6 x)) / 2, and 6 of 8 points would be seen as -2."""
    from closure_jax.models.layers import SpectralConv

    x = jnp.cos(3 * 2 * jnp.pi * jnp.arange(8) / 8)[None, :, None, None] * jnp.ones((8, 1, 1, 1))
    same = {"params": {"real": jnp.ones((8, 4, 1, 1)), "imaginary": jnp.zeros((8, 4, 1, 1))}}
    fine = SpectralConv(1, 4).apply(same, x, 12)
    np.testing.assert_allclose(fine[0, :, 0, 0], np.cos(3 * 2 * np.pi * np.arange(12) / 12), atol=1e-5)
    np.testing.assert_allclose(SpectralConv(1, 4).apply(same, fine**2, 8), 0.5, atol=1e-5)


def test_one_call_of_an_exact_path_gives_the_mean():
    condition = jax.random.normal(jax.random.key(0), (5, 3, 3, 1))
    mean, deviation = 0.5 + jnp.sin(condition), 0.3
    for path in (paths.FlowMatching(), paths.InterpolantGaussian(), paths.InterpolantEmpirical()):

        def field(x, tau, path=path):
            tau = tau.reshape(-1, 1, 1, 1)
            start, variance = (condition, 0.0) if path.from_condition else (0.0, 1.0)
            wiener = tau if path.stochastic else 0.0
            moved = x - (1 - tau) * start - tau * mean
            total = (1 - tau) ** 2 * (variance + wiener) + tau**2 * deviation**2
            slope = (tau * deviation**2 - (1 - tau) * (variance + wiener)) / jnp.where(total == 0, 1.0, total)
            return mean - start + slope * moved

        np.testing.assert_allclose(path.mean(field, condition), mean, atol=1e-5)
    assert paths.Diffusion().mean(lambda x, tau: x, condition) is None


# --- the oracle ---


def test_the_oracle_draws_from_the_law_of_the_problem():
    experiment = config.build(config.load("experiments/oracle.py:tiny"))
    law = experiment.problem.exact()
    vorticity = jax.random.normal(jax.random.key(0), (1, 8, 8)).repeat(4, 1).repeat(4, 2)
    fields = jnp.repeat(vorticity, 2000, axis=0)
    module = experiment.network
    z = jax.random.normal(jax.random.key(1), (*fields.shape, 1))
    drawn = np.asarray(jax.jit(lambda z: module.apply({}, z, fields[..., None]))(z))[..., 0]
    mean = np.asarray(law.mean(vorticity))[0]
    deviation = experiment.problem.law(np.asarray(vorticity)).deviation
    error = deviation / np.sqrt(2000)
    assert np.abs(drawn.mean(axis=0) - mean).max() < MANY * error
    np.testing.assert_allclose(drawn.std(axis=0).mean(), deviation, rtol=0.02)


def test_a_problem_that_nobody_knows_has_no_oracle():
    from closure_jax.problems.oracle import Oracle

    assert "nobody knows the law" in refusal(lambda: Oracle(problem=object()))


@pytest.mark.slow
def test_a_closure_of_one_call_has_a_mean_and_that_of_diffusion_has_none():
    def closure(experiment):
        leaves = experiment.template()
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), leaves["params"])
        scalings = {name: {"mean": np.float32(0.1), "std": np.float32(1.5)} for name in leaves["scalings"]}
        return experiment.assemble({"params": params, "scalings": scalings})

    vorticity = jax.random.normal(jax.random.key(0), (2, 32, 32))
    one = closure(config.build(config.load("experiments/cs_ga.py:tiny")))
    noise = one.noise(jax.random.split(jax.random.key(1), 2), vorticity)
    zero = jax.tree.map(jnp.zeros_like, noise)
    np.testing.assert_allclose(one.mean(vorticity), one.draw(zero, vorticity), atol=1e-5)
    assert closure(built("tiny", "diffusion", "ga")).mean(vorticity) is None


def test_least_squares_give_the_mean_and_nothing_random():
    """g(c) = a c + b of pairs x = 2 c - 1 + noise; what it is given as z is 0."""
    mean, (keys, c) = ConditionalMean(), (jax.random.split(jax.random.key(0), 64), jnp.linspace(-1, 1, 64)[:, None])
    x = 2 * c - 1 + jax.random.normal(jax.random.key(1), c.shape)

    def loss(params):
        return mean.loss(lambda z: params[0] * c + params[1] + z, keys, c, x)[0]

    a, b = np.polyfit(c[:, 0], x[:, 0], 1)
    np.testing.assert_allclose(jax.grad(loss)(jnp.array([a, b])), 0, atol=1e-5)
    assert float(loss(jnp.array([a, b]))) == pytest.approx(float(np.mean((a * c + b - x) ** 2)), rel=1e-5)
    decoded, _ = mean.loss(lambda z: z, keys, c, x, decode=lambda latent: latent + 3)
    assert float(decoded) == pytest.approx(float(np.mean((3 - x) ** 2)), rel=1e-5)
    noise = mean.noise(keys, c.shape[1:], 1)
    assert not jax.tree.leaves(noise)
    np.testing.assert_array_equal(mean.sample(lambda z: c + z, noise, c, 1), mean.mean(lambda z: c + z, c))
    with pytest.raises(UserError, match="^steps=2"):
        mean.sample(lambda z: c + z, noise, c, 2)
