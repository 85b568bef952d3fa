"""Every experiment, at every preset: resolves, and its modules fit each other."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from closure_jax import config
from closure_jax.config import build
from closure_jax.errors import UserError
from closure_jax.training import phases

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.py"))
PROCESSES = {
    "fm": "flow_matching",
    "dm": "diffusion",
    "si_gaussian": "interpolant_gaussian",
    "si_empirical": "interpolant_empirical",
}

every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
every_preset = pytest.mark.parametrize("preset", config.PRESETS)


def resolved(experiment: Path, preset: str, *overrides: str):
    c = config.load(f"{experiment}:{preset}")
    config.override(c, overrides)
    build.validate(c, phases.latent_spaces())
    return c


def shapes(c) -> dict[str, tuple[int, ...]]:
    """Shapes of what the parts of the closure make of two fields, without computing them."""
    model = build.assemble(c, build.template_of(c))
    n = c.data.resolution
    fields = jax.ShapeDtypeStruct((2, n, n), jnp.float32)
    latents = jax.ShapeDtypeStruct((2, *build.latent_shape(c)), jnp.float32)
    tau = jax.ShapeDtypeStruct((2,), jnp.float32)

    def output(x_tau, tau, condition):
        features = model.network.apply(model.params["network"], condition, method="encode_condition")
        return model.network.apply(model.params["network"], x_tau, tau, features, method="velocity")

    return {
        "encode": jax.eval_shape(model.encode, fields).shape,
        "network": jax.eval_shape(output, latents, tau, latents).shape,
        "decode": jax.eval_shape(model.decode, latents).shape,
        "closure": jax.eval_shape(model, jax.eval_shape(lambda: jax.random.key(0)), fields).shape,
    }


def test_there_are_experiments():
    assert "fm_ga" in {path.stem for path in EXPERIMENTS}


@every_preset
@every_experiment
def test_an_experiment_is_possible_at_every_preset(experiment, preset):
    c = resolved(experiment, preset)
    assert (c.experiment, c.preset) == (experiment.stem, preset)
    assert {name for name, _ in config.fields(c)} == {name for name, _ in config.fields(config.base(preset))}


@every_preset
@every_experiment
def test_the_parts_of_an_experiment_fit(experiment, preset):
    c = resolved(experiment, preset)
    fields, latents = (2, c.data.resolution, c.data.resolution), (2, *build.latent_shape(c))
    assert shapes(c) == {"encode": latents, "network": latents, "decode": fields, "closure": fields}
    for section in (c.autoencoder, c.transport):
        jax.eval_shape(build.optimiser(section).init, {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
        assert build.learning_rate(section, section.steps // 2) > 0


@every_experiment
def test_a_latent_may_have_several_channels_but_not_in_physical_space(experiment):
    if experiment.stem.endswith("_physical"):
        with pytest.raises(UserError, match="latent_channels=3"):
            resolved(experiment, "tiny", "autoencoder.latent_channels=3")
        return
    c = resolved(experiment, "tiny", "autoencoder.latent_channels=3")
    fields, latents = (2, c.data.resolution, c.data.resolution), (2, *build.latent_shape(c))
    assert latents[-1] == 3
    assert shapes(c) == {"encode": latents, "network": latents, "decode": fields, "closure": fields}


@every_experiment
def test_an_experiment_is_short_and_its_docstring_has_its_command(experiment):
    text = experiment.read_text()
    assert len(text.splitlines()) <= 30
    assert f"./launch.sh experiments/{experiment.name}" in ast.get_docstring(ast.parse(text))


@every_experiment
def test_the_name_says_process_and_latent(experiment):
    process, latent = experiment.stem.rsplit("_", 1)
    c = resolved(experiment, "paper")
    assert c.transport.process == PROCESSES[process] and c.latent.kind == latent
