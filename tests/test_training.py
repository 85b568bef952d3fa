"""Training: resume, records, and what ends a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from closure_jax.errors import UserError
from closure_jax.training import loop, steps
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir


def quadratic_phase(total: int, **changes) -> loop.Phase:
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
        "learning_rate": lambda step: 0.1,
        "validate": lambda params: {"validation_loss": float(params["w"][0])},
    }
    return loop.Phase(**(values | changes))


def initial_state() -> TrainState:
    return TrainState.create({"w": jnp.zeros(3)}, optax.with_extra_args_support(optax.adam(0.1)))


def records(work: WorkDir) -> list[dict]:
    kept = [json.loads(line) for line in (work.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "steps_per_second"} for record in kept]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    whole, broken = WorkDir(tmp_path / "whole"), WorkDir(tmp_path / "broken")
    whole.path.mkdir()
    broken.path.mkdir()
    expected = loop.run(quadratic_phase(12), initial_state(), whole, log_every=2, checkpoint_every=4)

    def stop_at_seven(step):
        if step == 7:
            raise RuntimeError("pulled the plug")
        return quadratic_phase(12).batch_at(step)

    with pytest.raises(RuntimeError):
        loop.run(quadratic_phase(12, batch_at=stop_at_seven), initial_state(), broken, log_every=2, checkpoint_every=4)
    assert broken.checkpoints("transport").latest() == 4
    resumed = loop.run(quadratic_phase(12), initial_state(), broken, log_every=2, checkpoint_every=4)

    jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(expected))
    assert records(broken) == records(whole)


def test_a_finished_phase_is_not_trained_again(tmp_path, capsys):
    work = WorkDir(tmp_path)
    first = loop.run(quadratic_phase(4), initial_state(), work, log_every=2, checkpoint_every=4)

    def refuse(step):
        raise AssertionError("a batch was asked for")

    again = loop.run(quadratic_phase(4, batch_at=refuse), initial_state(), work, log_every=2, checkpoint_every=4)
    np.testing.assert_array_equal(again.ema["w"], first.ema["w"])
    assert "already trained" in capsys.readouterr().out


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
