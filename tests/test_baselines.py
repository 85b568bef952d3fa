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


def fields(count: int = 3, modes: float = 3.0) -> np.ndarray:
    """Smooth random vorticity, (count, n, n), of modes so low that no product of two or three aliases much."""
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(N, 1 / N)
    shape = (np.abs(k)[:, None] <= modes) & (np.abs(k)[None] <= modes)
    w = np.fft.ifft2(np.fft.fft2(rng.standard_normal((count, N, N))) * shape).real
    return w - w.mean(axis=(1, 2), keepdims=True)


def by_hand(w: np.ndarray) -> dict[str, np.ndarray]:
    """Velocity and derivatives of one field by full complex transforms, one component at a time."""
    k = 2 * np.pi * np.fft.fftfreq(N, LENGTH / N)
    kept = (np.abs(np.fft.fftfreq(N, 1 / N))[:, None] < N / 2) & (np.abs(np.fft.fftfreq(N, 1 / N))[None] < N / 2)
    kx, ky = np.broadcast_arrays(k[:, None], k[None])

    def d(f, *axes):
        f_hat = np.fft.fft2(f) * kept
        for axis in axes:
            f_hat = f_hat * 1j * (kx if axis == "x" else ky)
        return np.fft.ifft2(f_hat).real

    k2 = kx**2 + ky**2
    psi = np.fft.ifft2(np.where(k2 > 0, np.fft.fft2(w) / np.where(k2 > 0, k2, 1), 0)).real
    u, v = d(psi, "y"), -d(psi, "x")
    return {"d": d, "u": u, "v": v, "w": w}


def smagorinsky(h):
    d, u, v = h["d"], h["u"], h["v"]
    gradient = [[d(u, "x"), d(u, "y")], [d(v, "x"), d(v, "y")]]
    s = [[0.5 * (gradient[i][j] + gradient[j][i]) for j in range(2)] for i in range(2)]
    size = np.sqrt(2 * sum(s[i][j] ** 2 for i in range(2) for j in range(2)))
    t = [[2 * WIDTH**2 * size * s[i][j] for j in range(2)] for i in range(2)]
    force = [d(t[0][0], "x") + d(t[0][1], "y"), d(t[1][0], "x") + d(t[1][1], "y")]
    return d(force[1], "x") - d(force[0], "y")


def leith(h):
    d, w = h["d"], h["w"]
    size = np.sqrt(d(w, "x") ** 2 + d(w, "y") ** 2)
    return sum(d(WIDTH**3 * size * d(w, axis), axis) for axis in "xy")


def gradient(h):
    d, w = h["d"], h["w"]
    flux = [sum(d(h[name], axis) * d(w, axis) for axis in "xy") for name in "uv"]
    return -(WIDTH**2) * (d(flux[0], "x") + d(flux[1], "y"))


BY_HAND = {"smagorinsky": smagorinsky, "leith": leith, "gradient": gradient}


class Pairs:
    def __init__(self, vorticity, closure):
        self.vorticity, self.closure = vorticity, closure

    def fields(self, name, split):
        assert split == "train"
        return getattr(self, name)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_closure_is_what_its_tensors_give(x64, name):
    w = fields()
    form = baselines.FORMS[name]
    found = baselines.Static(form, GRID, WIDTH, form.published).mean(jnp.asarray(w))
    for one, made in zip(w, found, strict=True):
        np.testing.assert_allclose(made, form.published * BY_HAND[name](by_hand(one)), atol=1e-11 * np.abs(made).max())


def test_eddy_viscosities_take_energy_or_enstrophy_and_the_gradient_model_gives_some_back(x64):
    w = jnp.asarray(fields(8))
    psi = spectral.to_physical(
        -spectral.to_fourier(w) / np.where(spectral.laplacian(GRID) < 0, spectral.laplacian(GRID), -np.inf)
    )
    smag, lei, grad = (baselines.Static(form, GRID, WIDTH, form.published).mean(w) for form in baselines.FORMS.values())
    s11, s12 = baselines.strain(w, GRID)
    taken = 0.17**2 * WIDTH**2 * 8 * jnp.mean((s11**2 + s12**2) ** 1.5, axis=(1, 2))
    np.testing.assert_allclose(
        jnp.mean(psi * smag, axis=(1, 2)), -taken, rtol=1e-3
    )  # what the stress does on the strain
    assert (jnp.mean(w * lei, axis=(1, 2)) < 0).all()
    assert (w * grad > 0).any() and (w * grad < 0).any()


@pytest.mark.parametrize("name", ["smagorinsky", "leith"])
def test_a_dynamic_coefficient_is_the_least_squares_one_of_each_state(x64, name):
    w, form = fields(16), baselines.FORMS[name]
    closure = baselines.Dynamic(form, GRID, WIDTH, 1.5 * WIDTH)
    transfer = np.exp(
        -3 * (1.5 * WIDTH) ** 2 / 24 * sum(k**2 for k in np.meshgrid(*[np.fft.fftfreq(N, 1 / N)] * 2, indexing="ij"))
    )

    def low(f):
        return np.fft.ifft2(np.fft.fft2(f) * transfer).real

    def flux(h, width):
        d = h["d"]
        if name == "leith":
            size = np.sqrt(d(h["w"], "x") ** 2 + d(h["w"], "y") ** 2)
            return np.array([width**3 * size * d(h["w"], axis) for axis in "xy"])
        a, b = d(h["u"], "x"), 0.5 * (d(h["u"], "y") + d(h["v"], "x"))
        return np.array([2 * width**2 * 2 * np.sqrt(a**2 + b**2) * part for part in (a, b)])

    for one, found in zip(w, closure.coefficient(jnp.asarray(w)), strict=True):
        h = by_hand(one)
        u, v = h["u"], h["v"]
        if name == "leith":
            seen = -np.array([low(c * one) - low(c) * low(one) for c in (u, v)])
        else:
            stress = {
                pair: low(a * b) - low(a) * low(b)
                for pair, (a, b) in {"uu": (u, u), "uv": (u, v), "vv": (v, v)}.items()
            }
            seen = -np.array([0.5 * (stress["uu"] - stress["vv"]), stress["uv"]])
        model = flux(by_hand(low(one)), 2 * WIDTH) - np.array([low(part) for part in flux(h, WIDTH)])
        trial = np.linspace(0, 2 * float(found) + 1e-3, 2001)
        errors = [np.sum((seen - c * model) ** 2) for c in trial]
        assert abs(trial[int(np.argmin(errors))] - float(found)) <= trial[1]
    assert (closure.coefficient(jnp.asarray(w)) > 0).sum() in range(1, 16)  # of random fields some are cut at 0
    np.testing.assert_allclose(
        closure.mean(jnp.asarray(w)),
        np.asarray(closure.coefficient(jnp.asarray(w)))[:, None, None]
        * np.stack([BY_HAND[name](by_hand(one)) for one in w]),
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
        d, u, v = h["d"], h["u"], h["v"]
        lap = lambda f, d=d: d(f, "x", "x") + d(f, "y", "y")  # noqa: E731
        size = 2 * np.sqrt(d(u, "x") ** 2 + (0.5 * (d(u, "y") + d(v, "x"))) ** 2)
        np.testing.assert_allclose(taken, -lap(0.3 * WIDTH**4 * size * lap(one)), atol=1e-9)
        k2 = sum(k**2 for k in np.meshgrid(*[2 * np.pi * np.fft.fftfreq(N, LENGTH / N)] * 2, indexing="ij"))
        psi = np.fft.ifft2(np.fft.fft2(one) / -np.where(k2 > 0, k2, np.inf)).real  # lap psi = w
        np.testing.assert_allclose(found, taken - 0.8 * np.mean(psi * taken) / np.mean(one**2) * lap(one), atol=1e-9)
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
    for name, draw in draws.items():
        noise = jax.tree.map(jnp.zeros_like, draw.noise(keys, w))
        assert (not jax.tree.leaves(noise)) != name.endswith("_ar1")
        made = jax.jit(lambda noise, w, draw=draw: draw.draw(noise, w))(noise, w)
        np.testing.assert_allclose(made, draw.mean(w), rtol=1e-4, atol=1e-4 * np.abs(made).max())
        assert made.shape == w.shape and np.isfinite(jax.grad(lambda w, draw=draw: draw.mean(w).sum())(w)).all(), name


def test_noise_has_the_spectrum_of_what_a_closure_misses():
    rng = np.random.default_rng(3)
    shape = np.exp(-np.abs(np.fft.fftfreq(N, 1 / N))[:, None]) * np.exp(-0.3 * np.arange(N // 2 + 1))
    missed = np.fft.irfft2(shape * np.fft.rfft2(rng.standard_normal((600, N, N))))
    closure = baselines.Static(baselines.FORMS["leith"], GRID, WIDTH, 0.1)
    w = np.tile(fields(3), (200, 1, 1)).astype(np.float32)
    noisy = baselines.with_residual(closure, Pairs(w, np.asarray(closure.mean(jnp.asarray(w))) + missed))
    noise = noisy.noise(jax.random.split(jax.random.key(0), 600), jnp.asarray(w))
    drawn = np.asarray(noisy.draw(noise, jnp.asarray(w)) - closure.mean(jnp.asarray(w)))
    found, true = (np.mean(np.abs(np.fft.rfft2(field)) ** 2, axis=0) for field in (drawn, missed))
    np.testing.assert_allclose(found, true, rtol=0.35)  # 600 fields: 4 % each, and 6 % of the real modes, of both
    assert abs(drawn.std() / missed.std() - 1) < 0.01
    twice = noisy.draw(2 * noise, jnp.asarray(w)) - closure.mean(jnp.asarray(w))
    np.testing.assert_allclose(twice, 2 * drawn, rtol=1e-3, atol=1e-4)  # linear in its noise, as it says
