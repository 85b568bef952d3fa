"""Training: gradients over devices, resume, records, and what ends a run. Parts that need several devices run in a process."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from closure_jax.errors import UserError
from closure_jax.training import loop, steps
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir

REPOSITORY = Path(__file__).resolve().parent.parent


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


GRADIENTS = """
    import sys, jax, numpy as np, optax
    from closure_jax import build, closure, config, devices
    from closure_jax.latent.geometry_aware import GeometryAware
    from closure_jax.training import steps
    from closure_jax.training.state import TrainState

    devices.start()
    c = config.load(sys.argv[1] + ":tiny")
    rng = np.random.default_rng(0)
    f32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    # with this optimiser the new parameters are the old ones minus the gradient
    plain = optax.with_extra_args_support(optax.sgd(1.0))
    n, r = c.data.resolution, build.latent_shape(c)
    cases = {
        "autoencoder": (
            steps.autoencoder_loss(*build.autoencoder_pair(c), GeometryAware(1e-1, 1.0, 4.0, 4.0)),
            closure.init_autoencoder(c, jax.random.key(0)),
            {"field": f32(8, n, n), "extra": f32(8, 12)},
        ),
        "transport": (
            steps.transport_loss(build.network(c), build.path(c), "data"),
            closure.init_network(c, jax.random.key(0)),
            {"condition": f32(8, *r), "target": f32(8, *r)},
        ),
    }
    found = {}
    for name, (loss, params, batch) in cases.items():
        # zero-initialised layers would hide their neighbours' gradients
        params = jax.tree.map(lambda leaf: leaf + 0.05 * np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype("f"), params)
        old = jax.device_get(params)
        state = devices.replicate(TrainState.create(params, plain))
        step = devices.data_parallel(steps.make_train_step(loss, plain, 0.9))
        batch = devices.split({**batch, "position": np.arange(8)})
        state, metrics = step(state, batch, jax.random.key(1))
        new = jax.device_get(devices.unreplicate(state).params)
        gradient = jax.tree.map(lambda a, b: a - b, old, new)
        found |= {f"{name}{i}": leaf for i, leaf in enumerate(jax.tree.leaves(gradient))}
        found[name + "_loss"] = devices.first(metrics["loss"])
    if devices.is_main():
        np.savez(sys.argv[2], **found)
"""


def test_gradients_on_four_devices_equal_those_on_one(tmp_path):
    import os

    found = []
    for count in (1, 4):
        file = tmp_path / f"gradients{count}.npz"
        flags = f"--xla_force_host_platform_device_count={count}"
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(GRADIENTS), str(REPOSITORY / "experiments" / "fm_ga.py"), str(file)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
            check=True,
            timeout=300,
        )
        found.append(np.load(file))
    assert_equal_gradients(*found)


def assert_equal_gradients(one, other):
    """Within 1e-5 of the whole gradient's size, for what GRADIENTS saves."""
    assert one.files == other.files
    for section in ("autoencoder", "transport"):
        names = [name for name in one.files if name.startswith(section)]
        size = np.sqrt(sum(np.sum(one[name] ** 2) for name in names))
        difference = np.sqrt(sum(np.sum((one[name] - other[name]) ** 2) for name in names))
        assert difference < 1e-5 * size, section
