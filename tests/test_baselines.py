"""Classical closures against tensors worked out one by one in double precision, and the signs of what they do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.physics import spectral
from closure_jax.problems import baselines

N, LENGTH = 24, 2 * np.pi
GRID = spectral.make_grid(N, LENGTH)
WIDTH = 2 * LENGTH / N


def fields(count: int = 3, modes: float = N / 2 - 1) -> np.ndarray:
    """Random vorticity with all modes that the grid holds but those at half of its points, (count, n, n)."""
    rng = np.random.default_rng(0)
    k = np.abs(np.fft.fftfreq(N, 1 / N))
    shape = ((k[:, None] <= modes) & (k[None] <= modes)) / (1 + k[:, None] ** 2 + k[None] ** 2)
    w = np.fft.ifft2(np.fft.fft2(rng.standard_normal((count, N, N))) * shape).real
    return 20 * (w - w.mean(axis=(1, 2), keepdims=True))


INDEX = np.arange(-(N // 2) + 1, N // 2)  # of the modes that are kept
KEPT = np.ix_(INDEX, INDEX)


def by_hand(w: np.ndarray, points: int = 3 * N // 2) -> dict[str, np.ndarray]:
    """Velocity and derivatives of one field at points^2 points by full complex transforms, one component at a time, and `cut`,
    which leaves of a product what the grid holds."""
    k = 2 * np.pi * np.fft.fftfreq(points, LENGTH / points)
    kx, ky = np.broadcast_arrays(k[:, None], k[None])

    def d(f, *axes):
        f_hat = np.fft.fft2(f)
        for axis in axes:
            f_hat = f_hat * 1j * (kx if axis == "x" else ky)
        return np.fft.ifft2(f_hat).real

    def moved(f, size):
        f_hat = np.zeros((size, size), complex)
        f_hat[KEPT] = np.fft.fft2(f)[KEPT] * (size / len(f)) ** 2
        return np.fft.ifft2(f_hat).real

    w = moved(w, points)
    k2 = kx**2 + ky**2
    psi = np.fft.ifft2(np.where(k2 > 0, np.fft.fft2(w) / np.where(k2 > 0, k2, 1), 0)).real
    return {"d": d, "u": d(psi, "y"), "v": -d(psi, "x"), "w": w, "cut": lambda f: moved(f, N)}


def strain_rate(h):
    d, velocity = h["d"], (h["u"], h["v"])
    s = [[0.5 * (d(velocity[i], "xy"[j]) + d(velocity[j], "xy"[i])) for j in range(2)] for i in range(2)]
    return np.sqrt(2 * sum(s[i][j] ** 2 for i in range(2) for j in range(2)))


def smagorinsky(h, width=WIDTH):
    return [width**2 * strain_rate(h) * h["d"](h["w"], axis) for axis in "xy"]


def leith(h, width=WIDTH):
    slope = [h["d"](h["w"], axis) for axis in "xy"]
    return [width**3 * np.sqrt(slope[0] ** 2 + slope[1] ** 2) * one for one in slope]


def gradient(h):
    d = h["d"]
    return [-(WIDTH**2) * sum(d(h[name], axis) * d(h["w"], axis) for axis in "xy") for name in "uv"]


BY_HAND = {"smagorinsky": smagorinsky, "leith": leith, "gradient": gradient}


def added(name, h):
    """div of the flux, on the grid."""
    return h["cut"](sum(h["d"](one, axis) for one, axis in zip(BY_HAND[name](h), "xy", strict=True)))


class Pairs:
    def __init__(self, vorticity, closure):
        self.vorticity, self.closure = vorticity, closure

    def fields(self, name, split):
        assert split == "train"
        return getattr(self, name)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_closure_is_what_its_tensors_give(x64, name):
    """Up to the smallest scales; of two factors whatever the points are at which the product is formed, so without aliasing."""
    w, form = fields(), baselines.FORMS[name]
    found = baselines.Static(form, GRID, WIDTH, form.published).mean(jnp.asarray(w))
    for one, made in zip(w, found, strict=True):
        true = form.published * added(name, by_hand(one, 2 * N if name == "gradient" else 3 * N // 2))
        np.testing.assert_allclose(made, true, atol=1e-11 * np.abs(made).max())


def test_eddy_viscosities_take_enstrophy_and_the_gradient_model_gives_back_what_it_takes_from_the_opposite(x64):
    w = jnp.asarray(fields(8))
    closures = {name: baselines.Static(form, GRID, WIDTH, form.published) for name, form in baselines.FORMS.items()}

    def taken(name, w):
        return np.asarray(-jnp.mean(w * closures[name].mean(w), axis=(1, 2)))

    for name in ("smagorinsky", "leith"):
        for one, found in zip(w, taken(name, w), strict=True):
            h = by_hand(np.asarray(one))
            slope = zip(BY_HAND[name](h), "xy", strict=True)
            true = baselines.FORMS[name].published * np.mean(sum(flux * h["d"](h["w"], axis) for flux, axis in slope))
            assert found == pytest.approx(true, rel=1e-10) and found > 0
    np.testing.assert_allclose(taken("gradient", -w), -taken("gradient", w), rtol=1e-9)
    assert (np.abs(taken("gradient", w)) > 1e-3 * taken("leith", w)).all()


@pytest.mark.parametrize("name", ["smagorinsky", "leith"])
def test_a_dynamic_coefficient_is_the_least_squares_one_of_each_state(x64, name):
    w, form = fields(16), baselines.FORMS[name]
    closure = baselines.Dynamic(form, GRID, WIDTH, 1.5 * WIDTH)
    transfer = np.exp(
        -3 * (1.5 * WIDTH) ** 2 / 24 * sum(k**2 for k in np.meshgrid(*[np.fft.fftfreq(N, 1 / N)] * 2, indexing="ij"))
    )

    def low(f):
        return np.fft.ifft2(np.fft.fft2(f) * transfer).real

    def transport(h):
        return [h["cut"](h[name] * h["w"]) for name in "uv"]

    for one, found in zip(w, closure.unlimited(jnp.asarray(w)), strict=True):
        here, wide = by_hand(one), by_hand(low(one))
        seen = np.array([a - low(b) for a, b in zip(transport(wide), transport(here), strict=True)])
        fluxes = zip(BY_HAND[name](wide, 2 * WIDTH), BY_HAND[name](here), strict=True)
        model = np.array([here["cut"](a) - low(here["cut"](b)) for a, b in fluxes])
        trial = float(found) + (abs(float(found)) + 1e-3) * np.linspace(-1, 1, 2001)
        errors = [np.sum((seen - c * model) ** 2) for c in trial]
        assert int(np.argmin(errors)) == 1000
    best, cut = (np.asarray(of(jnp.asarray(w))) for of in (closure.unlimited, closure.coefficient))
    np.testing.assert_array_equal(cut, np.maximum(best, 0))
    assert (best < 0).any() and (best > 0).any()  # of random fields some are cut at 0
    np.testing.assert_allclose(
        closure.mean(jnp.asarray(w)),
        cut[:, None, None] * np.stack([added(name, by_hand(one)) for one in w]),
        atol=1e-10,
    )


def test_backscatter_takes_enstrophy_and_returns_the_energy(x64):
    w = fields(4)
    closure = baselines.Backscatter(GRID, WIDTH, 0.3, returned=0.8)
    made, alone = (
        np.asarray(one.mean(jnp.asarray(w))) for one in (closure, dataclasses.replace(closure, returned=0.0))
    )
    for one, found, taken in zip(w, made, alone, strict=True):
        h = by_hand(one)
        d, fine = h["d"], h["w"]
        lap = lambda f, d=d: d(f, "x", "x") + d(f, "y", "y")  # noqa: E731
        drawn = 0.3 * WIDTH**4 * h["cut"](-lap(strain_rate(h) * lap(fine)))
        np.testing.assert_allclose(taken, drawn, atol=1e-11 * np.abs(drawn).max())
        k2 = sum(k**2 for k in np.meshgrid(*[2 * np.pi * np.fft.fftfreq(N, LENGTH / N)] * 2, indexing="ij"))
        psi = np.fft.ifft2(np.fft.fft2(one) / -np.where(k2 > 0, k2, np.inf)).real  # lap psi = w
        back = 0.8 * np.mean(psi * taken) / np.mean(one**2) * h["cut"](lap(fine))
        np.testing.assert_allclose(found, taken - back, atol=1e-11 * np.abs(drawn).max())
        # dE/dt = -<psi closure>, of which a fifth is left; the enstrophy goes down all the same
        assert -np.mean(psi * taken) < 0
        assert np.mean(psi * found) == pytest.approx(0.2 * np.mean(psi * taken), rel=1e-6)
        assert np.mean(one * taken) < np.mean(one * found) < 0


def test_a_fitted_coefficient_is_found_again(x64, monkeypatch):
    monkeypatch.setattr(baselines, "_BLOCK", 2)
    w, unit = fields(5), baselines.Static(baselines.FORMS["leith"], GRID, WIDTH, 1.0)
    true = np.asarray(dataclasses.replace(unit, coefficient=0.3).mean(jnp.asarray(w)))
    noise = np.random.default_rng(1).standard_normal(true.shape)
    noise -= true * np.sum(noise * true) / np.sum(true * true)
    assert baselines.fitted(unit, Pairs(w, true + noise)).coefficient == pytest.approx(0.3)
    assert baselines.fitted(unit, Pairs(w, -true)).coefficient == 0


@pytest.mark.slow
def test_closures_are_draws_that_run_under_jit_and_differentiate():
    w = jnp.asarray(fields(4), jnp.float32)
    draws = baselines.classical(GRID, WIDTH, Pairs(np.asarray(w), np.asarray(w)))
    assert list(draws) == [
        *("smagorinsky", "smagorinsky_fitted", "dynamic_smagorinsky"),
        *("leith", "leith_fitted", "dynamic_leith", "gradient", "gradient_fitted"),
        *("backscatter", "backscatter_fitted"),
        *(f"{name}_ar1" for name in ("smagorinsky_fitted", "dynamic_smagorinsky", "leith_fitted", "dynamic_leith")),
        *("gradient_fitted_ar1", "backscatter_fitted_ar1"),
    ]
    keys = jax.random.split(jax.random.key(0), 4)
    noises = {name: jax.tree.map(jnp.zeros_like, draw.noise(keys, w)) for name, draw in draws.items()}

    @jax.jit
    def found(noises, w):
        made = {name: draw.draw(noises[name], w) for name, draw in draws.items()}
        means = {name: draw.mean(w) for name, draw in draws.items()}
        return made, means, jax.grad(lambda w: sum((draw.mean(w) ** 2).sum() for draw in draws.values()))(w)

    made, means, gradient = found(noises, w)
    assert np.isfinite(gradient).all()
    for name, mean in means.items():
        assert (not jax.tree.leaves(noises[name])) != name.endswith("_ar1")
        np.testing.assert_allclose(made[name], mean, rtol=1e-4, atol=1e-4 * np.abs(mean).max(), err_msg=name)
        assert mean.shape == w.shape and np.isfinite(mean).all()


def test_noise_has_the_spectrum_of_what_a_closure_misses():
    rng = np.random.default_rng(3)
    shape = np.exp(-np.abs(np.fft.fftfreq(N, 1 / N))[:, None]) * np.exp(-0.3 * np.arange(N // 2 + 1))
    missed = np.fft.irfft2(shape * np.fft.rfft2(rng.standard_normal((600, N, N))))
    closure = baselines.Static(baselines.FORMS["leith"], GRID, WIDTH, 0.1)
    w = np.tile(fields(3) / 20, (200, 1, 1)).astype(np.float32)  # so small that rounding is far below the noise
    noisy = baselines.with_residual(closure, Pairs(w, np.asarray(closure.mean(jnp.asarray(w))) + missed))
    noise = noisy.noise(jax.random.split(jax.random.key(0), 600), jnp.asarray(w))
    drawn = np.asarray(noisy.draw(noise, jnp.asarray(w)) - closure.mean(jnp.asarray(w)))
    found, true = (np.mean(np.abs(np.fft.rfft2(field)) ** 2, axis=0) for field in (drawn, missed))
    np.testing.assert_allclose(found, true, rtol=0.35)  # 600 fields: 4 % each, and 6 % of the real modes, of both
    assert abs(drawn.std() / missed.std() - 1) < 0.01
    twice = noisy.draw(2 * noise, jnp.asarray(w)) - closure.mean(jnp.asarray(w))
    np.testing.assert_allclose(twice, 2 * drawn, rtol=1e-3, atol=1e-4)  # linear in its noise, as it says
