"""Precision of products, as programs ask for it: an accelerator rounds the operands of what is asked for less."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.extend
import jax.numpy as jnp
import pytest
from helpers import REPOSITORY

import closure_jax as cj
from closure_jax import config as config_lib
from closure_jax.config import Experiment
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.draw import FixedSteps
from closure_jax.models import layers
from closure_jax.parallel import devices
from closure_jax.physics import spectral
from closure_jax.training import steps

HIGH, HIGHEST = jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST


def experiment(name: str, *overrides: str) -> Experiment:
    config = config_lib.load(f"{REPOSITORY / 'experiments' / name}.py:tiny")
    config_lib.override(config, overrides)
    return config_lib.build(config)


PUBLISHED = ("autoencoder.kind=published", "autoencoder.width=16")
RUNS = {
    "fm_ga": experiment("fm_ga"),
    "dm_joint": experiment("dm_joint"),
    "cs_ga": experiment("cs_ga"),
    "mf_ga": experiment("mf_ga"),
    "published": experiment("fm_mp", *PUBLISHED),
}


def programs(run: Experiment) -> Iterator[tuple[str, Any, tuple]]:
    """(name, function, arguments) of what a run computes on a device, arguments by shape alone."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    n, latent = run.data.resolution, (4, *run.latent_shape)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    leaves = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, run.template()))
    loss = steps.autoencoder_loss(*run.autoencoder_modules(), None)
    gradient = devices.alone(jax.value_and_grad(loss, has_aux=True))
    yield "autoencoder", gradient, (leaves["params"]["vorticity"], {"field": shape(4, n, n)}, keys)
    gradient = devices.alone(jax.value_and_grad(steps.transport_loss(run.network, run.transport), has_aux=True))
    yield (
        "transport",
        gradient,
        (leaves["params"]["network"], dict.fromkeys(("condition", "target"), shape(*latent)), keys),
    )
    yield "sample", lambda leaves, keys, w: run.assemble(leaves).sample(keys, w), (leaves, keys, shape(4, n, n))
    solver = run.problem.solver()

    def coupled(leaves, keys, w):
        dynamics = Coupled(
            solver.step, solver.dt, FixedSteps(run.assemble(leaves), run.evaluation.rollout_sampler_steps), run.coupling
        )
        return dynamics.vorticity(dynamics.advance(keys, dynamics.begin(keys, w), 0, run.coupling.period))

    grouped = jax.eval_shape(lambda keys: keys.reshape(2, 2), keys)
    yield "coupled", coupled, (leaves, grouped, shape(2, 2, n, n))
    true = run.problem.truth()
    yield "truth", lambda keys, w: true.advance(keys, true.begin(keys, w), 0, 2), (grouped, shape(2, 2, n, n))


def products(jaxpr: Any) -> Iterator[tuple[str, Any]]:
    """(primitive, precision of its operands) of each product and convolution of a program, and of those that it calls."""
    for equation in jaxpr.eqns:
        if "precision" in equation.params:
            yield equation.primitive.name, equation.params["precision"]
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("name", RUNS)
def test_no_product_is_left_to_what_a_device_takes_for_good_enough(name):
    for program, function, arguments in programs(RUNS[name]):
        asked = list(products(jax.make_jaxpr(function)(*arguments).jaxpr))
        assert asked or program == "truth"
        assert all(precision in ((HIGH, HIGH), (HIGHEST, HIGHEST)) for _, precision in asked), (program, asked)
        assert (HIGHEST, HIGHEST) in [precision for _, precision in asked] or program in ("truth", "autoencoder")


def test_transforms_resampling_and_spectra_are_exact_whatever_a_user_asks_for():
    x = jnp.zeros((2, 16, 16, 3))
    fields = x.transpose(1, 2, 0, 3)
    layer = layers.SpectralConv(4, 3)
    params = layer.init(jax.random.key(0), fields)
    grid = spectral.make_grid(16, 1.0)
    with jax.default_matmul_precision("bfloat16"):
        for function, argument in (
            (lambda x: layers.resample(x, 8), x),
            (lambda x: layer.apply(params, x), fields),
            (jax.grad(lambda x: layer.apply(params, x).sum()), fields),
            (lambda w: spectral.energy_spectrum(w, grid), x[..., 0]),
        ):
            asked = list(products(jax.make_jaxpr(function)(argument).jaxpr))
            assert asked and {precision for _, precision in asked} == {(HIGHEST, HIGHEST)}


def test_a_network_is_as_exact_as_its_field_says():
    for precision in layers.PRECISIONS:
        run = experiment("fm_ga", f"network.precision={precision}", f"autoencoder.precision={precision}")
        (_, function, arguments) = next(one for one in programs(run) if one[0] == "sample")
        asked = {one for _, one in products(jax.make_jaxpr(function)(*arguments).jaxpr)}
        one = jax.lax.Precision(precision)
        assert asked == {(HIGHEST, HIGHEST), (one, one)}


# --- rounding as accelerators do it, emulated ------------------------------------------------------------------------

BITS = {"float32": 23, "three passes of bfloat16": 16, "TF32": 10, "bfloat16": 7}
"""Bits of the mantissa of a product's operands."""
DEVICES = {"GPU": {HIGH: "TF32", HIGHEST: "float32"}, "TPU": {HIGH: "three passes of bfloat16", HIGHEST: "float32"}}
"""What they make of operands by the precision that is asked for (jax.lax.Precision)."""


def rounded(x: jax.Array, bits: int) -> jax.Array:
    """x with as many bits of its mantissa, to nearest; complex numbers in both parts."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(rounded(x.real, bits), rounded(x.imag, bits))
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def emulated(function: Callable[..., Any], bits_of: Callable[[Any], int]) -> Callable[..., Any]:
    """The function with operands of each product and convolution rounded to bits_of(precision that it asks for)."""

    def run(jaxpr: Any, constants: Any, *arguments: Any) -> list[Any]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

        def value(of: Any) -> Any:
            return of.val if isinstance(of, jax.extend.core.Literal) else known[of]

        for equation in jaxpr.eqns:
            operands, name, params = [value(one) for one in equation.invars], equation.primitive.name, equation.params
            inner = [of_inner(one) for one in jax.extend.core.jaxprs_in_params(params)]
            if "precision" in params:
                operands = [rounded(one, bits_of(params["precision"][0])) for one in operands]
            if name == "scan":
                count, carried = params["num_consts"], params["num_consts"] + params["num_carry"]

                def body(carry: Any, x: Any, step: Any = inner[0], fixed: Any = operands[:count]) -> tuple[Any, Any]:
                    out = step(*fixed, *carry, *x)
                    return out[: len(carry)], out[len(carry) :]

                ends, stacked = jax.lax.scan(body, operands[count:carried], operands[carried:], length=params["length"])
                results = [*ends, *stacked]
            elif name == "while":
                own, more = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
                asks, goes_on = of_inner(params["cond_jaxpr"].jaxpr), of_inner(params["body_jaxpr"].jaxpr)

                def holds(state: Any, asks: Any = asks, fixed: Any = operands[:own]) -> Any:
                    return asks(*fixed, *state)[0]

                def step(state: Any, goes_on: Any = goes_on, fixed: Any = operands[own:more]) -> Any:
                    return goes_on(*fixed, *state)

                results = jax.lax.while_loop(holds, step, operands[more:])
            elif name == "cond":
                results = jax.lax.switch(operands[0], inner, *operands[1:])
            elif inner and name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "closed_call", "remat"):
                results = inner[0](*operands)
            else:
                assert not any(list(products(one)) for one in jax.extend.core.jaxprs_in_params(params)), name
                results = equation.primitive.bind(*operands, **params)
                results = results if equation.primitive.multiple_results else [results]
            known |= zip(equation.outvars, results, strict=True)
        return [value(one) for one in jaxpr.outvars]

    def of_inner(jaxpr: Any) -> Callable[..., list[Any]]:
        return functools.partial(run, jaxpr, ())

    def whole(*arguments: Any) -> Any:
        closed = jax.make_jaxpr(function)(*arguments)
        return run(closed.jaxpr, closed.consts, *jax.tree.leaves(arguments))[0]

    return jax.jit(whole)


@pytest.mark.slow
def test_samples_hardly_move_under_the_rounding_of_a_device():
    model, n = cj.load("fm_ga"), 64
    x = jnp.arange(n) / n
    w = jnp.stack([jnp.sin(2 * jnp.pi * (x[:, None] + x)), jnp.cos(4 * jnp.pi * x[:, None]) * jnp.ones(n)])

    def sample(w: jax.Array) -> jax.Array:
        return model.sample(jax.random.split(jax.random.key(0), 2), w, steps=4)

    exact = sample(w)

    def moved(bits_of: Callable[[Any], int]) -> float:
        return float(jnp.linalg.norm(emulated(sample, bits_of)(w) - exact) / jnp.linalg.norm(exact))

    assert moved(lambda asked: BITS["float32"]) < 1e-5  # the emulation itself
    of = {name: moved(lambda asked, made=made: BITS[made[asked]]) for name, made in DEVICES.items()}
    of["all in bfloat16"] = moved(lambda asked: BITS["bfloat16"])
    assert of["TPU"] < 1e-4 and of["GPU"] < 3e-3 and of["all in bfloat16"] > 4 * of["GPU"], of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fm_ga", "cs_ga", "published"])
def test_all_programs_lower_for_gpu_and_tpu(name):
    for program, function, arguments in programs(RUNS[name]):
        lowered = jax.export.export(jax.jit(function), platforms=["cuda", "tpu"])(*arguments)
        assert lowered.platforms == ("cuda", "tpu"), program
        text = lowered.mlir_module()
        assert "DEFAULT" not in text and ("HIGHEST" in text or program in ("truth", "autoencoder")), program
