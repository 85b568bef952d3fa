"""Precision of products, as programs ask for it: an accelerator rounds the operands of what is asked for less."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import jax.extend
import jax.numpy as jnp
import pytest
from helpers import REPOSITORY

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fm_ga", "cs_ga", "published"])
def test_all_programs_lower_for_gpu_and_tpu(name):
    for program, function, arguments in programs(RUNS[name]):
        lowered = jax.export.export(jax.jit(function), platforms=["cuda", "tpu"])(*arguments)
        assert lowered.platforms == ("cuda", "tpu"), program
        text = lowered.mlir_module()
        assert "DEFAULT" not in text and ("HIGHEST" in text or program in ("truth", "autoencoder")), program
