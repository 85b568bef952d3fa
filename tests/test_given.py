"""Pairs that another solver made: a closure is trained and judged with nothing else given."""

import h5py
import jax
import numpy as np
import pytest
from helpers import REPOSITORY, refusal

import closure_jax as cj
from closure_jax.commands import runs, train
from closure_jax.data import dataset
from closure_jax.evaluation import evaluate
from closure_jax.workdir import WorkDir

FINE, COARSE = 32, 16
COMMAND = f"--config={REPOSITORY / 'experiments' / 'les_cs_physical.py'}:tiny"


def slopes(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences on [0, 1]^2."""
    half = field.shape[-1] / 2
    return tuple(half * (np.roll(field, -1, axis) - np.roll(field, 1, axis)) for axis in (-2, -1))


def advection(w: np.ndarray) -> np.ndarray:
    """-u.grad(w) by finite differences; only the stream function needs a transform."""
    k = 2 * np.pi * np.fft.fftfreq(w.shape[-1], 1 / w.shape[-1])
    k2 = k[:, None] ** 2 + k[None] ** 2
    psi = np.fft.ifft2(np.fft.fft2(w) / np.where(k2 > 0, k2, np.inf)).real
    (psi_x, psi_y), (w_x, w_y) = slopes(psi), slopes(w)
    return -(psi_y * w_x - psi_x * w_y)


def boxes(field: np.ndarray) -> np.ndarray:
    """Means over boxes of 2 x 2 points."""
    return field.reshape(*field.shape[:-2], COARSE, 2, COARSE, 2).mean(axis=(-3, -1))


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Resolved fields and closures of four trajectories of decaying vorticity, Euler steps of a plain NumPy solver."""
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(FINE, 1 / FINE)[:, None], np.fft.rfftfreq(FINE, 1 / FINE)[None])
    w = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((4, FINE, FINE))) * (k < 6))
    found = {"resolved": [], "subgrid": []}
    for step in range(60):
        if step % 10 == 0:
            found["resolved"].append(boxes(w))
            found["subgrid"].append(boxes(advection(w)) - advection(boxes(w)))
        laplacian = sum(np.roll(w, shift, axis) for axis in (1, 2) for shift in (1, -1)) - 4 * w
        w = w + 0.01 * (advection(w) + 1e-3 * FINE**2 * laplacian)
    return {name: np.stack(fields, axis=1) for name, fields in found.items()}


def write(file, **arrays):
    with h5py.File(file, "w") as target:
        for name, array in arrays.items():
            if isinstance(array, h5py.VirtualLayout):
                target.create_virtual_dataset(name, array)
            else:
                target[name] = array
    return file


def changed(arrays: dict[str, np.ndarray], name: str, part: tuple, value) -> dict[str, np.ndarray]:
    """The same with other numbers in a part of one."""
    array = arrays[name].copy()
    array[part] = value
    return arrays | {name: array}


@pytest.mark.slow
def test_pairs_of_another_solver_train_a_closure_that_is_judged_by_them_alone(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLOSURE_JAX_DATA", str(tmp_path / "data"))
    file = write(tmp_path / "pairs.h5", **pairs, time=0.1 * np.arange(1, 7))
    run = tmp_path / "run"
    given = ["--config.problem.kind=given", f"--config.data.path={file}"]
    assert train.main([COMMAND, f"--workdir={run}", *given]) == 0
    results = WorkDir(run).results()
    found = results["a_priori"]["by_steps"]["1"]
    assert np.isfinite([found[name] for name in ("r2", "correlation", "crps", "transfer_back")]).all()
    assert "a_posteriori" not in results and results["a_priori"].get("floor") is None
    assert results["a_priori"]["times"][0] == pytest.approx(0.1)
    stored = WorkDir(run).config()
    assert (stored.data.resolution, stored.problem.dt) == (COARSE, pytest.approx(0.1))
    closure = cj.load(run)
    assert closure(jax.random.key(0), pairs["resolved"][:, 0].astype(np.float32)).shape == (4, COARSE, COARSE)
    capsys.readouterr()
    assert train.main([COMMAND, f"--workdir={run}", *given]) == 0
    assert "already done" in (said := capsys.readouterr().out) and "is gone" not in said
    (run / "report.html").unlink()
    assert train.main([COMMAND, f"--workdir={run}", *given]) == 0
    assert f"report: '{run / 'report.html'}' is gone, --mode=evaluate makes it anew" in capsys.readouterr().out


def test_a_tenth_of_the_trajectories_tests_and_times_may_be_left_out(pairs, tmp_path):
    many = {name: np.tile(fields, (5, 1, 1, 1)) for name, fields in pairs.items()}
    file = write(tmp_path / "pairs.h5", **many)
    size, time = dataset.size_and_times(file)
    assert size == COARSE and time.tolist() == [1, 2, 3, 4, 5, 6]
    read = dataset.load(file, 6, 1.0, 0.0)
    assert {split: len(fields) for split, fields in read.vorticity.items()} == {"train": 17, "validation": 1, "test": 2}
    np.testing.assert_array_equal(read.closure["test"], many["subgrid"][-2:].astype(np.float32))


def test_times_of_single_precision_are_even_and_what_the_file_says_is_not_asked(pairs, tmp_path, capsys):
    many = {name: np.tile(fields, (1, 40, 1, 1)) for name, fields in pairs.items()}
    file = write(tmp_path / "pairs.h5", **many, time=(0.1 * np.arange(1, 241)).astype(np.float32))
    given = [COMMAND, f"--workdir={tmp_path / 'run'}", "--config.problem.kind=given", f"--config.data.path={file}"]
    experiment, _ = train.resolve(*train._parse(given))
    assert (experiment.problem.dt, experiment.data.burn_in) == (
        pytest.approx(0.1, rel=1e-6),
        pytest.approx(0.0, abs=1e-9),
    )
    assert len(experiment.simulation().snapshot_times()) == 240
    assert train.main([*given, "--config.data.end=3"]) == 2
    assert "--config.data.end=3: of given pairs" in capsys.readouterr().err
    for time in (np.arange(1.0), np.ones((240, 1)), np.array([b"a"] * 240)):
        write(file, **many, time=time)
        assert train.main(given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "expected at least 2 numbers, ascending" in line


def test_a_run_of_a_sweep_over_given_pairs_knows_its_own_folder_again(pairs, tmp_path):
    given = ("problem.kind=given", f"data.path={write(tmp_path / 'pairs.h5', **pairs, time=np.arange(3, 9))}")
    asked = [f"--config.{text}" for text in given]
    experiment, work = train.resolve(*train._parse([COMMAND, f"--workdir={tmp_path / 'run'}", *asked]))
    work.path.mkdir()
    work.write_config(experiment.config, {})
    run = runs.Run(REPOSITORY / "experiments" / "les_cs_physical.py", "tiny", given, work.path)
    run.check()
    assert not run.is_done()
    work.write_results({"settings": evaluate.settings(experiment)})
    assert run.is_done()


def test_pairs_that_say_they_are_huge_are_refused_before_anything_of_their_length_is_made(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "arange", None)
    for shape in ((3, 10**9, 16, 16), (0, 10**9, 16, 16)):
        with h5py.File(tmp_path / "pairs.h5", "w") as file:
            for name in pairs:
                file.create_dataset(name, shape, np.float32, chunks=(1, 1, 16, 16), maxshape=4 * (None,))
        for read in (dataset.size_and_times, lambda path: dataset.load(path, 6, 1.0, 0.0)):
            assert "resolved would be " in refusal(read, tmp_path / "pairs.h5")


def test_files_that_are_no_pairs_are_told_in_one_line(pairs, tmp_path, capsys):
    few = {name: fields[:2] for name, fields in pairs.items()}
    flat = {name: fields.reshape(-1, COARSE, COARSE) for name, fields in pairs.items()}
    whole = np.arange(1, 7)
    elsewhere = h5py.VirtualLayout(pairs["resolved"].shape, np.float32)
    elsewhere[:] = h5py.VirtualSource(tmp_path / "gone.h5", "resolved", pairs["resolved"].shape)
    for arrays, said in (
        (few, "expected (trajectory, time, n, n) of at least 3"),
        (flat, "expected (trajectory, time, n, n)"),
        ({"resolved": pairs["resolved"]}, "can't be read"),
        (
            pairs | {"time": 0.1 * whole + 0.03},
            "has times 0.13, 0.23, 0.33, ...: expected at least 2, evenly spaced",
        ),
        (pairs | {"time": whole**2}, "expected at least 2, evenly spaced"),
        ({"other": whole}, "nor resolved"),
        (pairs | {"subgrid": pairs["subgrid"][:, :, :8]}, "has train closure of shape"),
        (pairs | {"subgrid": pairs["subgrid"] * np.nan}, "not finite"),
        (changed(pairs, "subgrid", (slice(2),), 0), "has a train closure of 0 everywhere"),
        (
            changed(pairs, "resolved", (1,), 0),
            "train vorticity between 0 and 0 in trajectory 1, snapshot 0 (from 0; 6 of 12 are such)",
        ),
        (changed(pairs, "subgrid", (3, 4), 0.5), "test closure between 0.5 and 0.5 in trajectory 0, snapshot 4"),
        (changed(pairs, "subgrid", (2,), 1e-40 * pairs["subgrid"][2]), "a validation closure between"),
        (changed(pairs, "subgrid", (3,), pairs["resolved"][3]), "same numbers as vorticity and as closure in test"),
        (pairs | {"resolved": elsewhere}, "resolved lies in other files"),
        (pairs | {"subgrid": h5py.SoftLink("/subgrid")}, "can't be read"),
        (pairs | {"resolved": h5py.SoftLink("/resolved")}, "can't be read"),
    ):
        file = write(tmp_path / "pairs.h5", **arrays)
        options = [
            COMMAND,
            f"--workdir={tmp_path / 'run'}",
            "--config.problem.kind=given",
            f"--config.data.path={file}",
        ]
        assert train.main(options) == 2, said
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line and str(file) in line, line
        assert not (tmp_path / "run").exists()
    assert train.main([COMMAND, "--config.problem.kind=given", f"--config.data.path={tmp_path / 'none.h5'}"]) == 2
    assert "can't be read" in capsys.readouterr().err
    message = refusal(lambda: train.resolve(*train._parse([COMMAND, "--config.problem.kind=given"])))
    assert "expected a file of data in --config.data.path" in message
