"""The configuration: published numbers, presets, overrides, rules, pieces, and the round trip through JSON."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from helpers import PROCESSES, built, configured, refusal

from closure_jax import config
from closure_jax.config import names, schema, sections
from closure_jax.config.settings import Optimisation
from closure_jax.errors import UserError, positive
from closure_jax.models.published_field import PublishedVelocityField

# --- presets ---------------------------------------------------------------------------------------------------------


def test_every_preset_is_possible_and_its_own():
    for preset in config.PRESETS:
        c = config.base(preset)
        assert c.preset == preset and config.build(c).preset == preset
        c.flow.viscosity = 5.0
        assert config.base(preset).flow.viscosity == 1e-3
    rules = [configured(preset).coupling for preset in ("paper", "small", "tiny")]
    assert [(rule.kind, rule.period) for rule in rules] == [("held", 5), ("extrapolated", 5), ("extrapolated", 5)]
    assert rules[0].white_noise == 5e-5  # as published
    message = refusal(config.base, "tinny")
    assert "'tinny'" in message and "expected paper, medium, small, tiny" in message and "nearest is 'tiny'" in message


def test_a_misspelt_field_fails_where_it_is_set():
    c = config.base("tiny")
    with pytest.raises((AttributeError, KeyError)):
        c.transport.stpes = 3
    with pytest.raises((AttributeError, KeyError)):
        c.transport.update(stpes=3)
    assert "nearest is 'network.width'" in refusal(lambda: config.use(c, "network", "fourier", widht=3))


def test_paper_is_the_published_system():
    c = config.base("paper")
    problem, flow, data = c.problem, c.flow, c.data
    assert (problem.domain_length, flow.viscosity, problem.dt) == (1.0, 1e-3, 1e-3)
    assert (flow.forcing_amplitude, flow.forcing_wavenumber) == (0.1, 1)
    assert (problem.initial_alpha, problem.initial_tau) == (2.5, 7.0)
    assert (problem.noise_alpha, problem.noise_kappa, problem.noise_sigma) == (0.005, 10.0, 5e-5)
    assert (problem.resolution, data.resolution) == (256, 64)
    assert (data.trajectories, data.test_trajectories) == (100, 10)
    assert (data.burn_in, data.end, data.snapshot_every) == (20.0, 40.0, 100)


def test_paper_stores_as_many_pairs_and_as_much_noise_as_published():
    e = config.build(config.base("paper"))
    times = e.simulation().snapshot_times()
    assert len(times) == 200 and 90 * len(times) == 18_000 and 10 * len(times) == 2_000
    assert times[0] > 20.0 and times[-1] == pytest.approx(40.0)
    expected = 5e-5 * math.sqrt(10.0 / (4 * math.pi * 0.005 * 1e-3))
    assert expected == pytest.approx(0.01995, abs=5e-6)
    law = e.problem.law(np.zeros((1, 64, 64), np.float32))
    assert law.deviation == pytest.approx(expected, rel=2e-3)


def test_paper_has_the_published_networks():
    e = config.build(config.base("paper"))
    network = e.network
    assert e.autoencoder.width == 64 and e.latent_shape == (16, 16, 1)
    assert (network.modes, network.width, network.depth, network.hidden) == (4, 20, 4, 128)
    assert (type(network), network.time_scale, network.time_features, e.transport.prediction) == (
        PublishedVelocityField,
        30.0,
        256,
        "target",
    )
    autoencoder = jax.eval_shape(lambda: e.init_autoencoder(jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(autoencoder)) == pytest.approx(8.5e6, rel=0.01)


def test_paper_trains_as_published():
    c = config.base("paper")
    ga, ae, transport = c.latent, c.autoencoder, c.transport
    assert (ga.kind, ga.weight, ga.zeta, ga.knn, ga.diffusion_time) == ("ga", 1e-3, 1.0, 10, 10)
    assert (ga.components, ga.landmarks) == (100, 2000)
    epoch = 81 * 200 // 100  # steps: nine of the ninety trajectories validate
    assert ae.batch_size == transport.batch_size == 100
    assert ae.learning_rate == transport.learning_rate == 1e-3
    assert ae.steps == transport.steps == 1000 * epoch
    assert (ae.schedule, ae.decay_factor, ae.decay_every) == ("plateau", 0.8, 30 * epoch)
    assert (transport.schedule, transport.decay_factor, transport.decay_every) == ("step", 0.5, 100 * epoch)
    assert (ae.clip_norm, ae.ema_decay, ae.keep) == (0.0, 0.0, "best")
    assert (transport.clip_norm, transport.ema_decay, transport.keep) == (0.0, 0.0, "last")
    assert not ae.standardise and not transport.standardise
    averaged = configured("paper", "flow_matching", "ga", "autoencoder.ema_decay=0.9")
    assert refusal(config.build, averaged).startswith("--config.autoencoder.ema_decay=0.9: expected 0 with keep = best")
    weights = [
        configured("paper", process, "joint").latent.closure_weight for process in ("diffusion", "flow_matching")
    ]
    assert weights == [100, 1000]


# --- overrides -------------------------------------------------------------------------------------------------------


def test_an_override_takes_the_type_of_its_field():
    for field, text, value in [
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
        ("latent.scale", "published", "published"),
        ("data.path", "a=b,c.h5", "a=b,c.h5"),
    ]:
        found = dict(config.leaves(configured("tiny", "flow_matching", "ga", f"{field}={text}")))[field]
        assert found == value and type(found) is type(value), (field, text)


def test_an_override_changes_its_field_only():
    before, after = (
        dict(config.leaves(c)) for c in (configured("tiny"), configured("tiny", "flow_matching", "ga", "seed=3"))
    )
    assert {name for name in before if before[name] != after[name]} == {"seed"}


def test_a_field_of_several_numbers_takes_one_whole_ones_and_none():
    for text, expected in (("6", (6.0,)), ("6,3.5", (6.0, 3.5)), ("[1, 2e-1]", (1.0, 0.2)), ("", ())):
        c = configured("tiny", "flow_matching", "ga", "coupling.kind=matern", f"coupling.memory_steps={text}")
        assert c.coupling.memory_steps == expected and all(type(one) is float for one in c.coupling.memory_steps)
    with pytest.raises(UserError, match="memory_steps=6,x: expected numbers like 0.5,2"):
        configured("tiny", "flow_matching", "ga", "coupling.kind=matern", "coupling.memory_steps=6,x")
    c = configured("tiny", "flow_matching", "ga", "coupling.kind=matern")
    c.coupling.memory_steps = (6,)  # as an experiment's file may say it
    assert config.build(c).coupling.memory_steps == (6.0,)


def test_what_cannot_be_overridden_is_refused_and_changes_nothing():
    tables = {
        "whole number": [("transport.steps", text) for text in ("many", "1.5", "nan", "inf", "")],
        "a number": [("flow.viscosity", text) for text in ("thick", "1,2")],
        "true or false": [("network.condition_gated", "maybe")],
        "whole numbers": [("evaluation.steps", text) for text in ("1,x", "1.5", "__import__('os')")],
        "one of neighbourhood, published": [("latent.scale", "none")],
    }
    for wanted, cases in tables.items():
        for field, text in cases:
            c = configured("tiny")
            before = config.to_dict(c)
            message = refusal(config.override, c, [f"{field}={text}"])
            assert f"--config.{field}={text}" in message and wanted in message and "now" in message
            assert config.to_dict(c) == before
    for text in ("", "=3", "flow=3", "flow.", ".viscosity=1", "flow.viscosity.x=1", "zzz=1"):
        assert "no such field" in refusal(config.override, configured("tiny"), [text])
    for text in ("preset=paper", "experiment=other"):
        assert f"--config.{text}" in refusal(config.override, configured("tiny"), [text])
    message = refusal(config.override, configured("tiny"), ["flow.viscosity"])
    assert "--config.flow.viscosity" in message and "expected" in message and "0.001" in message


def test_an_unknown_field_names_the_nearest():
    for field, nearest in [
        ("flow.viscocity", "flow.viscosity"),
        ("transport.proces", "transport.process"),
        ("learning_rate", "learning_rate"),
        ("viscosity", "flow.viscosity"),
    ]:
        message = refusal(config.override, configured("tiny"), [f"{field}=1"])
        assert f"--config.{field}" in message and nearest in message.split("nearest")[1] and "--dry_run" in message


def test_another_choice_brings_its_fields_and_keeps_those_that_both_have():
    c = configured("tiny", "flow_matching", "ga", "transport.t_max=0.7", "transport.process=diffusion")
    assert c.transport.t_max == 0.7 and c.transport.prediction == "data" and c.transport.steps == 60
    assert "transport.t_max" not in dict(config.leaves(configured("tiny")))
    c = configured("tiny", "flow_matching", "ga", "autoencoder.schedule=plateau", "autoencoder.decay_every=7")
    assert c.autoencoder.decay_every == 7 and "warmup_steps" not in c.autoencoder


def test_names_of_the_first_release_still_work_where_they_are_read():
    c = configured("tiny", "flow_matching", "ga", "flow.dt=2e-3", "latent.ga.zeta=2", "evaluation.rollout_hold=10")
    assert (c.problem.dt, c.latent.zeta, c.coupling.period) == (2e-3, 2.0, 10)
    message = refusal(configured, "tiny", "flow_matching", "ga", "diffusion.t_max=0.5")
    assert "read only where transport.process = diffusion" in message and "flow_matching" in message
    everything = [
        configured("tiny", process, latent)
        for process in ("diffusion", "flow_matching")
        for latent in ("ga", "mp", "joint")
    ]
    everything.append(configured("tiny", "flow_matching", "ga", "coupling.kind=held"))  # the rule of that release
    known = {name for c in everything for name, _ in config.leaves(c)}
    assert set(names.RENAMED.values()) <= known and not set(names.RENAMED) & known


# --- impossible values -----------------------------------------------------------------------------------------------

ALONE = {
    "seed": ["-1", "2147483648"],
    "flow.kind": ["kolmogorof"],
    "problem.resolution": ["-32", "33", "6"],
    "problem.domain_length": ["0.0", "-1.0"],
    "flow.viscosity": ["-0.001", "nan", "inf"],
    "problem.dt": ["0.0", "-0.001", "nan", "1e-320"],
    "flow.forcing_amplitude": ["inf"],
    "flow.forcing_wavenumber": ["0"],
    "problem.noise_sigma": ["-1.0"],
    "problem.noise_kappa": ["0.0"],
    "problem.noise_alpha": ["-0.1"],
    "problem.initial_alpha": ["0.0"],
    "problem.initial_tau": ["0.0"],
    "data.trajectories": ["2", "-5"],
    "data.test_trajectories": ["0", "8", "7"],
    "data.seed": ["-1"],
    "data.train_trajectories": ["-1", "6"],  # one of tiny's six is held out to validate
    "data.resolution": ["31", "0"],
    "data.burn_in": ["-1.0", "3.0"],
    "data.end": ["0.0", "inf", "1e+308"],
    "data.snapshot_every": ["0", "70", "2000"],
    "data.chunk": ["0"],
    "autoencoder.kind": ["publishd"],
    "autoencoder.latent_resolution": ["0", "6", "32", "64"],
    "autoencoder.latent_channels": ["0"],
    "autoencoder.width": ["-8"],
    "autoencoder.batch_size": ["1"],
    "autoencoder.steps": ["0"],
    "autoencoder.learning_rate": ["0.0", "nan"],
    "autoencoder.schedule": ["linear"],
    "autoencoder.warmup_steps": ["-1"],
    "autoencoder.clip_norm": ["-1.0"],
    "autoencoder.ema_decay": ["1.0"],
    "latent.kind": ["gaa"],
    "latent.weight": ["-0.1"],
    "latent.zeta": ["-1.0"],
    "latent.scale": ["none"],
    "latent.knn": ["0"],
    "latent.diffusion_time": ["0"],
    "latent.components": ["0"],
    "latent.landmarks": ["0"],
    "network.kind": ["unet"],
    "network.width": ["0"],
    "network.modes": ["0", "5"],
    "network.depth": ["-1"],
    "network.time_features": ["1"],
    "network.time_scale": ["-1.0"],
    "transport.process": ["flow_machting"],
    "transport.prediction": ["noise"],
    "transport.batch_size": ["0"],
    "transport.steps": ["-1"],
    "transport.schedule": [""],
    "transport.ema_decay": ["-0.1"],
    "coupling.kind": ["hold"],
    "coupling.period": ["-5", "7", "2000"],
    "coupling.mean": ["exact"],
    "program.kind": ["joined", "joint"],
    "sampler.steps": ["0"],
    "training.log_every": ["0"],
    "training.checkpoint_every": ["0", "7"],
    "training.validation_fields": ["0"],
    "evaluation.states": ["0"],
    "evaluation.samples": ["1"],
    "evaluation.geometry_states": ["7"],
    "evaluation.steps": ["()", "(0, 1)"],
    "evaluation.rollout_members": ["1"],
    "evaluation.rollout_states": ["3"],
    "evaluation.rollout_time": ["0.0", "0.5"],
    "evaluation.rollout_sampler_steps": ["0", "1000000"],
    "evaluation.rollout_start": ["0.5", "1.0", "1.52", "3.05"],
}
"""Values at `tiny` that one field can't have, by field."""

AGAINST = [
    # preset, process, latent, overrides, field that the message names, its value there
    ("tiny", "flow_matching", "ga", ["data.trajectories=3"], "data.test_trajectories", "2"),
    ("tiny", "flow_matching", "ga", ["data.resolution=24"], "resolution", "32"),
    ("tiny", "flow_matching", "ga", ["flow.forcing_wavenumber=16"], "resolution", "32"),
    ("tiny", "flow_matching", "ga", ["data.end=0.5"], "data.burn_in", "1.0"),
    ("tiny", "flow_matching", "ga", ["data.burn_in=1.02"], "data.snapshot_every", "10"),
    ("tiny", "flow_matching", "ga", ["problem.dt=5"], "data.snapshot_every", "10"),
    ("tiny", "flow_matching", "ga", ["problem.dt=3e-3", "data.burn_in=1.5", "data.end=3"], "problem.dt", "0.003"),
    ("tiny", "flow_matching", "joint", ["program.kind=two_phase"], "latent.kind", "joint"),
    ("tiny", "score", "ga", ["network.kind=oracle", "transport.standardise=false"], "network.kind", "oracle"),
    ("tiny", "score", "physical", ["network.kind=oracle"], "transport.standardise", "True"),
    ("tiny", "diffusion", "ga", ["transport.t_max=2"], "transport.t_max", "2.0"),
    ("tiny", "diffusion", "ga", ["transport.t_min=0.6"], "transport.t_max", "0.5"),
    ("tiny", "diffusion", "ga", ["transport.rollout_t_max=-1"], "transport.rollout_t_max", "-1.0"),
    ("tiny", "diffusion", "ga", ["transport.sigma=1"], "transport.sigma", "1.0"),
    ("tiny", "diffusion", "ga", ["transport.spacing=karas"], "transport.spacing", "karas"),
    ("tiny", "flow_matching", "joint", ["latent.moment_weight=-0.1"], "latent.moment_weight", "-0.1"),
    (
        "tiny",
        "flow_matching",
        "ga",
        ["coupling.kind=ar1", "coupling.correlation_steps=-2"],
        "coupling.correlation_steps",
        "-2.0",
    ),
    ("paper", "flow_matching", "ga", ["coupling.white_noise=-1.0"], "coupling.white_noise", "-1.0"),
    *(
        ("tiny", process, "ga", ["program.kind=online"], "program.kind", "online")
        for process in PROCESSES
        if process not in ("score", "conditional_mean")
    ),
    ("tiny", "flow_matching", "ga", ["coupling.mean=linear"], "coupling.mean", "linear"),
    ("tiny", "diffusion", "ga", ["coupling.mean=own"], "coupling.mean", "own"),
    ("tiny", "flow_matching", "ga", ["coupling.kind=ar1", "coupling.mean=linear"], "coupling.mean", "linear"),
    ("tiny", "diffusion", "ga", ["coupling.kind=matern"], "coupling.kind", "matern"),
    (
        "tiny",
        "diffusion",
        "ga",
        ["coupling.kind=matern", "evaluation.rollout_sampler_steps=8"],
        "coupling.kind",
        "matern",
    ),
    ("paper", "flow_matching", "ga", ["autoencoder.latent_resolution=10"], "autoencoder.latent_resolution", "10"),
    ("paper", "flow_matching", "ga", ["autoencoder.width=20"], "autoencoder.width", "20"),
    ("paper", "flow_matching", "ga", ["autoencoder.width=48"], "autoencoder.width", "48"),
    ("paper", "flow_matching", "ga", ["autoencoder.decay_factor=1"], "autoencoder.decay_factor", "1.0"),
]


def test_an_impossible_value_is_named_with_what_was_expected():
    cases = [("tiny", "flow_matching", "ga", [f"{f}={text}"], f, text) for f, texts in ALONE.items() for text in texts]
    for preset, process, latent, overrides, field, value in cases + AGAINST:
        message = refusal(built, preset, process, latent, *overrides)
        assert f"{field}={value}" in message or (value == "()" and "evaluation.steps" in message), message
        assert message.startswith("--config.") and "expected" in message, message


def test_a_rule_holds_where_values_are_good():
    for overrides in (
        ["autoencoder.width=16"],
        ["autoencoder.width=96"],
        ["data.path=file.h5", "data.train_trajectories=500"],
        ["coupling.kind=scaled", "coupling.mean=own"],  # a straight path from noise has its mean
        ["coupling.kind=matern", "coupling.memory_steps=3"],
    ):
        built("paper", "flow_matching", "ga", *overrides)
    built("tiny", "score", "physical", "network.kind=oracle", "transport.standardise=false")
    assert "'flow_matching'" in refusal(built, "tiny", "flow_matching", "ga", "transport.process=flow_machting")


# --- the schema ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece.

    Attributes:
      size: how large.
      share, gain: two numbers that are
        said together.
    """

    size: int
    share: float = 0.5
    gain: float = 2.0

    def __post_init__(self):
        positive(self, "size")


def test_fields_have_the_types_defaults_and_words_of_their_class():
    found = schema.fields_of(Piece)
    assert {name: field.type for name, field in found.items()} == {"size": int, "share": float, "gain": float}
    assert found["size"].default is dataclasses.MISSING and found["share"].default == 0.5
    assert found["size"].text == "how large." and found["gain"].text == "two numbers that are said together."
    for name, field in sections.known_fields(configured("paper")).items():
        assert field.text, f"{name} is not described under Attributes: in its class"


def test_a_piece_that_cannot_be_a_section_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Callback:
        hook: object = None

    @dataclasses.dataclass(frozen=True)
    class Twice:
        batch_size: int = 3

    assert "hook" in refusal(schema.fields_of, Callback)
    with pytest.raises(UserError, match="is no dataclass"):
        schema.fields_of(int)
    section = schema.Section((schema.Choice("kind", {"twice": Twice}, "twice"),), Optimisation)
    assert "batch_size" in refusal(schema.section_fields, section, {}, None, "autoencoder")


def test_a_missing_piece_is_named():
    for name, missing in [
        ("nowhere_at_all:Net", "nowhere_at_all"),
        ("json:Net", "no Net"),
        ("experiment:Net", "experiment.py"),
    ]:
        message = refusal(configured, "tiny", "flow_matching", "ga", f"network.kind={name}")
        assert f"--config.network.kind={name}" in message and missing in message


# --- config.json -----------------------------------------------------------------------------------------------------


def test_a_configuration_survives_json():
    for preset in config.PRESETS:
        for process, latent in (("flow_matching", "ga"), ("diffusion", "physical"), ("interpolant_gaussian", "joint")):
            c = configured(preset, process, latent, "evaluation.steps=3", "flow.viscosity=2", "seed=4")
            stored = json.loads(json.dumps(config.to_dict(c), allow_nan=False))
            found = config.from_dict(stored)
            assert dict(config.leaves(found)) == dict(config.leaves(c))
            assert {n: type(v) for n, v in config.leaves(found)} == {n: type(v) for n, v in config.leaves(c)}


def test_a_file_gets_the_default_of_a_field_that_it_lacks():
    stored = config.to_dict(configured("tiny"))
    del stored["sampler"], stored["flow"]["viscosity"]
    assert config.to_dict(config.from_dict(stored)) == config.to_dict(configured("tiny"))


def test_a_stored_configuration_of_another_kind_is_refused():
    for change, named in [
        ({"flow": {"rotation": 1.0}}, "flow.rotation"),
        ({"rotation": 1.0}, "rotation"),
        ({"flow": 3}, "flow"),
        ({"seed": "first"}, "seed"),
        ({"flow": {"viscosity": [1.0]}}, "flow.viscosity"),
        ({"flow": {"viscosity": None}}, "flow.viscosity"),
        ({"network": {"kind": "gone"}}, "network.kind"),
        ({"network": {"kind": 3}}, "network.kind"),
    ]:
        stored = config.to_dict(configured("tiny"))
        for name, value in change.items():
            stored[name] = stored[name] | value if isinstance(value, dict) and name in stored else value
        assert named in refusal(config.from_dict, stored)
    assert "list" in refusal(config.from_dict, [])
