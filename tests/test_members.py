"""Ensembles over devices and in chunks: member by member the numbers of one device and one chunk."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from closure_jax.coupling import ensemble
from closure_jax.data import simulate
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral

REPOSITORY = Path(__file__).resolve().parent.parent
DT = 0.02
GRID = spectral.make_grid(16, 1.0)
FLOW = flow_lib.KolmogorovFlow(GRID)
NOISE = noise_lib.QWienerNoise(GRID, 5e-5, 10.0, 0.005, DT)


def rollout(chunk: int, scratch: Path | None = None) -> ensemble.Rollout:
    """Two states of five members, two time units."""
    start = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    start = np.asarray(spectral.to_physical(spectral.to_fourier(start) * spectral.dealias_mask(GRID)))
    starts = np.repeat(start, 5, axis=1)
    exact = flow_lib.exact_closure(GRID, NOISE)
    return ensemble.rollout(FLOW, exact, starts, jax.random.key(4), DT, 1, 2, "test members", chunk, scratch)


def simulated() -> list[np.ndarray]:
    """Two snapshots of eight trajectories, vorticity and closure: four arrays (8, 8, 8)."""
    initial = noise_lib.GaussianRandomField(GRID, 2.5, 7.0)
    keys = simulate.trajectory_keys(3, np.arange(8))
    return [field for pair in simulate.snapshots(FLOW, NOISE, initial, keys, 8, 5, 2) for field in pair]


FOUR_DEVICES = """
    import sys, jax, numpy as np
    from test_members import rollout, simulated

    assert jax.local_device_count() == 4
    run = rollout(8)
    fields = {f"simulated{i}": field for i, field in enumerate(simulated())}
    np.savez(sys.argv[1], fields=run.fields, frames=run.frames, **fields)
"""


@pytest.fixture(scope="module")
def whole() -> ensemble.Rollout:
    """All ten members at once, on one device."""
    run = rollout(10)
    assert np.ptp(run.fields[-1], axis=1).max() > 1e-4  # members differ, so that a slip of their order would show
    return run


def test_four_devices_give_the_members_and_trajectories_of_one(whole, tmp_path):
    file = tmp_path / "four.npz"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
    }
    command = [sys.executable, "-c", textwrap.dedent(FOUR_DEVICES), str(file)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    four = np.load(file)
    np.testing.assert_allclose(four["fields"], whole.fields, rtol=0, atol=2e-5)
    np.testing.assert_allclose(four["frames"], whole.frames, rtol=0, atol=2e-5)
    for i, field in enumerate(simulated()):
        np.testing.assert_allclose(four[f"simulated{i}"], field, rtol=0, atol=1e-4 * np.abs(field).max())


def test_chunks_change_no_member_and_a_large_ensemble_is_streamed_to_a_file(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "_IN_MEMORY", 1000)
    cut = rollout(4, tmp_path / "rollouts")  # 4, 4 and, with two of the members before, 4
    np.testing.assert_allclose(cut.fields, whole.fields, rtol=0, atol=2e-5)
    np.testing.assert_allclose(cut.frames, whole.frames, rtol=0, atol=2e-5)
    stored = np.load(tmp_path / "rollouts" / "test_members.npy", mmap_mode="r")
    np.testing.assert_array_equal(stored.reshape(cut.fields.shape), cut.fields)


@pytest.mark.parametrize("devices_here", [1, 3, 4])
@pytest.mark.parametrize("total", [1, 2, 10, 12, 1000])
@pytest.mark.parametrize("chunk", [1, 7, 128, 5000])
def test_chunks_are_equal_and_cover_every_member_once_or_with_the_same_numbers(monkeypatch, total, chunk, devices_here):
    monkeypatch.setattr(jax, "local_device_count", lambda: devices_here)
    size, starts = ensemble._chunks(total, chunk)
    covered = {member for start in starts for member in range(start, start + size)}
    assert covered == set(range(total)) and starts[0] == 0
    assert size < chunk + devices_here
    assert size % devices_here == 0 or size == total
