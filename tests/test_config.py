"""The configuration: published numbers, presets, overrides, validation, and the round trip through JSON."""

import json
import math

import jax
import pytest

from closure_jax import config
from closure_jax.config import build
from closure_jax.errors import UserError
from closure_jax.training import phases


def resolved(preset: str, *overrides: str):
    """The preset's configuration with `field=value` texts applied, validated."""
    c = config.base(preset)
    config.override(c, overrides)
    build.validate(c, phases.latent_spaces())
    return c


def refusal(function, *arguments) -> str:
    """The message of the UserError that a call must raise."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", config.PRESETS)
def test_every_preset_is_possible(preset):
    c = resolved(preset)
    assert c.preset == preset
    assert all(value is not None for _, value in config.fields(c))


def test_presets_have_the_same_fields_of_the_same_types():
    kinds = [{name: type(value) for name, value in config.fields(config.base(preset))} for preset in config.PRESETS]
    assert kinds[0] == kinds[1] == kinds[2]


def test_each_call_gives_a_configuration_of_its_own():
    config.base("tiny").flow.viscosity = 5.0
    assert config.base("tiny").flow.viscosity == 1e-3


def test_paper_is_the_published_system():
    c = config.base("paper")
    flow, data = c.flow, c.data
    assert (flow.domain_length, flow.viscosity, flow.dt) == (1.0, 1e-3, 1e-3)
    assert (flow.forcing_amplitude, flow.forcing_wavenumber) == (0.1, 1)
    assert (flow.initial_alpha, flow.initial_tau) == (2.5, 7.0)
    assert (flow.noise_alpha, flow.noise_kappa, flow.noise_sigma) == (0.005, 10.0, 5e-5)
    assert (flow.resolution, data.resolution) == (256, 64)
    assert (data.trajectories, data.test_trajectories) == (100, 10)
    assert (data.burn_in, data.end, data.snapshot_every) == (20.0, 40.0, 100)


def test_paper_stores_as_many_pairs_and_as_much_noise_as_published():
    c = config.base("paper")
    times = build.simulation(c).snapshot_times()
    assert len(times) == 200 and 90 * len(times) == 18_000 and 10 * len(times) == 2_000
    assert times[0] > 20.0 and times[-1] == pytest.approx(40.0)
    expected = 5e-5 * math.sqrt(10.0 / (4 * math.pi * 0.005 * 1e-3))
    assert expected == pytest.approx(0.01995, abs=5e-6)
    for flow in (build.solver_flow(c), build.stored_flow(c)):
        assert build.noise(c, flow).standard_deviation() == pytest.approx(expected, rel=2e-3)


def test_paper_has_the_published_networks():
    c = config.base("paper")
    ae, network = c.autoencoder, c.network
    assert (ae.kind, ae.width) == ("published", 64)
    assert build.latent_shape(c) == (16, 16, 1)
    assert (network.modes, network.width, network.depth, network.hidden) == (4, 20, 4, 128)
    assert (network.condition_width, network.condition_depth, network.condition_gated) == (20, 4, False)
    assert (network.time_scale, network.time_features, network.prediction) == (30.0, 256, "target")

    autoencoder = jax.eval_shape(lambda: build.init_autoencoder(c, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(autoencoder)) == pytest.approx(8.5e6, rel=0.01)
    weights = jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda: build.init_network(c, jax.random.key(0))))
    complex_once = sum(leaf.size for path, leaf in weights if "imaginary" not in jax.tree_util.keystr(path))
    assert complex_once == pytest.approx(0.18e6, rel=0.15)


def test_paper_trains_as_published():
    c = config.base("paper")
    ga, ae, transport = c.latent.ga, c.autoencoder, c.transport
    assert (ga.weight, ga.zeta, ga.knn, ga.diffusion_time) == (1e-3, 1.0, 10, 10)
    assert (ga.components, ga.landmarks) == (100, 2000)
    trained = 81 * 200  # fields: nine of the ninety trajectories validate
    epoch = trained // 100
    assert ae.batch_size == transport.batch_size == 100
    assert ae.learning_rate == transport.learning_rate == 1e-3
    assert ae.steps == transport.steps == 1000 * epoch
    assert (ae.schedule, ae.decay_factor, ae.decay_every) == ("plateau", 0.8, 30 * epoch)
    assert (transport.schedule, transport.decay_factor, transport.decay_every) == ("step", 0.5, 100 * epoch)
    assert (ae.warmup_steps, ae.clip_norm, ae.ema_decay) == (0, 0.0, 0.0)


def test_unknown_preset_names_the_nearest():
    message = refusal(config.base, "tinny")
    assert "'tinny'" in message and "expected paper, small, tiny" in message and "nearest is 'tiny'" in message


# --- overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, text, value",
    [
        ("transport.steps", "1e3", 1000),
        ("transport.steps", "2000", 2000),
        ("flow.viscosity", "2e-3", 2e-3),
        ("flow.viscosity", "1", 1.0),
        ("evaluation.steps", "1,10,50", (1, 10, 50)),
        ("evaluation.steps", "7", (7,)),
        ("evaluation.steps", "(2, 4)", (2, 4)),
        ("evaluation.steps", "[2,4]", (2, 4)),
        ("network.condition_gated", "true", True),
        ("network.condition_gated", "False", False),
        ("network.condition_gated", "0", False),
        ("transport.process", "interpolant_gaussian", "interpolant_gaussian"),
        ("data.path", "a=b,c.h5", "a=b,c.h5"),
    ],
)
def test_an_override_takes_the_type_of_its_field(field, text, value):
    found = dict(config.fields(resolved("tiny", f"{field}={text}")))[field]
    assert found == value and type(found) is type(value)


def test_an_override_changes_its_field_only():
    before, after = (dict(config.fields(c)) for c in (resolved("tiny"), resolved("tiny", "seed=3")))
    assert {name for name in before if before[name] != after[name]} == {"seed"}


@pytest.mark.parametrize(
    "field, text, wanted",
    [
        ("transport.steps", "many", "whole number"),
        ("transport.steps", "1.5", "whole number"),
        ("transport.steps", "nan", "whole number"),
        ("transport.steps", "inf", "whole number"),
        ("transport.steps", "", "whole number"),
        ("flow.viscosity", "thick", "a number"),
        ("flow.viscosity", "1,2", "a number"),
        ("network.condition_gated", "maybe", "true or false"),
        ("evaluation.steps", "1,x", "whole numbers"),
        ("evaluation.steps", "1.5", "whole numbers"),
        ("evaluation.steps", "", "whole numbers"),
        ("evaluation.steps", "__import__('os')", "whole numbers"),
    ],
)
def test_text_of_another_type_is_refused(field, text, wanted):
    c = config.base("tiny")
    message = refusal(config.override, c, [f"{field}={text}"])
    assert f"--config.{field}={text}" in message and wanted in message and "expected" in message
    assert config.to_dict(c) == config.to_dict(config.base("tiny"))


@pytest.mark.parametrize(
    "field, nearest",
    [
        ("flow.viscocity", "flow.viscosity"),
        ("transport.proces", "transport.process"),
        ("learning_rate", "learning_rate"),
        ("viscosity", "flow.viscosity"),
    ],
)
def test_an_unknown_field_names_the_nearest(field, nearest):
    message = refusal(config.override, config.base("tiny"), [f"{field}=1"])
    assert f"--config.{field}" in message and nearest in message.split("nearest")[1] and "--dry_run" in message


@pytest.mark.parametrize("text", ["", "=3", "flow=3", "flow.", ".viscosity=1", "flow.viscosity.x=1", "zzz=1"])
def test_what_is_no_field_is_refused(text):
    assert "no such field" in refusal(config.override, config.base("tiny"), [text])


def test_a_field_without_value_is_refused():
    message = refusal(config.override, config.base("tiny"), ["flow.viscosity"])
    assert "--config.flow.viscosity" in message and "expected" in message and "0.001" in message


@pytest.mark.parametrize("text", ["preset=paper", "experiment=other"])
def test_what_the_experiment_file_decides_is_not_overridden(text):
    assert f"--config.{text}" in refusal(config.override, config.base("tiny"), [text])


# --- impossible values -----------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    # a field by itself: (preset, overrides, field that the message names, its value there)
    *[
        ("tiny", [f"{field}={text}"], field, text)
        for field, text in [
            ("seed", "-1"),
            ("seed", "2147483648"),
            ("flow.kind", "kolmogorof"),
            ("flow.resolution", "-32"),
            ("flow.resolution", "33"),
            ("flow.resolution", "6"),
            ("flow.domain_length", "0.0"),
            ("flow.domain_length", "-1.0"),
            ("flow.viscosity", "0.0"),
            ("flow.viscosity", "-0.001"),
            ("flow.viscosity", "nan"),
            ("flow.viscosity", "inf"),
            ("flow.dt", "0.0"),
            ("flow.dt", "-0.001"),
            ("flow.dt", "nan"),
            ("flow.forcing_amplitude", "inf"),
            ("flow.forcing_wavenumber", "0"),
            ("flow.noise_sigma", "-1.0"),
            ("flow.noise_kappa", "0.0"),
            ("flow.noise_alpha", "-0.1"),
            ("flow.initial_alpha", "0.0"),
            ("flow.initial_tau", "0.0"),
            ("data.trajectories", "2"),
            ("data.trajectories", "-5"),
            ("data.test_trajectories", "0"),
            ("data.seed", "-1"),
            ("data.train_trajectories", "-1"),
            ("data.train_trajectories", "6"),  # one of tiny's six is held out to validate
            ("data.resolution", "31"),
            ("data.resolution", "0"),
            ("data.burn_in", "-1.0"),
            ("data.end", "0.0"),
            ("data.end", "inf"),
            ("data.snapshot_every", "0"),
            ("data.chunk", "0"),
            ("autoencoder.kind", "publishd"),
            ("autoencoder.latent_resolution", "0"),
            ("autoencoder.latent_channels", "0"),
            ("autoencoder.width", "-8"),
            ("autoencoder.batch_size", "1"),
            ("autoencoder.steps", "0"),
            ("autoencoder.learning_rate", "0.0"),
            ("autoencoder.learning_rate", "nan"),
            ("autoencoder.schedule", "linear"),
            ("autoencoder.warmup_steps", "-1"),
            ("autoencoder.clip_norm", "-1.0"),
            ("autoencoder.ema_decay", "1.0"),
            ("latent.kind", "gaa"),
            ("latent.joint.moment_weight", "-0.1"),
            ("diffusion.schedule", "karas"),
            ("evaluation.rollout_t_max", "-1.0"),
            ("latent.ga.weight", "-0.1"),
            ("latent.ga.zeta", "-1.0"),
            ("latent.ga.scale", "none"),
            ("latent.ga.knn", "0"),
            ("latent.ga.diffusion_time", "0"),
            ("latent.ga.components", "0"),
            ("latent.ga.landmarks", "0"),
            ("network.kind", "unet"),
            ("network.prediction", "noise"),
            ("network.width", "0"),
            ("network.modes", "0"),
            ("network.depth", "-1"),
            ("network.time_scale", "-1.0"),
            ("transport.process", "flow_machting"),
            ("transport.batch_size", "0"),
            ("transport.steps", "-1"),
            ("transport.schedule", ""),
            ("transport.ema_decay", "-0.1"),
            ("sampler.steps", "0"),
            ("training.log_every", "0"),
            ("training.checkpoint_every", "0"),
            ("training.validation_fields", "0"),
            ("evaluation.states", "0"),
            ("evaluation.samples", "1"),
            ("evaluation.geometry_states", "7"),
            ("evaluation.steps", "()"),
            ("evaluation.steps", "(0, 1)"),
            ("evaluation.rollout_members", "1"),
            ("evaluation.rollout_time", "0.0"),
            ("evaluation.rollout_sampler_steps", "0"),
            ("evaluation.rollout_hold", "-5"),
            ("evaluation.rollout_white_noise", "-1.0"),
        ]
    ],
    # a field against others
    ("tiny", ["data.test_trajectories=8"], "data.test_trajectories", "8"),
    ("tiny", ["data.test_trajectories=7"], "data.test_trajectories", "7"),
    ("tiny", ["data.trajectories=3"], "data.test_trajectories", "2"),
    ("tiny", ["data.resolution=24"], "data.resolution", "24"),
    ("tiny", ["data.resolution=64"], "data.resolution", "64"),
    ("tiny", ["autoencoder.latent_resolution=6"], "autoencoder.latent_resolution", "6"),
    ("tiny", ["autoencoder.latent_resolution=32"], "autoencoder.latent_resolution", "32"),
    ("tiny", ["autoencoder.latent_resolution=64"], "autoencoder.latent_resolution", "64"),
    ("paper", ["autoencoder.latent_resolution=8"], "autoencoder.latent_resolution", "8"),
    ("paper", ["autoencoder.width=20"], "autoencoder.width", "20"),
    ("paper", ["autoencoder.width=1"], "autoencoder.width", "1"),
    ("paper", ["autoencoder.width=48"], "autoencoder.width", "48"),
    ("paper", ["autoencoder.decay_factor=1.5"], "autoencoder.decay_factor", "1.5"),
    ("paper", ["autoencoder.decay_factor=1"], "autoencoder.decay_factor", "1.0"),
    ("tiny", ["network.modes=5"], "network.modes", "5"),
    ("tiny", ["network.time_features=1"], "network.time_features", "1"),
    ("tiny", ["flow.forcing_wavenumber=16"], "flow.forcing_wavenumber", "16"),
    ("tiny", ["flow.forcing_wavenumber=100"], "flow.forcing_wavenumber", "100"),
    ("tiny", ["data.burn_in=3"], "data.burn_in", "3.0"),
    ("tiny", ["data.end=0.5"], "data.burn_in", "1.0"),
    ("tiny", ["data.snapshot_every=70"], "data.snapshot_every", "70"),
    ("tiny", ["data.snapshot_every=2000"], "data.snapshot_every", "2000"),
    ("tiny", ["data.burn_in=1.02"], "data.snapshot_every", "50"),
    ("tiny", ["data.end=1e308"], "data.end", "1e+308"),
    ("tiny", ["flow.dt=1e-320"], "flow.dt", "1e-320"),
    ("tiny", ["flow.dt=5"], "data.snapshot_every", "50"),
    ("tiny", ["flow.dt=3e-3", "data.burn_in=1.5", "data.end=3"], "flow.dt", "0.003"),
    ("tiny", ["training.checkpoint_every=7"], "training.checkpoint_every", "7"),
    ("tiny", ["evaluation.rollout_hold=7"], "evaluation.rollout_hold", "7"),
    ("tiny", ["evaluation.rollout_hold=2000"], "evaluation.rollout_hold", "2000"),
    ("tiny", ["evaluation.rollout_time=0.5"], "evaluation.rollout_time", "0.5"),
    ("tiny", ["evaluation.rollout_start=0.5"], "evaluation.rollout_start", "0.5"),
    ("tiny", ["evaluation.rollout_start=1"], "evaluation.rollout_start", "1.0"),
    ("tiny", ["evaluation.rollout_start=1.52"], "evaluation.rollout_start", "1.52"),
    ("tiny", ["evaluation.rollout_start=3.05"], "evaluation.rollout_start", "3.05"),
    ("tiny", ["evaluation.rollout_states=3"], "evaluation.rollout_states", "3"),
]


@pytest.mark.parametrize(
    "preset, overrides, field, value", IMPOSSIBLE, ids=[f"{row[0]}-{','.join(row[1])}" for row in IMPOSSIBLE]
)
def test_an_impossible_value_is_named_with_what_was_expected(preset, overrides, field, value):
    message = refusal(resolved, preset, *overrides)
    assert f"--config.{field}={value}" in message
    assert "expected" in message.split(f"--config.{field}={value}", 1)[1]


@pytest.mark.parametrize("width", [16, 96])
def test_a_width_that_is_let_through_builds(width):
    c = resolved("paper", f"autoencoder.width={width}")
    jax.eval_shape(lambda: build.init_autoencoder(c, jax.random.key(0)))


def test_a_misspelt_name_gets_the_nearest():
    assert "'flow_matching'" in refusal(resolved, "tiny", "transport.process=flow_machting")


def test_any_resolution_of_the_solver_will_do_for_a_given_file():
    resolved("tiny", "data.path=file.h5", "flow.resolution=24")


# --- config.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", config.PRESETS)
def test_a_configuration_survives_json(preset):
    c = resolved(preset, "evaluation.steps=3", "flow.viscosity=2", "seed=4")
    stored = json.loads(json.dumps(config.to_dict(c), allow_nan=False))
    found = config.from_dict(stored)
    assert list(config.fields(found)) == list(config.fields(c))
    assert [type(v) for _, v in config.fields(found)] == [type(v) for _, v in config.fields(c)]


def test_to_dict_nests_as_the_configuration_does():
    stored = config.to_dict(config.base("tiny"))
    assert stored["latent"]["ga"]["knn"] == 10 and stored["evaluation"]["steps"] == [1, 2, 5, 10, 50]


def test_an_older_file_gets_the_default_of_a_field_that_it_lacks():
    stored = config.to_dict(config.base("tiny"))
    del stored["sampler"], stored["flow"]["viscosity"]
    assert config.to_dict(config.from_dict(stored)) == config.to_dict(config.base("tiny"))


@pytest.mark.parametrize(
    "change, named",
    [
        ({"flow": {"rotation": 1.0}}, "flow.rotation"),
        ({"rotation": 1.0}, "rotation"),
        ({"flow": 3}, "flow"),
        ({"preset": "huge"}, "huge"),
        ({"preset": 3}, "preset"),
        ({"preset": None}, "preset"),
        ({"preset": ["tiny"]}, "preset"),
        ({"seed": "first"}, "seed"),
        ({"flow": {"viscosity": [1.0]}}, "flow.viscosity"),
        ({"flow": {"viscosity": None}}, "flow.viscosity"),
    ],
)
def test_a_stored_configuration_of_another_kind_is_refused(change, named):
    stored = config.to_dict(config.base("tiny"))
    for name, value in change.items():
        stored[name] = stored[name] | value if isinstance(value, dict) else value
    assert named in refusal(config.from_dict, stored)
