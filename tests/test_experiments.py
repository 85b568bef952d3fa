"""Every experiment, at every preset: it builds, and its modules fit each other."""

import ast

import jax
import jax.numpy as jnp
import pytest
from helpers import PROCESSES, REPOSITORY, refusal

from closure_jax import config
from closure_jax.bench import cost
from closure_jax.config.optimisers import optimiser

pytestmark = pytest.mark.usefixtures("unchecked")

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.py"))


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], config.Experiment]:
    """All experiments by (name, preset)."""
    return {
        (file.stem, preset): config.build(config.load(f"{file}:{preset}"))
        for file in EXPERIMENTS
        for preset in config.PRESETS
    }


def assert_parts_fit(experiment: config.Experiment) -> None:
    """Encoder, network, decoder and closure take each other's shapes; nothing is computed."""
    model, n = experiment.assemble(experiment.template()), experiment.data.resolution
    fields = jax.ShapeDtypeStruct((2, n, n), jnp.float32)
    latents = jax.ShapeDtypeStruct((2, *experiment.latent_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert jax.eval_shape(model.encode, fields).shape == latents.shape
    assert jax.eval_shape(model.decode, latents).shape == fields.shape
    assert jax.eval_shape(lambda key, fields: model(key, fields), key, fields).shape == fields.shape


def test_an_experiment_is_named_after_its_file_process_and_latent(everything):
    assert len(EXPERIMENTS) == 38
    for (name, preset), experiment in everything.items():
        assert (experiment.name, experiment.preset) == (name, preset)
        parts = name.removeprefix("les_").removesuffix("_online").rsplit("_", 1)
        process, latent = ("cs", "physical") if name in ("oracle", "les_cs_online") else parts
        c = experiment.config
        assert (PROCESSES[c.transport.process], c.latent.kind) == (process, latent)
        program = "joint" if latent == "joint" else "online" if name.endswith("_online") else "two_phase"
        assert c.program.kind == program


@pytest.mark.slow
def test_the_parts_of_an_experiment_fit_at_every_preset(everything):
    seen = []
    for experiment in everything.values():
        made_of = (experiment.autoencoder, experiment.network, experiment.transport, experiment.data.resolution)
        if made_of not in seen:  # experiments that differ in how they are trained have the same parts
            seen.append(made_of)
            assert_parts_fit(experiment)


def test_every_schedule_makes_an_optimiser(everything):
    for experiment in everything.values():
        for trained in (experiment.autoencoder_training, experiment.transport_training):
            settings, schedule = trained.settings, trained.schedule
            jax.eval_shape(optimiser(settings, schedule).init, {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
            assert schedule.rate(settings)(settings.steps // 2) > 0


@pytest.mark.slow
def test_a_latent_may_have_several_channels_but_not_in_physical_space():
    for file in EXPERIMENTS:
        c = config.load(f"{file}:tiny")
        overrides = ["autoencoder.latent_channels=3"]
        if file.stem.endswith("_physical") or file.stem == "oracle":
            assert "latent_channels" in refusal(config.override, c, overrides)
        elif file.stem.endswith("_ga"):  # the latent's term changes no shape
            config.override(c, overrides)
            experiment = config.build(c)
            assert experiment.latent_shape[-1] == 3
            assert_parts_fit(experiment)


def test_an_experiment_is_short_and_its_docstring_has_its_command():
    for file in EXPERIMENTS:
        text = file.read_text()
        assert len(text.splitlines()) <= 30
        assert f"./launch.sh experiments/{file.name}" in ast.get_docstring(ast.parse(text))


@pytest.mark.slow
def test_what_an_experiment_costs_is_known_before_it_runs(everything):
    """Of one experiment for each program, coupling and problem: nothing is trained, simulated or fitted."""
    kinds = {}
    for experiment in (everything[file.stem, "tiny"] for file in EXPERIMENTS):
        c = experiment.config
        kinds.setdefault((c.program.kind, c.coupling.kind, c.problem.kind), experiment)
    assert {("online", "matern"), ("joint", "extrapolated")} <= {kind[:2] for kind in kinds}
    for experiment in kinds.values():
        planned = [phase.name for phase in cost.phases_of(experiment)]
        trained = [phase.name for phase in experiment.program.phases(experiment)]
        in_physical_space = experiment.config.latent.kind == "physical"  # where autoencoders have nothing to train
        expected = [name for name in trained if not (in_physical_space and "autoencoder" in name)]
        assert planned == ["data", *expected, "a_priori", "a_posteriori"]
