"""Training: resume, records, and what ends a run."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import built, refusal

from closure_jax.commands import rehearse
from closure_jax.config import Trained
from closure_jax.config.optimisers import Cosine, Plateau, optimiser
from closure_jax.config.settings import Optimisation
from closure_jax.data.dataset import FIELDS, Dataset, Normalisation
from closure_jax.errors import UserError
from closure_jax.parallel import devices
from closure_jax.training import loop, phase, steps, two_phase
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir

SPLITS = ("train", "validation", "test")


def quadratic_phase(total: int, **changes) -> loop.Loop:
    """Least squares with noise drawn from each example's key: any slip of batch or key shows in the parameters."""

    def loss(params, batch, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return jnp.mean((params["w"] - batch["x"] - noise) ** 2), {}

    values = {
        "name": "transport",
        "section": "transport",
        "steps": total,
        "batch_at": lambda step: {"x": np.full((4, 3), step, np.float32), "position": np.arange(4)},
        "train_step": steps.make_train_step(loss, optax.with_extra_args_support(optax.adam(0.1)), 0.9),
        "key": jax.random.key(3),
        "learning_rate": lambda step, state: 0.1,
        "validate": lambda params: {"validation_loss": float(params["w"][0])},
    }
    return loop.Loop(**(values | changes))


def initial_state() -> TrainState:
    return TrainState.create({"w": jnp.zeros(3)}, optax.with_extra_args_support(optax.adam(0.1)))


def records(work: WorkDir) -> list[dict]:
    kept = [json.loads(line) for line in (work.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "steps_per_second"} for record in kept]


def resume(work: WorkDir) -> TrainState:
    """Twelve steps, from the newest checkpoint if there is one."""
    work.path.mkdir(exist_ok=True)
    return loop.run(quadratic_phase(12), initial_state(), work, log_every=2, checkpoint_every=4)


def assert_goes_on_as_unbroken(broken: WorkDir, beside: Path | None = None) -> None:
    """Resumed, a run that was stopped ends with the numbers and the records of one that was not, which runs beside it."""
    whole = WorkDir(beside or broken.path.with_name("whole"))
    expected, resumed = resume(whole), resume(broken)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(expected))
    assert records(broken) == records(whole)


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    broken = WorkDir(tmp_path / "broken")
    broken.path.mkdir()

    def stop_at_seven(step):
        if step == 7:
            raise RuntimeError("pulled the plug")
        return quadratic_phase(12).batch_at(step)

    with pytest.raises(RuntimeError):
        loop.run(quadratic_phase(12, batch_at=stop_at_seven), initial_state(), broken, log_every=2, checkpoint_every=4)
    assert broken.checkpoints("transport").latest() == 4
    assert_goes_on_as_unbroken(broken)


def test_a_step_is_traced_once_though_its_first_state_comes_from_the_host(tmp_path):
    traced = []
    step = quadratic_phase(3).train_step

    def train_step(*arguments):
        traced.append(1)
        return step(*arguments)

    loop.run(quadratic_phase(3, train_step=train_step), initial_state(), WorkDir(tmp_path), 1, 3)
    assert len(traced) == 1  # a second program would take as long to compile as the first


def test_a_state_is_copied_to_the_devices_by_one_program():
    tree = {"w": np.arange(3.0, dtype=np.float32)}
    for parts in (None, 1):
        devices.replicate(tree, parts)
        with rehearse._compilations() as spans:
            again = devices.replicate(tree, parts)
        assert spans == []
        np.testing.assert_array_equal(again["w"][0], tree["w"])


def test_a_finished_phase_is_not_trained_again(tmp_path, capsys):
    work = WorkDir(tmp_path)
    first = loop.run(quadratic_phase(4), initial_state(), work, log_every=2, checkpoint_every=4)

    def refuse(step):
        raise AssertionError("a batch was asked for")

    again = loop.run(quadratic_phase(4, batch_at=refuse), initial_state(), work, log_every=2, checkpoint_every=4)
    np.testing.assert_array_equal(again.ema["w"], first.ema["w"])
    assert "already trained" in capsys.readouterr().out


def test_a_phase_with_more_steps_than_are_asked_for_is_refused(tmp_path):
    work = WorkDir(tmp_path)
    loop.run(quadratic_phase(4), initial_state(), work, log_every=2, checkpoint_every=4)
    for fewer in (1, 3):
        said = refusal(loop.run, quadratic_phase(fewer), initial_state(), work, 1, 1)
        assert f"has done 4 steps, asked for {fewer}:" in said and "another --workdir" in said


def test_a_finished_phase_is_not_prepared_again(tmp_path, capsys):
    experiment = built("tiny")
    prepared, like = [], quadratic_phase(4)

    def prepare(run, earlier):
        prepared.append(1)
        loss = lambda params, batch, keys: (jnp.mean((params["w"] - batch["x"]) ** 2), {})  # noqa: E731
        return phase.Prepared({"x": np.ones((8, 3), np.float32)}, loss, like.validate)

    asked = phase.Phase(
        name="transport",
        section="transport",
        training=Trained(Optimisation(batch_size=4, steps=4, ema_decay=0.5), Cosine(warmup_steps=0)),
        start=lambda key, earlier: {"w": jnp.zeros(3)},
        loss=None,
        batch=None,
        prepare=prepare,
    )
    run = phase.Run(experiment, None, WorkDir(tmp_path), tmp_path)
    first, again = (phase.train(asked, run, {}) for _ in range(2))
    np.testing.assert_array_equal(again["w"], first["w"])
    assert len(prepared) == 1 and "already trained, 4 steps" in capsys.readouterr().out
    longer = dataclasses.replace(asked, training=Trained(Optimisation(batch_size=4, steps=6), Cosine(warmup_steps=0)))
    phase.train(longer, run, {})
    assert len(prepared) == 2 and "continues at step 4 of 6" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_checkpoint(tmp_path):
    def breaks_at_six(step):
        value = np.nan if step == 5 else 1.0
        return {"x": np.full((4, 3), value, np.float32), "position": np.arange(4)}

    work = WorkDir(tmp_path)
    with pytest.raises(UserError, match="loss is nan at step 6, checkpoint 4 is kept"):
        loop.run(quadratic_phase(12, batch_at=breaks_at_six), initial_state(), work, log_every=4, checkpoint_every=4)
    assert work.checkpoints("transport").latest() == 4


def test_moving_average_warms_up_and_then_decays_as_configured(tmp_path):
    state = loop.run(quadratic_phase(1), initial_state(), WorkDir(tmp_path), log_every=1, checkpoint_every=1)
    np.testing.assert_allclose(state.ema["w"], 0.9 * state.params["w"], rtol=1e-6)  # decay min(0.9, 1 / 10) of zero


def test_the_best_parameters_are_those_of_the_least_validation_loss_also_after_a_resume(tmp_path):
    def loss(params, batch, keys):
        return jnp.mean(
            (params["w"] - batch["x"]) ** 2
        ), {}  # x is the step's number: w rises, and passes 0.5 on its way

    train_step = steps.make_train_step(loss, optax.with_extra_args_support(optax.adam(0.1)), None)

    def looped(**changes):
        validate = lambda params: {"validation_loss": abs(float(params["w"][0]) - 0.5)}  # noqa: E731
        return quadratic_phase(12, train_step=train_step, validate=validate, keeps_best=True, **changes)

    whole, broken = WorkDir(tmp_path / "whole"), WorkDir(tmp_path / "broken")
    for work in (whole, broken):
        work.path.mkdir()
    state = loop.run(looped(), initial_state(), whole, log_every=1, checkpoint_every=2)
    found = [record["validation_loss"] for record in records(whole) if "validation_loss" in record]
    assert 0 < int(np.argmin(found)) < len(found) - 1
    np.testing.assert_allclose(abs(state.ema["w"][0] - 0.5), min(found), rtol=1e-5)
    assert abs(state.params["w"][0] - 0.5) == pytest.approx(found[-1], rel=1e-5)

    def stop_at_nine(step):
        if step == 9:
            raise RuntimeError("pulled the plug")
        return looped().batch_at(step)

    with pytest.raises(RuntimeError):
        loop.run(looped(batch_at=stop_at_nine), initial_state(), broken, log_every=1, checkpoint_every=2)
    again = loop.run(looped(), initial_state(), broken, log_every=1, checkpoint_every=2)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    assert records(broken) == records(whole)


def test_the_plateau_schedule_lowers_the_rate_where_the_loss_stays_and_only_there():
    adam = optimiser(Optimisation(learning_rate=0.01), Plateau(decay_every=60, decay_factor=0.5))

    @jax.jit
    def rates(losses):
        """|update| of each step under a constant gradient, which is Adam's rate."""

        def step(state, loss):
            update, state = adam.update(jnp.ones(()), state, jnp.zeros(()), value=loss)
            return state, jnp.abs(update)

        return jax.lax.scan(step, adam.init(jnp.zeros(())), losses)[1]

    stays, falls = rates(jnp.ones(140)), rates(0.99 ** jnp.arange(140.0))
    np.testing.assert_allclose(falls, 0.01, rtol=1e-4)
    # 30 averages of decay_every / 30 steps without progress after the first, and again 30
    np.testing.assert_allclose(stays[:60], 0.01, rtol=1e-4)
    np.testing.assert_allclose(stays[70:120], 0.005, rtol=1e-4)
    np.testing.assert_allclose(stays[130:], 0.0025, rtol=1e-4)


def test_the_recorded_rate_has_the_factor_of_the_plateau():
    settings = Optimisation(learning_rate=0.01, clip_norm=1.0)
    zeros = {"w": jnp.zeros(2), "scale": jnp.zeros(2)}  # as a group normalisation names its own
    for schedule, factor in ((Plateau(decay_every=30, decay_factor=0.5), 0.25), (Cosine(), 1.0)):
        adam = optimiser(settings, schedule)
        state = TrainState.create(zeros, adam)
        for _ in range(62):  # the loss stays
            _, opt_state = jax.jit(adam.update)(zeros, state.opt_state, zeros, value=jnp.float32(1))
            state = state.replace(opt_state=opt_state)
        assert phase.plateau_factor(devices.replicate(state)) == factor


def test_latents_are_at_standard_scale_or_where_asked_in_the_units_of_the_field(tmp_path):
    rng = np.random.default_rng(0)
    scales = {"vorticity": Normalisation(0.5, 2.0), "closure": Normalisation(-1.0, 0.1)}
    fields = {
        name: {split: scale.invert(rng.standard_normal((2, 6, 32, 32))).astype(np.float32) for split in SPLITS}
        for name, scale in scales.items()
    }
    dataset = Dataset(np.arange(6.0), fields["vorticity"], fields["closure"], scales, "a" * 64, tmp_path / "d.h5")
    for standardise in (True, False):
        e = built("tiny", "flow_matching", "physical", f"transport.standardise={standardise}")
        run = phase.Run(
            e, dataset, WorkDir(tmp_path), tmp_path
        )  # the latent of a field is the field itself, normalised
        params = e.init_autoencoder(jax.random.key(0))
        for name in FIELDS:
            latents, (mean, deviation) = two_phase.latents(run, name, params)
            values = dataset.fields(name, "train")
            expected = (values - values.mean()) / values.std() if standardise else values
            np.testing.assert_allclose(latents["train"][..., 0], expected, rtol=1e-4, atol=1e-5)
            back = latents["train"][..., 0] * deviation + mean  # what the closure undoes
            np.testing.assert_allclose(scales[name].invert(back), values, rtol=1e-4, atol=1e-5)
