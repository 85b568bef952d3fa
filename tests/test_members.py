"""Ensembles over devices and in chunks: member by member the numbers of one device and one chunk."""

import itertools
import os
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from helpers import REPOSITORY

from closure_jax import interrupts
from closure_jax.coupling import ensemble
from closure_jax.data import simulate
from closure_jax.files import Kept
from closure_jax.physics import spectral
from closure_jax.problems import Kolmogorov

PROBLEM = Kolmogorov(stored_resolution=8, resolution=16, dt=0.02, noise_alpha=0.01)
SYSTEM = PROBLEM.reference()
GRID = SYSTEM.flow.grid


def rollout(chunk: int, kept: Kept | None = None) -> ensemble.Rollout:
    """Two states of five members, two time units."""
    start = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    start = np.asarray(spectral.to_physical(spectral.to_fourier(start) * spectral.dealias_mask(GRID)))
    starts = np.repeat(start, 5, axis=1)
    return ensemble.rollout(SYSTEM, starts, jax.random.key(4), 2, "test members", chunk, kept)


def simulated() -> list[np.ndarray]:
    """Two snapshots of eight trajectories, vorticity and closure: four arrays (8, 8, 8)."""
    keys = simulate.trajectory_keys(3, np.arange(8))
    running = simulate.Snapshots(SYSTEM, keys, 5)
    return [field for _ in range(2) for field in running.next()]


FOUR_CORES = """
    import os, sys
    os.sched_getaffinity = lambda process: set(range(4))
    import jax, numpy as np
    from closure_jax.parallel import devices, processes

    processes.start()
    from test_members import rollout, simulated

    assert jax.local_device_count() == 4
    # members have them all, training has one
    assert (devices.count(), devices.describe()) == (1, "1 cpu device (cpu)")
    step = devices.data_parallel(lambda state, batch, key: (devices.mean(state + batch.sum()), batch))
    state, batch = step(devices.replicate(np.float32(1)), devices.split(np.arange(6.0)), jax.random.key(0))
    assert batch.shape == (1, 6) and devices.unreplicate(state) == 16
    assert [devices.parts_of(members) for members in (1, 2, 3, 6, 7, 8)] == [1, 2, 3, 3, 1, 4]
    processes.start()  # again, as a second command in the process does
    assert devices.count() == 1
    run = rollout(8)
    fields = {f"simulated{i}": field for i, field in enumerate(simulated())}
    np.savez(sys.argv[1], fields=run.fields, frames=run.frames, **fields)
"""


def test_a_cpu_whose_devices_somebody_counted_trains_on_them_all():
    code = "from closure_jax.parallel import devices, processes; processes.start(); print(devices.count(), devices.describe())"
    for more in ({"JAX_NUM_CPU_DEVICES": "3"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}):
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)} | more
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        assert done.stdout == "3 3 cpu devices (cpu)\n"


@pytest.fixture(scope="module")
def whole() -> ensemble.Rollout:
    """All ten members at once, on one device."""
    run = rollout(10)
    assert np.ptp(run.fields[-1], axis=1).max() > 1e-4  # members differ, so that a slip of their order would show
    return run


@pytest.mark.slow
def test_four_cores_give_the_members_and_trajectories_of_one_device(whole, tmp_path):
    file = tmp_path / "four.npz"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
    }
    command = [sys.executable, "-c", textwrap.dedent(FOUR_CORES), str(file)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    four = np.load(file)
    np.testing.assert_allclose(four["fields"], whole.fields, rtol=0, atol=2e-5)
    np.testing.assert_allclose(four["frames"], whole.frames, rtol=0, atol=2e-5)
    for i, field in enumerate(simulated()):
        np.testing.assert_allclose(four[f"simulated{i}"], field, rtol=0, atol=1e-4 * np.abs(field).max())


def test_seconds_of_an_ensemble_are_of_its_steps_alone(monkeypatch):
    advance = type(SYSTEM).advance

    def slow_to_make(*arguments):
        time.sleep(2)
        return advance(*arguments)

    monkeypatch.setattr(type(SYSTEM), "advance", slow_to_make)
    assert 0 < rollout(10).seconds < 2


@pytest.mark.slow
def test_chunks_change_no_member_and_an_ensemble_that_was_stopped_goes_on_to_the_same_numbers(
    whole, tmp_path, monkeypatch
):
    cut = rollout(4)  # 4, 4 and, with two of the members before, 4
    np.testing.assert_allclose(cut.fields, whole.fields, rtol=0, atol=2e-5)
    np.testing.assert_allclose(cut.frames, whole.frames, rtol=0, atol=2e-5)
    frames_run, stop_at = [], 0

    def check():
        frames_run.append(1)
        if len(frames_run) == stop_at:
            raise interrupts.Stopped()

    def run_until(frame, kept):
        nonlocal stop_at
        frames_run.clear()
        stop_at = frame
        return rollout(4, kept)

    monkeypatch.setattr(interrupts, "check", check)
    monkeypatch.setattr(Kept, "SECONDS", 0.0)
    monkeypatch.setattr(Kept, "SHARE", 1e9)
    monkeypatch.setattr(ensemble, "_WORTH_KEEPING", 0.0)
    kept = Kept(tmp_path / "rollouts", "this one")
    for frames in (3, 9, 12):  # within the first chunk, within the second, and at the end of the third
        with pytest.raises(interrupts.Stopped):
            run_until(frames, kept)
    run = run_until(0, kept)
    assert len(frames_run) == 6  # three chunks of ten frames
    np.testing.assert_array_equal(run.fields, cut.fields)
    np.testing.assert_array_equal(run.frames, cut.frames)
    assert run_until(1, kept).fields[-1, 0, 0, 0, 0] == cut.fields[-1, 0, 0, 0, 0]  # whole: not a frame is run
    with pytest.raises(interrupts.Stopped):
        run_until(1, Kept(tmp_path / "rollouts", "another one"))
    for file in ("test_members.kept", "test_members.float32"):
        run_until(0, kept)
        content = bytearray((tmp_path / "rollouts" / file).read_bytes())
        content[-100] ^= 1
        (tmp_path / "rollouts" / file).write_bytes(content)
        run = run_until(0, kept)
        assert len(frames_run) == 30
        np.testing.assert_array_equal(run.fields, cut.fields)


def test_chunks_are_equal_and_cover_every_member_once_or_with_the_same_numbers(monkeypatch):
    for here, total, chunk in itertools.product((1, 3, 4), (1, 2, 10, 12, 1000), (1, 7, 128, 5000)):
        monkeypatch.setattr(jax, "local_device_count", lambda count=here: count)
        size, starts = ensemble._chunks(total, chunk)
        covered = {member for start in starts for member in range(start, start + size)}
        assert covered == set(range(total)) and starts[0] == 0
        assert size < chunk + here
        assert size % here == 0 or size == total
