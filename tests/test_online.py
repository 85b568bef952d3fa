"""Training through the solver: what its loss is, where its gradient goes, and what it demands of an experiment."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REPOSITORY, configured, refusal

import closure_jax
from closure_jax import config
from closure_jax.coupling import Coupled, FixedSteps
from closure_jax.data.dataset import FIELDS, Normalisation
from closure_jax.training import online
from closure_jax.training.online import Online

BATCH = 3


def experiment_of(name: str, *overrides: str) -> config.Experiment:
    c = config.load(f"{REPOSITORY / 'experiments' / name}.py:tiny")
    if c.program.kind != "online":
        config.use(c, "program", "online", batch_size=BATCH)
    config.override(
        c,
        [
            "data.snapshot_every=10",
            "coupling.period=5",
            "program.period=0",
            "program.leads=2",
            "program.members=3",
            *overrides,
        ],
    )
    return config.build(c)


def scalings_of(experiment, **of_field):
    zero_one = {"mean": jnp.float32(0.0), "std": jnp.float32(1.0)}
    return {name: zero_one | of_field.get(name, {}) for name in experiment.template()["scalings"]}


@pytest.fixture(scope="module")
def case():
    """An experiment, its loss, parameters that are nowhere zero, a batch of windows of the true flow, and keys."""
    experiment = experiment_of("cs_ga_online")
    scalings = scalings_of(experiment, vorticity={"std": jnp.float32(2.0)})
    rng = np.random.default_rng(0)
    template = experiment.template()["params"]
    params = jax.tree.map(lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), template)
    return experiment, scalings, params, true_windows(experiment), jax.random.split(jax.random.key(3), BATCH)


def true_windows(experiment):
    """(batch, 3, n, n): runs of the true flow from its initial states, looked at each `snapshot_every` steps."""
    truth, every = experiment.problem.truth(), experiment.data.snapshot_every
    keys = jax.random.split(jax.random.key(5), BATCH)
    state, fields = truth.initial(keys), []
    advance = jax.jit(truth.advance, static_argnums=3)
    for lead in range(3):
        fields.append(truth.vorticity(state))
        state = advance(keys, state, lead * every, every)
    return np.stack([np.asarray(field) for field in fields], axis=1)


@pytest.mark.slow
def test_the_loss_is_the_score_of_coupled_ensembles_at_each_lead(case):
    experiment, scalings, params, windows, keys = case
    program, every = experiment.program, experiment.data.snapshot_every
    total, measures = jax.jit(program.loss(experiment, experiment.coupling, scalings))(
        params, {"window": windows}, keys
    )

    model = experiment.assemble({"params": params, "scalings": scalings})
    solver = experiment.problem.solver()
    closed = Coupled(solver.step, solver.dt, FixedSteps(model, 1), experiment.coupling)
    of_member = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    start = closed.begin(of_member, jnp.repeat(windows[:, None, 0], 3, axis=1))
    advance, expected = jax.jit(closed.advance, static_argnums=3), []
    for lead in (1, 2):
        run = np.asarray(closed.vorticity(advance(of_member, start, 0, lead * every))) / 2
        truth = windows[:, lead] / 2
        score = 0.0
        for x, y in (
            (run, truth),
            *(
                (part(np.fft.rfft2(run, norm="ortho")), part(np.fft.rfft2(truth, norm="ortho")))
                for part in (np.real, np.imag)
            ),
        ):
            pairs = np.mean([np.abs(x[:, i] - x[:, j]).mean() for i in range(3) for j in range(3) if i != j])
            share = 1.0 if x is run else 0.5  # real and imaginary parts are one mean
            score += share * (np.abs(x - y[:, None]).mean() - pairs / 2)
        expected.append(score)
    np.testing.assert_allclose([measures["score_1"], measures["score_2"]], expected, rtol=1e-4)
    assert float(total) == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences_and_reaches_what_is_trained(case):
    experiment, scalings, params, windows, keys = case
    batch = {"window": windows}

    def value_and_gradient(program: Online):
        loss = program.loss(experiment, experiment.coupling, scalings)
        return jax.jit(jax.value_and_grad(lambda p: loss(p, batch, keys)[0]))

    of_all = value_and_gradient(dataclasses.replace(experiment.program, trained="all"))
    network = params["network"]["params"]
    silent = {**network, "noise_filter": jax.tree.map(jnp.zeros_like, network["noise_filter"])}
    without_noise = {**params, "network": {"params": silent}}
    gradient = of_all(without_noise)[1]
    step = 1e-2 / float(norm(gradient))
    ahead, back = (of_all(moved(without_noise, gradient, size))[0] for size in (step, -step))
    assert float(ahead - back) / (2 * step) == pytest.approx(float(norm(gradient)) ** 2, rel=0.02)

    gradient = of_all(params)[1]
    sizes = {name: float(norm(part)) for name, part in parts_of(gradient).items()}
    assert sizes.pop("vorticity decoder") == sizes.pop("closure encoder") == 0 and min(sizes.values()) > 0
    assert norm(gradient["network"]["params"]["noise_filter"]) == 0  # windows train the mean alone

    gradient = value_and_gradient(dataclasses.replace(experiment.program, trained="network"))(params)[1]
    sizes = {name: float(norm(part)) for name, part in parts_of(gradient).items()}
    assert sizes.pop("network") > 0 and set(sizes.values()) == {0.0}


def norm(tree):
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def moved(tree, direction, size):
    return jax.tree.map(lambda leaf, along: leaf + size * along, tree, direction)


def parts_of(gradient):
    halves = {f"{field} {half}": gradient[field][half] for field in FIELDS for half in ("encoder", "decoder")}
    return halves | {"network": gradient["network"]}


@pytest.mark.slow
def test_the_exact_law_scores_better_than_a_closure_of_the_wrong_scale():
    experiment = experiment_of("oracle", "coupling.mean=linear")
    windows = true_windows(experiment)
    keys = jax.random.split(jax.random.key(3), BATCH)

    def score(scale):
        scalings = scalings_of(experiment, closure={"std": jnp.float32(scale)})
        loss = experiment.program.loss(experiment, experiment.coupling, scalings)
        return float(jax.jit(loss)(experiment.template()["params"], {"window": windows}, keys)[0])

    exact = score(1.0)
    assert exact < 0.8 * score(0.8) and exact < 0.8 * score(1.25)


def test_windows_are_all_runs_of_snapshots_within_a_trajectory():
    time = np.arange(5.0)
    trajectories = (10 * np.arange(2)[:, None] + time)[..., None, None] * np.ones((2, 2))
    windows = Online(leads=2).windows(trajectories)[..., 0, 0]
    np.testing.assert_array_equal(windows, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [10, 11, 12], [11, 12, 13], [12, 13, 14]])


@pytest.mark.parametrize(("field", "value"), [("leads", 0), ("members", 1), ("trained", "encoder"), ("batch_size", 1)])
def test_impossible_fields_are_refused(field, value):
    assert refusal(lambda: Online(**{field: value})).startswith(f"{field}={value}: expected ")


def test_it_goes_on_from_a_trained_closure_of_the_same_modules():
    c = config.load(f"{REPOSITORY / 'experiments' / 'cs_ga_online'}.py:small")
    config.override(c, ["program.start=cs_ga"])
    experiment = config.build(c)
    (phase,) = experiment.program.phases(experiment)
    shipped = closure_jax.load("cs_ga")
    jax.tree.map(np.testing.assert_array_equal, phase.start(jax.random.key(0), {}), shipped.params)
    for start, said in (("fm_ga", "closure of other modules"), ("nowhere", "'nowhere' is no closure that ships")):
        config.override(c, [f"program.start={start}"])
        other = config.build(c)
        (phase,) = other.program.phases(other)
        assert said in refusal(phase.start, jax.random.key(0), {})
        assert said in refusal(other.program.started_from, other)
    assert experiment.program.started_from(experiment) == shipped.digest()


def test_it_refuses_a_closure_of_other_data():
    c = config.load(f"{REPOSITORY / 'experiments' / 'cs_ga_online'}.py:small")
    config.override(c, ["program.start=cs_ga"])
    experiment = config.build(c)
    for factor, same in ((1.0, True), (1.01, False)):
        norms = {
            field: Normalisation(float(one.mean), float(one.std) * (factor if field == "vorticity" else 1.0))
            for field, one in closure_jax.load("cs_ga").scalings.items()
            if field in FIELDS
        }
        dataset = types.SimpleNamespace(normalisation=norms, checksum="a" * 64)
        run = types.SimpleNamespace(experiment=experiment, dataset=dataset)
        if same:
            assert experiment.program._begun(run, {})[0].keys() == {"vorticity", "closure", "network"}
        else:
            assert "expected one trained on these data" in refusal(experiment.program._begun, run, {})


def test_the_windows_must_fit_the_rule_and_the_trajectories():
    for text, said in (
        ("coupling.period=4", "expected a whole number of periods of the solver, coupling.period = 4 steps"),
        ("program.period=3", "expected a whole number of periods of the solver, program.period = 3 steps"),
        ("program.leads=200", "--config.program.leads=200: expected fewer than the 40 snapshots"),
    ):
        assert said in refusal(experiment_of, "cs_ga_online", text)
    eddies = config.load(f"{REPOSITORY / 'experiments' / 'les_cs_online'}.py:tiny")
    config.override(eddies, ["data.snapshot_every=5"])  # 0.05, and steps of 0.02
    said = refusal(config.build, eddies)
    assert said.startswith("--config.data.snapshot_every=5: a snapshot each 0.05, expected a whole number of periods")
    assert "each = 1 step, with" in said  # a rule without a field of that name
    with_joint = experiment_of("cs_joint")
    names = [phase.name for phase in with_joint.program.phases(with_joint)]
    assert names == ["joint", "online"]


def test_a_start_that_says_it_was_trained_on_other_data_is_refused(tmp_path, monkeypatch):
    """Also where fields are in their own units, whose scalings say nothing of the data."""
    c = configured("tiny", "score", "ga", "program.kind=online", f"program.start={tmp_path}")
    experiment = config.build(c)
    monkeypatch.setattr(online, "_loaded", lambda start, experiment: types.SimpleNamespace(scalings={}, params={}))
    (tmp_path / "provenance.json").write_text('{"data_checksum": "' + "b" * 64 + '"}')
    dataset = types.SimpleNamespace(normalisation={}, checksum="a" * 64)
    said = refusal(experiment.program._begun, types.SimpleNamespace(experiment=experiment, dataset=dataset), {})
    assert "trained on other data (checksum bbbbbbbbbbbb), expected one of these data (aaaaaaaaaaaa)" in said
