"""Data: one self-describing file, the same from the same numbers, the exact law in its pairs, and batches from (seed, step)."""

import dataclasses
import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from closure_jax import files
from closure_jax.data import batches, dataset, generate, hdf5, simulate
from closure_jax.data.batches import batch_indices
from closure_jax.errors import UserError
from closure_jax.physics import spectral
from closure_jax.physics.flow import KolmogorovFlow
from closure_jax.problems import Kolmogorov, LargeEddies
from closure_jax.problems.probe import equation_digest

N = 16
TRAJECTORIES, TESTS, TIMES = 5, 2, 20
BURN_IN, INTERVAL = 0.04, 0.02  # 2 snapshots dropped, one each 20 steps


def simulation(**changes) -> generate.Simulation:
    """A small one, with fields of the simulation, the problem or the flow changed."""
    given = {"stored_resolution": N, "resolution": N, "trajectories": TRAJECTORIES, "test_trajectories": TESTS}
    given |= {"seed": 0, "burn_in": BURN_IN, "end": BURN_IN + TIMES * INTERVAL, "every": 20, "chunk": TRAJECTORIES}
    given |= changes

    def made_of(cls, **parts):
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in names}, **parts)

    return made_of(generate.Simulation, problem=made_of(Kolmogorov, flow=made_of(KolmogorovFlow)))


def load(path: Path) -> dataset.Dataset:
    return dataset.load(path, TIMES, INTERVAL, BURN_IN)


def refusal(path: Path) -> str:
    """The message of the UserError that reading a file must raise: one line that names the file."""
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and str(path) in message
    return message


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "fields.h5"
    generate.write(simulation(), path)
    return path


@pytest.fixture(scope="module")
def arrays(made) -> dict[tuple[str, str], np.ndarray]:
    with h5py.File(made) as file:
        return {(s, f): file[f"{s}/{f}"][:] for s in ("train", "test") for f in ("vorticity", "closure")}


# --- simulated files -------------------------------------------------------------------------------------------------


def test_the_file_says_what_is_in_it(made, arrays):
    shapes = {key: (array.shape, array.dtype) for key, array in arrays.items()}
    assert shapes == {
        (split, field): ((count, TIMES, N, N), np.float32)
        for split, count in (("train", TRAJECTORIES - TESTS), ("test", TESTS))
        for field in ("vorticity", "closure")
    }
    with h5py.File(made) as file:
        attributes = dict(file.attrs)
        np.testing.assert_allclose(file["time"][:], BURN_IN + INTERVAL * np.arange(1, TIMES + 1), rtol=1e-12)
    assert attributes["schema"] == "closure_jax/1"
    expected = {
        "solver_resolution": N,
        "resolution": N,
        "trajectories": TRAJECTORIES,
        "test_trajectories": TESTS,
        "burn_in": BURN_IN,
        "end": BURN_IN + TIMES * INTERVAL,
        "snapshot_every": 20,
        "seed": 0,
        "domain_length": 1.0,
        "dt": 1e-3,
        "noise_sigma": 5e-5,
        "noise_kappa": 10.0,
        "noise_alpha": 0.005,
        "initial_alpha": 2.5,
        "initial_tau": 7.0,
        "viscosity": 1e-3,
        "forcing_amplitude": 0.1,
        "forcing_wavenumber": 1,
    }
    assert {name: attributes[name] for name in expected} == expected
    assert attributes["jax_version"] and attributes["closure_jax_version"]


def test_the_checksum_is_that_of_the_four_arrays(made, arrays):
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for field in ("vorticity", "closure"):
            digest.update(arrays[split, field].tobytes())
    with h5py.File(made) as file:
        assert file.attrs["checksum"] == digest.hexdigest()
    assert load(made).checksum == digest.hexdigest()


def test_the_same_numbers_give_the_same_bytes_also_over_a_leftover_of_a_killed_run(made, tmp_path):
    path, leftover = tmp_path / "fields.h5", tmp_path / "fields.h5.partial"
    leftover.write_bytes(made.read_bytes()[:10_000])
    assert "does not exist" in refusal(path)
    generate.write(simulation(), path)
    assert path.read_bytes() == made.read_bytes() and not leftover.exists()


@pytest.mark.parametrize("damage", [None, "fields.h5.partial", "fields.h5.begun/simulation.kept"])
def test_a_simulation_that_was_stopped_goes_on_to_the_same_bytes(made, tmp_path, monkeypatch, damage):
    path, run, stop_at = tmp_path / "fields.h5", [], [0]
    snapshot = simulate.Snapshots.next

    def counted(self):
        run.append(1)
        if len(run) == stop_at[-1]:  # as if killed: what came after it was last kept is lost
            raise KeyboardInterrupt
        return snapshot(self)

    monkeypatch.setattr(simulate.Snapshots, "next", counted)
    monkeypatch.setattr(files.Kept, "SECONDS", 0.0)
    monkeypatch.setattr(files.Kept, "SHARE", 1e9)
    for stop in (2, 5, 6, 4):  # of 2 + 20: in the burn-in, and 4, 5 and 3 snapshots later
        run.clear()
        stop_at.append(stop)
        with pytest.raises(KeyboardInterrupt):
            generate.write(simulation(), path)
        assert not path.exists()
    run.clear()
    stop_at.append(0)
    if damage:
        with h5py.File(tmp_path / "fields.h5.partial") as file:
            first = file["train/vorticity"].id.get_offset()
        content = bytearray((tmp_path / damage).read_bytes())
        content[first if damage.endswith("partial") else -100] ^= 1
        (tmp_path / damage).write_bytes(content)
    generate.write(simulation(), path)
    assert len(run) == (22 if damage else 22 - 1 - 4 - 5 - 3)
    assert path.read_bytes() == made.read_bytes() and [file.name for file in tmp_path.iterdir()] == ["fields.h5"]


@pytest.mark.parametrize("at, again", [(0, 22), (12, 22 - 11), (22, 22)])  # the last write is one of the head
def test_a_simulation_that_finds_the_disk_full_goes_on_to_the_same_bytes(made, tmp_path, monkeypatch, at, again):
    path, run = tmp_path / "fields.h5", []
    snapshot, tried = simulate.Snapshots.next, hdf5._File._try

    def counted(self):
        run.append(1)
        return snapshot(self)

    def full(value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def limited(self, change, value):
        return tried(self, full if len(run) == at and (at < 22 or self.tell() == 0) else change, value)

    monkeypatch.setattr(simulate.Snapshots, "next", counted)
    monkeypatch.setattr(files.Kept, "SECONDS", 0.0)
    monkeypatch.setattr(files.Kept, "SHARE", 1e9)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(hdf5._File, "_try", limited)
        generate.write(simulation(), path)
    assert not path.exists() and files.partial_name(path).exists() == (at > 0)
    run.clear()
    generate.write(simulation(), path)
    assert len(run) == again
    assert path.read_bytes() == made.read_bytes() and [file.name for file in tmp_path.iterdir()] == ["fields.h5"]


def test_a_file_whose_room_could_not_be_taken_has_the_same_bytes(tmp_path, monkeypatch):
    def cannot(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    written = []
    for fallocate in (getattr(os, "posix_fallocate", None), cannot, None):
        monkeypatch.setattr(os, "posix_fallocate", fallocate, raising=False)
        if fallocate is None:  # as on macOS
            monkeypatch.delattr(os, "posix_fallocate")
        path = tmp_path / str(len(written))
        with hdf5.writing(path, 4000) as file:
            hdf5.room(file, "fields", (1000,))
            file["fields"][:] = np.arange(1000)
            file.attrs["schema"] = "a"
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2] and len(written[0]) < 4000 + 2**13


def test_each_number_that_the_fields_depend_on_changes_the_name():
    changes = {
        "seed": 1,
        "resolution": 32,
        "domain_length": 2.0,
        "viscosity": 2e-3,
        "dt": 5e-4,
        "forcing_amplitude": 0.2,
        "forcing_wavenumber": 2,
        "noise_sigma": 1e-5,
        "noise_kappa": 5.0,
        "noise_alpha": 0.01,
        "initial_alpha": 3.0,
        "initial_tau": 5.0,
        "trajectories": 6,
        "test_trajectories": 1,
        "stored_resolution": 8,
        "burn_in": 0.02,
        "end": 0.4,
        "every": 10,
    }
    names = {simulation().file_name()} | {simulation(**{name: value}).file_name() for name, value in changes.items()}
    assert len(names) == 1 + len(changes)
    for same in ({}, {"chunk": 3}):  # the grouping in chunks is not among them
        assert simulation(**same).file_name() == simulation().file_name()


@dataclasses.dataclass(frozen=True)
class Dragged(KolmogorovFlow):
    """A fork's flow: linear drag, -drag w."""

    drag: float = 0.1

    def implicit_terms(self, state):
        return super().implicit_terms(state) - self.drag * state

    def implicit_solve(self, state, step_size):
        return state / (1 + step_size * (self.drag - self.viscosity * spectral.laplacian(self.grid)))


def test_a_flow_is_told_by_its_fields_its_class_and_what_it_computes(monkeypatch):
    def address(flow):
        problem = Kolmogorov(flow, N, N)
        return generate.Simulation(problem, 0, TRAJECTORIES, TESTS, BURN_IN, 1.0, 20, 2).file_name()

    names = {address(flow) for flow in (KolmogorovFlow(), Dragged(), Dragged(drag=2.0), Dragged(drag=0.0))}
    assert len(names) == 4
    before = address(Dragged())
    assert before == address(Dragged(drag=0.1, grid=spectral.make_grid(32, 2.0)))  # the problem sets the grid
    # the same class and fields, other code: what it computes is part of the address
    monkeypatch.setattr(Dragged, "forcing", lambda self: 1.001 * KolmogorovFlow.forcing(self))
    equation_digest.cache_clear()
    assert address(Dragged()) != before
    assert Kolmogorov(Dragged(), N, N).physics()["drag"] == 0.1
    equation_digest.cache_clear()


def test_the_digest_of_the_published_equation_is_the_same_everywhere():
    # it changes with the equation alone: another one would make everybody's data anew
    assert equation_digest(KolmogorovFlow(spectral.make_grid(16, 1.0))) == "2ee3e8b58451"


def test_a_problem_whose_fields_are_impossible_is_refused():
    wrong = {"resolution": 9, "stored_resolution": 6, "dt": 0.0, "noise_sigma": -1.0, "domain_length": np.nan}
    wrong |= {"noise_kappa": 0.0, "noise_alpha": -1.0, "initial_alpha": 0.0, "initial_tau": np.inf}
    for name, value in wrong.items():
        with pytest.raises(UserError, match=f"^{name}={value}: expected"):
            Kolmogorov(**{name: value})
    with pytest.raises(
        UserError, match="^resolution=16: expected it .* more than three times the forcing's wavenumber, 6"
    ):
        Kolmogorov(KolmogorovFlow(forcing_wavenumber=6), 16, 16)
    with pytest.raises(UserError, match="^resolution=24: expected a multiple of data.resolution = 16"):
        Kolmogorov(KolmogorovFlow(), 16, 24).reference()


def test_noise_that_the_stored_grid_does_not_hold_is_refused():
    """Draws of the fine grid have, at the points that are stored, the deviation of the law; or there are no data."""
    for alpha, stored, fine, fits in ((0.005, 16, 32, True), (1e-5, 16, 16, True), (0.005, 8, 16, False)):
        problem = Kolmogorov(stored_resolution=stored, resolution=fine, noise_alpha=alpha)
        process = dataclasses.replace(problem.exact().process, grid=spectral.make_grid(fine, 1.0))
        draws = jax.jit(jax.vmap(process.sample_hat))(simulate.trajectory_keys(0, np.arange(4000)))
        found = float(np.std(spectral.subsample(spectral.to_physical(draws), stored)))
        law = problem.law(np.zeros((1, stored, stored), np.float32)).deviation
        # at least 16 independent numbers a field: the deviation is known to 0.3 %
        assert (abs(found / law - 1) < 0.01) == fits
        if fits:
            problem.reference()
        else:
            said = (
                f"^noise_alpha={alpha}: .* deviation of {process.standard_deviation():.4g} on .* and {law:.4g} by the"
            )
            with pytest.raises(UserError, match=said):
                problem.reference()
    with pytest.raises(UserError, match="^noise_alpha=1e-05: .* expected the same within 1 %"):
        Kolmogorov(stored_resolution=16, resolution=64, noise_alpha=1e-5).reference()
    Kolmogorov(stored_resolution=16, resolution=64, noise_alpha=1e-5, noise_sigma=0.0).reference()


def test_given_data_of_another_equation_are_refused(made, tmp_path):
    problem = simulation().problem
    for other, name in (
        (dataclasses.replace(problem, noise_alpha=0.01), "noise_alpha"),
        (dataclasses.replace(problem, flow=KolmogorovFlow(viscosity=2e-3)), "viscosity"),
        (dataclasses.replace(problem, flow=Dragged(drag=0.0)), "flow_class"),
    ):
        with pytest.raises(UserError, match=f"was made with {name} = "):
            dataset.load(made, TIMES, INTERVAL, BURN_IN, dataclasses.replace(simulation(), problem=other).physics())
    for name, remedy in (("equation", "its code differs"), ("filter", "--dry_run prints the section of that field")):
        path = tmp_path / "texts.h5"
        path.write_bytes(made.read_bytes())
        with h5py.File(path, "a") as file:
            file.attrs[name] = "gaussian"
        with pytest.raises(
            UserError, match=f"made with {name} = gaussian, the configuration has sharp: expected .* {remedy}$"
        ):
            dataset.load(path, TIMES, INTERVAL, BURN_IN, {name: "sharp"})
    finer = dataclasses.replace(problem, resolution=2 * N, initial_tau=5.0)  # does not enter the law
    dataset.load(made, TIMES, INTERVAL, BURN_IN, dataclasses.replace(simulation(), problem=finer).physics())


@pytest.mark.slow
def test_a_coarser_file_made_in_chunks_holds_every_second_point_of_the_same_fields(tmp_path, monkeypatch):
    smooth = {"noise_alpha": 0.01}  # so that the coarser grid holds the noise
    generate.write(simulation(**smooth), tmp_path / "fine.h5")
    # written seven times at once: 7, 7 and 6 of three trajectories, then 10 and 10 of the other two
    monkeypatch.setattr(generate, "_BUFFER", 7 * 3 * 8 * (N // 2) ** 2)
    generate.write(simulation(chunk=3, stored_resolution=N // 2, **smooth), tmp_path / "coarse.h5")
    with h5py.File(tmp_path / "fine.h5") as fine, h5py.File(tmp_path / "coarse.h5") as coarse:
        for name in (f"{split}/{field}" for split in dataset.SPLITS for field in dataset.FIELDS):
            np.testing.assert_allclose(coarse[name][:], fine[name][..., ::2, ::2], rtol=1e-5, atol=2e-6)


def test_trajectories_differ_from_each_other(arrays):
    starts = np.concatenate([arrays["train", "vorticity"], arrays["test", "vorticity"]])[:, 0].reshape(TRAJECTORIES, -1)
    correlation = np.corrcoef(starts)[np.triu_indices(TRAJECTORIES, 1)]
    assert np.abs(correlation).max() < 0.9


def advection(vorticity: np.ndarray) -> np.ndarray:
    """-u.grad(w) on the unit square in float64, dealiased by the 2/3 rule."""
    n = vorticity.shape[-1]
    ix, iy = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None, :]
    kx, ky = 2j * np.pi * ix, 2j * np.pi * iy
    laplacian = (kx**2 + ky**2).real
    w = np.fft.rfft2(vorticity.astype(np.float64))
    psi = -w / np.where(laplacian == 0, np.inf, laplacian)
    u, v, wx, wy = (np.fft.irfft2(f, s=(n, n)) for f in (ky * psi, -kx * psi, kx * w, ky * w))
    inside = (np.abs(ix) < n / 3) & (iy < n / 3)
    return np.fft.irfft2(-np.fft.rfft2(u * wx + v * wy) * inside, s=(n, n))


def test_a_pair_is_a_draw_from_the_exact_law(arrays):
    residual = np.concatenate(
        [arrays[split, "closure"] - advection(arrays[split, "vorticity"]) for split in ("train", "test")]
    )
    deviation = 5e-5 * np.sqrt(10.0 / (4 * np.pi * 0.005 * 1e-3))
    # about 10 independent numbers a field and 100 fields: the deviation is known to 2 %
    assert residual.std() == pytest.approx(deviation, rel=0.08)
    assert abs(residual.mean()) < 4 * deviation / np.sqrt(10 * residual.shape[0] * TIMES)
    spread = residual.std(axis=(0, 2, 3))  # white in time: of the same size at each snapshot ...
    assert spread.min() > 0.5 * deviation and spread.max() < 1.6 * deviation
    lagged = np.mean(residual[:, 1:] * residual[:, :-1]) / deviation**2  # ... and unrelated to the one before
    assert abs(lagged) < 0.15


def test_without_noise_the_closure_is_advection(tmp_path):
    generate.write(simulation(noise_sigma=0.0), tmp_path / "quiet.h5")
    found = load(tmp_path / "quiet.h5")
    exact = advection(found.vorticity["train"])
    assert np.abs(exact).max() > 1e-3
    np.testing.assert_allclose(found.closure["train"], exact, atol=1e-5 * np.abs(exact).max() + 1e-6)


@pytest.mark.parametrize("kind", ["flow", "problem"])
def test_a_simulation_that_diverges_is_refused_at_once_and_leaves_no_file(tmp_path, monkeypatch, kind):
    wild, run = simulation(dt=0.5, forcing_amplitude=1e6, every=2, burn_in=10, end=40), []
    if kind == "problem":  # whose viscosity is its own field
        wild = dataclasses.replace(
            wild, problem=LargeEddies(8, 16, dt=0.5, solver_dt=0.5, forcing_wavenumber=2, settling_time=0.0)
        )
    snapshot = simulate.Snapshots.next

    def counted(self):
        run.append(1)
        return snapshot(self)

    monkeypatch.setattr(simulate.Snapshots, "next", counted)
    with pytest.raises(UserError) as caught:
        generate.write(wild, tmp_path / "fields.h5")
    asked = f"expected a smaller --config.problem.dt=0.5 or a larger --config.{kind}.viscosity"
    assert str(caught.value) == f"the simulation left the finite numbers: {asked}"
    assert len(run) < 20 and list(tmp_path.iterdir()) == []  # of 40


# --- what a run sees -------------------------------------------------------------------------------------------------


def test_splits_are_whole_trajectories_and_the_last_tenth_validates(tmp_path):
    trajectories = np.arange(21 * TIMES, dtype=np.float32).reshape(21, TIMES, 1, 1) * np.ones((1, 1, 8, 8), np.float32)
    flat = {"vorticity": trajectories, "closure": -trajectories}
    with h5py.File(tmp_path / "authors.h5", "w") as file:
        for field, name in (("vorticity", "vorticity_64"), ("closure", "nonlinear_64")):
            file[f"train_{name}"] = flat[field].reshape(-1, 8, 8)
            file[f"test_{name}"] = flat[field][:1].reshape(-1, 8, 8)
    found = load(tmp_path / "authors.h5")
    for field in ("vorticity", "closure"):
        split = getattr(found, field)
        np.testing.assert_array_equal(split["train"], flat[field][:19])
        np.testing.assert_array_equal(split["validation"], flat[field][19:])
        np.testing.assert_array_equal(split["test"], flat[field][:1])
        np.testing.assert_array_equal(found.fields(field, "train"), flat[field][:19].reshape(-1, 8, 8))


def test_our_file_is_split_likewise(made, arrays):
    found = load(made)
    for field in ("vorticity", "closure"):
        split = getattr(found, field)
        np.testing.assert_array_equal(split["train"], arrays["train", field][:2])
        np.testing.assert_array_equal(split["validation"], arrays["train", field][2:])
        np.testing.assert_array_equal(split["test"], arrays["test", field])
    np.testing.assert_allclose(found.time, BURN_IN + INTERVAL * np.arange(1, TIMES + 1), rtol=1e-12)
    assert found.path == made


def test_a_part_of_the_training_trajectories_has_its_own_normalisation_and_checksum(made):
    whole = load(made)
    held = len(whole.vorticity["train"])
    part = whole.first(1)
    for field in ("vorticity", "closure"):
        values = getattr(whole, field)
        np.testing.assert_array_equal(getattr(part, field)["train"], values["train"][:1])
        for split in ("validation", "test"):
            np.testing.assert_array_equal(getattr(part, field)[split], values[split])
        assert part.normalisation[field].std == pytest.approx(values["train"][:1].std(), rel=1e-5)
    assert len({whole.checksum, part.checksum, whole.first(held).checksum}) == 3  # what is cached by it is not mixed up
    with pytest.raises(UserError, match=f"train_trajectories={held + 1}: expected at most {held}"):
        whole.first(held + 1)


def test_normalisation_is_of_the_training_split_and_inverts(made):
    found = load(made)
    for field in ("vorticity", "closure"):
        train, normalisation = found.fields(field, "train"), found.normalisation[field]
        scaled = normalisation.apply(train).astype(np.float64)
        assert abs(scaled.mean()) < 1e-5 and scaled.std() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(normalisation.invert(normalisation.apply(train)), train, rtol=1e-5, atol=1e-7)
        assert normalisation.std == pytest.approx(train.std(dtype=np.float64), rel=1e-9)


# --- damaged, half-made and foreign files ----------------------------------------------------------------------------


def test_damaged_files_are_refused(made, tmp_path):
    content, copy = made.read_bytes(), tmp_path / "fields.h5"
    for name in ("train/vorticity", "train/closure", "test/vorticity", "test/closure"):
        with h5py.File(made) as file:
            offset = file[name].id.get_offset()
        flipped = bytearray(content)
        flipped[offset + 100] ^= 0x01
        copy.write_bytes(flipped)
        message = refusal(copy)
        assert "damaged" in message and "checksum" in message and "anew" in message
    for share in (0.0, 0.001, 0.5, 0.999):
        copy.write_bytes(content[: int(share * len(content))])
        assert "can't be read" in refusal(copy)
    for name in ("time", "test/closure", "train"):
        copy.write_bytes(content)
        with h5py.File(copy, "a") as file:
            del file[name]
        assert "can't be read" in refusal(copy)


def test_a_file_that_says_it_is_huge_is_refused_before_it_is_read(made, tmp_path):
    copy = tmp_path / "fields.h5"
    for shape in ((10**7, TIMES, N, N), (10**12, TIMES, N, N)):
        copy.write_bytes(made.read_bytes())
        with h5py.File(copy, "a") as file:
            del file["train/vorticity"]
            file.create_dataset("train/vorticity", shape, np.float32, chunks=(1, TIMES, N, N), compression="gzip")
        assert copy.stat().st_size < 300_000
        assert f"train/vorticity would be {4 * np.prod(shape)} bytes" in refusal(copy)


def test_a_second_run_waits_for_the_file_that_a_first_one_makes(tmp_path):
    path, order = tmp_path / "data" / "fields.h5", []

    def second():
        with generate.exclusive(path):
            order.append("second")

    thread = threading.Thread(target=second)
    with generate.exclusive(path):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def write_authors(path: Path, arrays: dict, splits=("train", "test"), dtype=np.float32, **changes) -> None:
    names = {"vorticity": "vorticity_64", "closure": "nonlinear_64"}
    content = {
        f"{split}_{names[field]}": array.reshape(-1, N, N).astype(dtype)
        for (split, field), array in arrays.items()
        if split in splits
    }
    with h5py.File(path, "w") as file:
        for name, array in (content | changes).items():
            if array is not None:
                file[name] = array


def assert_same(found: dataset.Dataset, expected: dataset.Dataset) -> None:
    for field in ("vorticity", "closure"):
        for split in ("train", "validation", "test"):
            mine, theirs = getattr(found, field)[split], getattr(expected, field)[split]
            assert mine.dtype == np.float32
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(found.time, expected.time, rtol=1e-12)
    assert found.normalisation == expected.normalisation and found.checksum == expected.checksum


def test_files_of_the_authors_give_the_same_data(made, arrays, tmp_path):
    expected = load(made)
    for dtype in (np.float32, np.float64):
        write_authors(tmp_path / "authors.h5", arrays, dtype=dtype)
        assert_same(load(tmp_path / "authors.h5"), expected)
    write_authors(tmp_path / "train_64.h5", arrays, ("train",))
    assert "test_64.h5" in refusal(tmp_path / "train_64.h5")
    write_authors(tmp_path / "test_64.h5", arrays, ("test",))
    assert_same(load(tmp_path / "train_64.h5"), expected)


def test_arrays_that_do_not_fit_are_refused(arrays, tmp_path):
    def zeros(*shape):
        return np.zeros(shape, np.float32)

    changes = {
        "no closure": {"train_nonlinear_64": None},
        "half a trajectory": {"train_vorticity_64": zeros(TIMES + 1, N, N)},
        "fewer closures": {"train_nonlinear_64": zeros(2 * TIMES, N, N)},
        "fewer test closures": {"test_nonlinear_64": zeros(TIMES, N, N)},
        "no test fields": {"test_vorticity_64": zeros(0, N, N), "test_nonlinear_64": zeros(0, N, N)},
        "not square": {"train_nonlinear_64": zeros(3 * TIMES, N, N // 2)},
        "two resolutions": {"test_nonlinear_64": zeros(2 * TIMES, N // 2, N // 2)},
        "numbers": {"train_vorticity_64": zeros(3 * TIMES)},
        "one number": {"train_vorticity_64": np.float32(1.0)},
        "texts": {"train_vorticity_64": np.array([b"omega"] * 3 * TIMES)},
        "not finite": {"test_nonlinear_64": np.full((2 * TIMES, N, N), np.inf, np.float32)},
    }
    for number, changed in enumerate(changes.values()):
        write_authors(tmp_path / f"{number}.h5", arrays, **changed)
        refusal(tmp_path / f"{number}.h5")
    ours, shorter = tmp_path / "ours.h5", tmp_path / "shorter.h5"
    for path, parts in ((ours, {}), (shorter, {"train": slice(2)})):
        kept = {key: array[:, parts.get(key[0], slice(None))] for key, array in arrays.items()}
        with h5py.File(path, "w") as file:
            file.attrs.update(schema=dataset.SCHEMA, checksum=dataset.checksum_of(kept.values()))
            file.update(
                {"time": np.arange(1.0, TIMES + 1)} | {f"{split}/{field}": kept[split, field] for split, field in kept}
            )
    load(ours)
    assert f"{TIMES} times of 2 snapshots in train: expected one for each" in refusal(shorter)
    write_authors(tmp_path / "group.h5", arrays, train_vorticity_64=None)
    with h5py.File(tmp_path / "group.h5", "a") as file:
        file.create_group("train_vorticity_64/deeper")
    refusal(tmp_path / "group.h5")


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_step(monkeypatch):
    wanted = [(seed, step) for seed in (0, 1) for step in range(9)]
    forwards = {key: batch_indices(*key, 10, 7).tolist() for key in wanted}
    for key in reversed(wanted):
        monkeypatch.setattr(batches, "_cache", {})
        assert batch_indices(*key, 10, 7).tolist() == forwards[key]


def test_each_example_is_seen_once_an_epoch_also_across_seams():
    for count, size in ((12, 4), (10, 7), (5, 1), (7, 7), (3, 8), (1, 4)):
        steps = -(-4 * count // size)
        stream = np.concatenate([batch_indices(3, step, count, size) for step in range(steps)])
        for epoch in range(4):
            assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_are_shuffled_differently():
    epochs = [batch_indices(seed, step, 100, 100).tolist() for seed in range(3) for step in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 9
    assert all(epoch != sorted(epoch) for epoch in epochs)
