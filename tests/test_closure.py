"""StochasticClosure as a unit: its parts in order, its noise, its transformations, and what it refuses."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import built
from jax.experimental import checkify

from closure_jax.closure import Scaling, StochasticClosure
from closure_jax.errors import UserError
from closure_jax.models.autoencoder import IdentityDecoder, IdentityEncoder
from closure_jax.models.velocity_field import FourierVelocityField
from closure_jax.transport import paths
from closure_jax.transport.score import Score

N = 8
TRANSPORTS = {
    "flow_matching": paths.FlowMatching(),
    "interpolant_empirical": paths.InterpolantEmpirical(prediction="data"),
    "diffusion": paths.Diffusion(t_max=0.5),
}


def closure(transport=TRANSPORTS["flow_matching"]) -> StochasticClosure:
    """Of random parameters, in physical space."""
    network = FourierVelocityField(
        width=4, modes=2, depth=1, condition_width=4, condition_depth=1, hidden=8, time_features=8
    )
    latent = jnp.zeros((1, N, N, 1))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), latent, latent, jnp.zeros(1)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    fields = {name: {"encoder": {}, "decoder": {}} for name in ("vorticity", "closure")}
    numbers = {
        "vorticity": (0.3, 2.0),
        "closure": (-0.2, 0.1),
        "latent_vorticity": (0.1, 0.5),
        "latent_closure": (0.4, 1.5),
    }
    return StochasticClosure(
        params=fields | {"network": params},
        scalings={name: Scaling(jnp.float32(mean), jnp.float32(std)) for name, (mean, std) in numbers.items()},
        encoder=IdentityEncoder(),
        decoder=IdentityDecoder(),
        network=network,
        transport=transport,
        steps=3,
        resolution=N,
    )


VORTICITY = jnp.asarray(np.random.default_rng(1).standard_normal((5, N, N)), jnp.float32)
KEYS = jax.random.split(jax.random.key(2), 5)
every_transport = pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS)


@every_transport
@pytest.mark.slow
def test_a_sample_is_the_draw_from_its_noise_and_the_composition_of_its_parts(transport):
    model = closure(transport)
    sample = model.sample(KEYS, VORTICITY)
    assert sample.shape == VORTICITY.shape and sample.dtype == VORTICITY.dtype
    noise = model.noise(KEYS, VORTICITY)
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(noise))
    np.testing.assert_array_equal(model.draw(noise, VORTICITY), sample)

    condition = model.encode(VORTICITY)
    np.testing.assert_allclose(condition[..., 0], ((VORTICITY - 0.3) / 2.0 - 0.1) / 0.5, rtol=1e-5, atol=1e-6)
    latent = model.sample_latent(noise, condition)
    np.testing.assert_allclose(sample, (latent[..., 0] * 1.5 + 0.4) * 0.1 - 0.2, rtol=1e-5, atol=1e-6)
    states = model.trajectory(noise, condition)
    assert states.shape == (4, *condition.shape)
    np.testing.assert_allclose(states[-1], latent, rtol=1e-4, atol=1e-5)
    mean = transport.mean(model.bind(condition), condition)
    if mean is None:
        assert model.mean(VORTICITY) is None
    else:
        np.testing.assert_array_equal(model.mean(VORTICITY), model.decode(mean))
    np.testing.assert_allclose(model.reconstruct("vorticity", VORTICITY), VORTICITY, rtol=1e-5, atol=1e-6)


@every_transport
@pytest.mark.slow
def test_a_draw_belongs_to_its_key_place_and_noise(transport):
    model = closure(transport)
    call = jax.jit(StochasticClosure.__call__, static_argnums=3)
    key = jax.random.key(7)
    sample = call(model, key, VORTICITY, 2)
    np.testing.assert_array_equal(sample, call(model, key, VORTICITY, 2))
    np.testing.assert_allclose(model(key, VORTICITY, 2), sample, rtol=1e-4, atol=1e-5)
    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(5)])
    np.testing.assert_allclose(model.sample(keys, VORTICITY, 2), sample, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(key, VORTICITY[:2], 2), sample[:2], rtol=1e-4, atol=1e-5)
    distance = np.abs(call(model, jax.random.key(8), VORTICITY, 2) - sample).max(axis=(1, 2))
    np.testing.assert_array_less(1e-3 * np.abs(sample).max(), distance)


@every_transport
@pytest.mark.slow
def test_noise_of_many_steps_serves_fewer_in_one_program(transport):
    model = closure(transport)
    noise = model.noise(KEYS, VORTICITY, 6)
    draw = jax.jit(StochasticClosure.draw)
    for steps in (1, 4, 6):
        np.testing.assert_allclose(
            draw(model, noise, VORTICITY, steps), model.sample(KEYS, VORTICITY, steps), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_one_field_at_a_time_under_vmap_is_the_batch():
    model, noise = closure(), closure().noise(KEYS, VORTICITY)
    alone = jax.vmap(lambda source, field: model.draw({"source": source[None]}, field[None])[0])(
        noise["source"], VORTICITY
    )
    np.testing.assert_allclose(alone, model.draw(noise, VORTICITY), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_gradient_is_the_directional_derivative(x64):
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), closure())
    fields, direction = np.random.default_rng(3).standard_normal((2, 2, N, N))
    noise = model.noise(KEYS[:2], fields)

    @jax.jit
    def mean_square(epsilon):
        return jnp.mean(model.draw(noise, fields + epsilon * direction) ** 2)

    step = 1e-5
    difference = (mean_square(step) - mean_square(-step)) / (2 * step)
    gradient = jax.grad(mean_square)(0.0)
    assert abs(gradient) > 1e-8
    np.testing.assert_allclose(gradient, difference, rtol=1e-6)


def test_the_mirrored_noise_of_flow_matching_starts_at_the_mirrored_source():
    model = closure()
    noise, condition = model.noise(KEYS, VORTICITY), model.encode(VORTICITY)
    mirrored = jax.tree.map(jnp.negative, noise)
    np.testing.assert_array_equal(
        model.trajectory(mirrored, condition, 1)[0], -model.trajectory(noise, condition, 1)[0]
    )


def test_a_closure_without_noise_is_its_own_mean():
    one = [f"{field}=1" for field in ("sampler.steps", "evaluation.steps", "evaluation.rollout_sampler_steps")]
    experiment = built("tiny", "flow_matching", "physical", "transport.process=conditional_mean", *one)
    rng, n = np.random.default_rng(4), experiment.data.resolution
    leaves = experiment.template()
    params = jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), leaves["params"])
    scalings = {name: {"mean": jnp.float32(0), "std": jnp.float32(1)} for name in leaves["scalings"]}
    model = experiment.assemble({"params": params, "scalings": scalings})
    fields = rng.standard_normal((2, n, n)).astype(np.float32)
    assert not model.linear_in_noise  # its network isn't
    np.testing.assert_allclose(model.mean(fields), model.sample(KEYS[:2], fields), rtol=1e-5, atol=1e-6)


@pytest.fixture
def unchecked():
    """Without the tests' own check of signatures, which comes before the package's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_wrong_calls_are_refused_in_one_line_also_under_jit(unchecked):
    flow_matching, diffusion = closure(), closure(TRANSPORTS["diffusion"])
    key, noise = jax.random.key(0), flow_matching.noise(KEYS, VORTICITY)
    sample = jax.jit(lambda steps: diffusion(key, VORTICITY, steps))
    condition, ten = flow_matching.encode(VORTICITY), jnp.arange(10)
    generator = flow_matching.replace(transport=Score())
    cases = {
        "steps=[0 1 2": lambda: flow_matching(key, VORTICITY, ten),
        "steps=JitTracer(int32[10]): expected a single whole number": lambda: sample(ten),
        "steps=JitTracer(int32[10])": lambda: jax.jit(lambda steps: generator(key, VORTICITY, steps))(ten),
        "steps=True: expected a single whole number": lambda: flow_matching(key, VORTICITY, True),
        f"steps={10**30}: expected at most 2,000,000,000": lambda: flow_matching(key, VORTICITY, 10**30),
        "vorticity of type list: expected an array": lambda: flow_matching(key, [[1.0, 2.0], [3.0]]),
        "vorticity of type NoneType: expected an array": lambda: flow_matching.noise(KEYS, None),
        "vorticity of shape (8, 8): expected (batch": lambda: jax.vmap(flow_matching.mean)(VORTICITY),
        "vorticity of shape (8, 8): expected (ba": lambda: jax.grad(lambda w: flow_matching.mean(w).sum())(
            VORTICITY[0]
        ),
        "vorticity of type int32: expected real": lambda: jax.jit(flow_matching.mean)(jnp.ones((2, N, N), jnp.int32)),
        "field='nosuch': expected 'vorticity' or": lambda: flow_matching.reconstruct("nosuch", VORTICITY),
        "latent of shape (5, 4, 4, 1): expected (batch, 8, 8, 1)": lambda: flow_matching.decode(
            jnp.zeros((5, 4, 4, 1))
        ),
        "latent of type int32: expected real": lambda: jax.jit(flow_matching.decode)(jnp.ones((5, N, N, 1), jnp.int32)),
        "condition of shape (5, 8, 8): expected": lambda: flow_matching.sample_latent(noise, condition[..., 0]),
        "condition of type NoneType": lambda: flow_matching.trajectory(noise, None),
        "condition of shape (8, 8, 1)": lambda: flow_matching.latent_noise(KEYS, condition[0]),
        "noise PyTreeDef(None): expected": lambda: flow_matching.draw(None, VORTICITY),
        "noise of type complex64: expected real": lambda: flow_matching.draw(
            jax.tree.map(jnp.fft.fft, noise), VORTICITY
        ),
        "noise of type str: expected an array": lambda: flow_matching.draw({"source": "numbers"}, VORTICITY),
        "key of type uint32 and shape (3,)": lambda: flow_matching(jnp.zeros(3, jnp.uint32), VORTICITY),
        "vorticity of shape (8, 8): expected (batch, 8, 8)": lambda: flow_matching(key, VORTICITY[0]),
        "vorticity of shape (5, 8, 4)": lambda: flow_matching(key, VORTICITY[:, :, :4]),
        "vorticity of shape (5, 16, 16)": lambda: jax.jit(lambda w: flow_matching(key, w))(jnp.zeros((5, 16, 16))),
        "vorticity of type complex64": lambda: jax.jit(flow_matching.encode)(jnp.fft.fft2(VORTICITY)),
        "vorticity of type int32": lambda: flow_matching(key, jnp.ones((2, N, N), jnp.int32)),
        "closure of shape (8, 8)": lambda: flow_matching.reconstruct("closure", VORTICITY[0]),
        "steps=0: expected at least 1": lambda: flow_matching(key, VORTICITY, 0),
        "steps=-1: expected at least 1": lambda: flow_matching.draw(noise, VORTICITY, -1),
        "steps=2.5: expected a single whole number": lambda: flow_matching(key, VORTICITY, 2.5),
        "steps=5: the noise suffices for 3": lambda: diffusion.draw(diffusion.noise(KEYS, VORTICITY), VORTICITY, 5),
        "steps=": lambda: sample(2),
        "2 keys for 5 fields": lambda: flow_matching.sample(KEYS[:2], VORTICITY),
        "a single key for 5 fields: expected one for each field, such as": lambda: flow_matching.sample(key, VORTICITY),
        "a single key for 2 fields": lambda: flow_matching.sample(jax.random.PRNGKey(0), VORTICITY[:2]),
        "(5,) keys for a call: expected a single one": lambda: flow_matching(KEYS, VORTICITY),
        "key of type int: expected a random key": lambda: flow_matching(0, VORTICITY),
        "key of type float32: expected a random key": lambda: flow_matching.sample(jnp.zeros(5), VORTICITY),
        "noise of 5 samples for 4 fields": lambda: flow_matching.draw(noise, VORTICITY[:4]),
        "noise of shape (4, 4, 1) for each field: expected (8, 8, 1), as noise": lambda: flow_matching.draw(
            {"source": jnp.zeros((5, 4, 4, 1))}, VORTICITY
        ),
        "noise of shape (3, 4, 4, 1) for each field: expected ('steps', 8, 8, 1)": lambda: diffusion.draw(
            {"source": noise["source"], "increments": jnp.zeros((5, 3, 4, 4, 1))}, VORTICITY
        ),
        "noise PyTreeDef(*): expected PyTreeDef({'source': *})": lambda: flow_matching.draw(noise["source"], VORTICITY),
    }
    for message, call in cases.items():
        with pytest.raises(UserError) as refused:
            call()
        assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
    assert (
        jax.jit(lambda steps: flow_matching(key, VORTICITY, steps))(2).shape == VORTICITY.shape
    )  # no noise of its steps
    old = jax.random.PRNGKey(0)  # keys of the old type serve
    np.testing.assert_array_equal(flow_matching(old, VORTICITY), flow_matching(key, VORTICITY))
    assert flow_matching.sample(jax.random.split(old, 5), VORTICITY).shape == VORTICITY.shape


def test_traced_steps_that_are_wrong_are_told_where_it_is_asked_for():
    def error_of(model, steps):
        latent = model.encode(VORTICITY)
        noise = model.latent_noise(KEYS, latent)
        call = checkify.checkify(lambda s: model.transport.sample(lambda x, *_: x, noise, latent, model._number(s)))
        return jax.jit(call)(steps)[0].get()

    generator = closure(Score())
    assert error_of(closure(), -1).startswith("steps=-1: expected at least 1 sampler step")
    assert error_of(generator, 2).startswith("steps=2: a generator makes its sample in one call, expected 1")
    assert error_of(closure(), 1) is None and error_of(generator, 1) is None


@pytest.mark.slow
def test_fields_that_are_not_finite_are_told_where_it_is_asked_for():
    model, spoilt = closure(), VORTICITY.at[3, 1, 2].set(jnp.nan)
    assert jnp.isnan(model(jax.random.key(0), spoilt)).any()  # nothing is looked at unasked

    def coupled(vorticity):
        def step(vorticity, key):
            return vorticity + 0.1 * model(key, vorticity), None

        return jax.lax.scan(step, vorticity, jax.random.split(jax.random.key(0), 3))[0]

    calls = {
        "a call": lambda fields: model(jax.random.key(0), fields),
        "jit": jax.jit(lambda fields: model(jax.random.key(0), fields)),
        "vmap": lambda fields: jax.vmap(lambda one, key: model(key, one[None]))(fields, KEYS),
        "grad": jax.grad(lambda fields: model(jax.random.key(0), fields).sum()),
        "scan": coupled,
    }
    for name, call in calls.items():
        checked = jax.jit(checkify.checkify(call))
        assert checked(VORTICITY)[0].get() is None, name
        assert checked(spoilt)[0].get().startswith("vorticity is not finite: expected finite numbers"), name
    noise = {"source": model.noise(KEYS, VORTICITY)["source"].at[3, 1, 2].set(jnp.inf)}
    assert checkify.checkify(model.draw)(noise, VORTICITY)[0].get().startswith("noise is not finite")
    endless = model.replace(scalings=model.scalings | {"closure": Scaling(jnp.float32(0), jnp.float32(jnp.inf))})
    error, _ = checkify.checkify(lambda fields: endless(jax.random.key(0), fields))(VORTICITY)
    assert error.get().startswith("the closure became not finite")
