"""Large-eddy simulation: the subgrid term completes the coarse solver, fine scales are drawn anew, and what is no such case."""

import contextlib
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REPOSITORY

from closure_jax.commands import train, transfer
from closure_jax.errors import UserError
from closure_jax.physics import spectral
from closure_jax.physics.spectral import on_grid
from closure_jax.problems import baselines
from closure_jax.problems.les import LargeEddies
from closure_jax.workdir import WorkDir

SMALL = LargeEddies(stored_resolution=16, resolution=48, viscosity=2e-3, dt=0.01, solver_dt=0.01, settling_time=0.4)


def keys(count: int) -> jax.Array:
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(jnp.arange(count))


def settled(problem: LargeEddies, count: int = 3, units: float = 6.0) -> jax.Array:
    """States of the DNS after a while."""
    system = problem.reference()
    return jax.jit(lambda k: system.advance(k, system.initial(k), 0, round(units / system.dt)))(keys(count))


def test_a_field_on_another_grid_has_the_modes_of_both():
    rng = np.random.default_rng(0)
    fine = spectral.to_fourier(rng.standard_normal((2, 24, 24)))
    coarse = spectral.to_physical(on_grid(fine, 8))
    index = np.fft.fftfreq(24, 1 / 24)
    kept = (np.abs(index)[:, None] < 4) & (np.abs(index)[None] < 4)
    by_hand = np.fft.ifft2(np.fft.fft2(np.asarray(spectral.to_physical(fine))) * kept).real[:, ::3, ::3]
    np.testing.assert_allclose(coarse, by_hand, atol=1e-6)
    np.testing.assert_allclose(on_grid(on_grid(on_grid(fine, 8), 24), 8), on_grid(fine, 8), atol=1e-5)


def test_the_forcing_is_the_curl_of_its_force():
    flow = LargeEddies(stored_resolution=32, forcing_amplitude=1.5, forcing_wavenumber=3, domain_length=4.0)._flow(
        32, 0.0, padded=False
    )
    y = np.arange(32) * 4.0 / 32
    force = np.broadcast_to(1.5 * np.sin(2 * np.pi * 3 / 4.0 * y), (32, 32))  # along x, (x, y)
    ky = 2 * np.pi * np.fft.fftfreq(32, 4.0 / 32)[None]
    np.testing.assert_allclose(flow.forcing(), -np.fft.ifft2(1j * ky * np.fft.fft2(force)).real, atol=1e-12)


def test_the_coarse_grid_advects_all_modes_that_it_holds(x64):
    """Against sums over all pairs of modes."""
    n = 12
    flow = LargeEddies(stored_resolution=n, forcing_wavenumber=2)._coarse()
    w = np.random.default_rng(1).standard_normal((n, n))
    k = np.fft.fftfreq(n, 1 / n).astype(int)
    held = (np.abs(k)[:, None] < n / 2) & (np.abs(k)[None] < n / 2)
    w_hat = np.fft.fft2(w) * held / n**2
    expected = np.zeros((n, n), complex)
    modes = [(a, b) for a in range(n) for b in range(n) if held[a, b] and (a, b) != (0, 0)]
    for a, b in modes:  # psi = w / k^2 advects: u = i ky psi, v = -i kx psi
        psi = w_hat[a, b] / (k[a] ** 2 + k[b] ** 2)
        for c, d in modes:
            x, y = k[a] + k[c], k[b] + k[d]
            if abs(x) < n / 2 and abs(y) < n / 2:
                expected[x, y] += (k[b] * k[c] - k[a] * k[d]) * psi * w_hat[c, d]
    found = flow.advection_hat(jnp.asarray(np.fft.rfft2(np.fft.ifft2(w_hat * n**2).real)))
    np.testing.assert_allclose(np.asarray(found) / n**2, expected[:, : n // 2 + 1], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("filter_", ["gaussian", "sharp"])
def test_the_solver_with_the_true_subgrid_term_follows_the_filtered_simulation(x64, filter_):
    """Where the closure is held over one step the difference is of second order in it."""
    errors = []
    state = jnp.asarray(np.asarray(settled(dataclasses.replace(SMALL, filter=filter_))), complex)
    for dt in (4e-3, 2e-3):
        problem = dataclasses.replace(SMALL, dt=dt, solver_dt=dt, filter=filter_)
        system, solver = problem.reference(), problem.solver()
        vorticity, closure = system.observe(keys(3), state, 0)
        true = system.vorticity(system.advance(keys(3), state, 0, 1))
        made = spectral.to_physical(solver.step(spectral.to_fourier(vorticity), spectral.to_fourier(closure)))
        errors.append(float(jnp.abs(made - true).max()))
        bare = spectral.to_physical(solver.step(spectral.to_fourier(vorticity), 0 * spectral.to_fourier(closure)))
        assert float(jnp.abs(bare - true).max()) > 5 * errors[-1]
    assert 3.3 < errors[0] / errors[1] < 4.7


@pytest.mark.slow
def test_other_fine_scales_have_the_same_filtered_field():
    state = settled(SMALL)
    system, unsettled = SMALL.truth(), dataclasses.replace(SMALL, settling_time=0.0).truth()
    vorticity = system.vorticity(state)
    begin = jax.jit(system.begin)
    begun, again, others = (begin(one, vorticity) for one in (keys(3), keys(3), keys(6)[3:]))
    at_first = jax.jit(unsettled.begin)(keys(3), vorticity)
    for one in (begun, others, at_first):
        np.testing.assert_allclose(system.vorticity(one), vorticity, atol=2e-5)
    np.testing.assert_array_equal(begun, again)

    def fine(state):
        return np.asarray(spectral.to_physical(state - on_grid(on_grid(state, 16), 48)))

    # of random numbers the DNS has made scales of a size as its own, by what the resolved field drives, and yet others
    size = fine(state).std()
    assert fine(at_first).std() < 0.2 * size
    for one in (begun, others):
        assert 0.5 * size < fine(one).std() < 1.5 * size
    assert np.corrcoef(fine(begun).ravel(), fine(others).ravel())[0, 1] > 0.9
    assert fine(begun - others).std() > 0.1 * size
    # two axes in front, as an ensemble has them
    both = begin(keys(6).reshape(2, 3), jnp.stack([vorticity, vorticity]))
    for found, one in zip(both, (begun, others), strict=True):
        np.testing.assert_allclose(found, one, atol=1e-3 * float(jnp.abs(one).max()))


class Pairs:
    def __init__(self, vorticity, closure):
        self.vorticity, self.closure = np.asarray(vorticity), np.asarray(closure)

    def fields(self, name, split):
        return getattr(self, name)


def test_a_case_that_the_grid_resolves_is_refused_with_its_figures():
    system = SMALL.reference()
    vorticity, closure = system.observe(keys(3), settled(SMALL), 0)
    found = SMALL.regime(Pairs(vorticity, closure))
    assert found["subgrid_enstrophy_transfer"] == pytest.approx(float(jnp.mean(vorticity * closure)), rel=1e-5)
    w_hat = spectral.to_fourier(vorticity)
    laplacian = spectral.to_physical(w_hat * spectral.laplacian(system.coarse.grid))
    assert found["viscous_enstrophy_transfer"] == pytest.approx(2e-3 * float(jnp.mean(vorticity * laplacian)), rel=1e-3)
    assert found["subgrid_enstrophy_transfer"] < found["viscous_enstrophy_transfer"] < 0
    with pytest.raises(
        UserError, match=r"viscosity=0.5: diffusion takes .* rate of [0-9.]+, the subgrid term at one of"
    ):
        dataclasses.replace(SMALL, viscosity=0.5).regime(Pairs(vorticity, closure))


def test_classical_closures_find_their_constants_in_a_filtered_simulation():
    system = SMALL.reference()
    vorticity, closure = system.observe(keys(3), settled(SMALL), 0)
    h, width = float(system.coarse.grid.step[0]), SMALL.width
    for name in ("smagorinsky", "leith"):  # neither gives back what it takes
        form = baselines.FORMS[name]
        dynamic = baselines.Dynamic(form, system.coarse.grid, h, width).unlimited(vorticity)
        assert (dynamic > 0).all() and (dynamic < form.published).all(), name
    form = baselines.FORMS["gradient"]
    published = baselines.Static(form, system.coarse.grid, width, form.published)
    fitted = baselines.fitted(published, Pairs(vorticity, closure))  # 1 / 12 of a wide filter's flux, to leading order
    assert fitted.coefficient == pytest.approx(form.published, rel=0.4)
    assert np.corrcoef(np.ravel(fitted.mean(vorticity)), np.ravel(closure))[0, 1] > 0.75


def test_impossible_fields_are_refused():
    for changed, said in (
        ({"filter": "box"}, "^filter=box: expected gaussian, sharp"),
        ({"solver_dt": 0.015}, "^solver_dt=0.015: expected a whole number of steps of the DNS"),
        ({"solver_dt": 0.001}, "^solver_dt=0.001: expected a whole number of steps of the DNS"),
        ({"settling_time": 0.205}, "^settling_time=0.205: expected a whole number of steps of the DNS, dt = 0.01$"),
        ({"forcing_wavenumber": 6}, "^forcing_wavenumber=6: expected a whole number from 1"),
        ({"viscosity": -1.0}, "^viscosity=-1.0: expected"),
        ({"drag": -1.0}, "^drag=-1.0: expected"),
        ({"stored_resolution": 7}, "^stored_resolution=7"),
    ):
        with pytest.raises(UserError, match=said):
            dataclasses.replace(SMALL, **changed)
    for given, steps in ((0.0, 0), (0.3, 30), (0.57, 57)):  # 0.57 / 0.01 is 56.99999999999999
        assert dataclasses.replace(SMALL, settling_time=given).reference().settling == steps
    with pytest.raises(UserError, match="^resolution=48: expected at least twice"):
        dataclasses.replace(SMALL, stored_resolution=32).reference()


BESIDE = ("smagorinsky", "dynamic_leith", "gradient", "leith_fitted", "leith_fitted_ar1")
"""Classical closures in the runs of these tests: one of each kind; tests/test_baselines.py has them all."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of les_cs_online:tiny, which has the phases of les_cs_physical and one more, and what it printed."""
    home, everything = tmp_path_factory.mktemp("les"), baselines.classical

    def some(*arguments):
        return {name: closure for name, closure in everything(*arguments).items() if name in BESIDE}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "classical", some)
        patch.setenv("CLOSURE_JAX_DATA", str(home / "data"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            experiment = REPOSITORY / "experiments" / "les_cs_online.py"
            assert train.main([f"--config={experiment}:tiny", f"--workdir={home / 'run'}"]) == 0
        yield home / "run", printed.getvalue()


@pytest.mark.slow
def test_a_whole_run(finished):
    folder, said = finished
    assert "regime: subgrid_enstrophy_transfer -" in said
    work = WorkDir(folder)
    results = work.results()
    assert results["a_priori"].get("floor") is None and results["a_priori"]["by_steps"]["1"]["spread_over_error"] > 0
    assert work.provenance()["regime"]["subgrid_enstrophy_transfer"] < 0
    rollout = results["a_posteriori"]
    assert rollout["finite_fraction"] == 1 and rollout["relative_error_floor"][0] == pytest.approx(0, abs=1e-4)
    beside = rollout["baselines"]
    assert set(beside) == {"none", *BESIDE}
    assert beside["leith_fitted_ar1"]["members"] == 2 and beside["leith_fitted"]["members"] == 1
    (record,) = (record for record in work.records("online") if record["step"] == 10)
    assert record["loss"] > 0 and record["score_1"] == pytest.approx(record["loss"])


@pytest.mark.slow
def test_a_closure_is_judged_in_a_flow_that_it_has_not_seen_with_nothing_fitted_anew(finished, capsys):
    folder, _ = finished
    short = ["--config.data.trajectories=4", "--config.data.burn_in=4.4", "--config.data.end=5.4"]
    asked = [str(folder), "--config.problem.viscosity=1e-3", *short]
    assert transfer.main(asked) == 0
    output = folder.with_name("run-transfer")
    (case,) = [path.parent for path in output.glob("*/results.json")]
    said = (output / "transfer.md").read_text()
    assert "| as trained | viscosity=1e-3 |" in said and "| leith fitted |" in said
    there, here = (WorkDir(path).results() for path in (folder, case))
    assert there["a_priori"]["by_steps"]["1"]["r2"] != here["a_priori"]["by_steps"]["1"]["r2"]
    assert there["a_posteriori"]["coupling"] == here["a_posteriori"]["coupling"]
    capsys.readouterr()
    assert transfer.main(asked) == 0 and "already done" in capsys.readouterr().out
    for more, told in (
        (["--config.problem.viscosity=2e-3"], "is the flow that"),
        (["--config.network.width=4"], "expected a change of the flow"),
        (["--config.problem.viscosity=1e-3", "--config.network.width=4"], "the closure stays as it is"),
        (["--config.problem.viscosity=1e-3", "--config.data.resolution=32"], "expected that of the closure, 16"),
    ):
        assert transfer.main([str(folder), *more]) == 2
        assert told in capsys.readouterr().err
    assert transfer.main([str(folder.with_name("none")), "--config.problem.viscosity=1e-3"]) == 2


def test_the_step_of_the_closed_solver_makes_no_other_data():
    longer = dataclasses.replace(SMALL, solver_dt=0.02)
    assert longer.identity() == SMALL.identity()
    assert longer.solver().dt == 0.02
    assert dataclasses.replace(SMALL, dt=0.005).identity() != SMALL.identity()
