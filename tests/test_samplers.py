"""Every process's sampler for a Gaussian: mean and variance on the whole way, at several step counts, against closed forms.

Let x | c be Normal(m, S^2). The exact drift is then linear in x_tau, and Euler's (Maruyama's) mean and variance obey a scalar
recursion that is written out here by hand, independently of the package; many steps must end in m and S^2 themselves.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.transport import TRANSPORTS, paths

M, S = 0.7, 0.3
CONDITION = -0.4
COUNT = 40_000
INTERPOLANTS = {"flow_matching": (1.0, 0.0), "interpolant_gaussian": (1.0, 1.0), "interpolant_empirical": (0.0, 1.0)}
"""Variance of the source given the condition, and whether there is a Brownian part."""


def interpolant_law(name: str, steps: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Mean and variance before each step and at the end, and (constant, slope) of the drift around its mean at each time."""
    source, brownian = INTERPOLANTS[name]
    start = 0.0 if source else CONDITION
    means, variances, drifts = [start], [source], []
    for k in range(steps):
        tau, h = k / steps, 1 / steps
        variance = (1 - tau) ** 2 * (source + brownian * tau) + tau**2 * S**2
        covariance = tau * S**2 - (1 - tau) * (source + brownian * tau)
        slope = covariance / variance if variance else 0.0
        center, constant = (1 - tau) * start + tau * M, M - start
        drifts.append((constant, slope, center))
        noise = brownian * (1 - tau) ** 2 * h if k < steps - 1 else 0.0
        means.append(means[-1] + h * (constant + slope * (means[-1] - center)))
        variances.append((1 + h * slope) ** 2 * variances[-1] + noise)
    return np.array(means), np.array(variances), drifts


def diffusion_law(path: paths.Diffusion, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for the reverse SDE of a variance-exploding diffusion, times and noise from the published formulas."""

    def std2(t):
        return (30.0 ** (2 * t) - 1) / (2 * np.log(30.0))

    i = np.arange(steps)
    share = i / max(steps - 1, 1)
    if path.spacing == "karras":
        times = (path.t_max ** (1 / 7) + share * (path.t_min ** (1 / 7) - path.t_max ** (1 / 7))) ** 7
    else:
        times = path.t_max + share * (path.t_min - path.t_max)
    times = np.append(times, 0.0)
    means, variances = [0.0], [std2(path.t_max)]
    for k in range(steps):
        h, g2 = times[k] - times[k + 1], 30.0 ** (2 * times[k])
        pull = h * g2 / (S**2 + std2(times[k]))
        means.append(means[-1] + pull * (M - means[-1]))
        variances.append((1 - pull) ** 2 * variances[-1] + (g2 * h if k < steps - 1 else 0.0))
    return np.array(means), np.array(variances)


def check(states: jax.Array, means: np.ndarray, variances: np.ndarray) -> None:
    """Sample moments of (steps + 1, COUNT, 1) within five standard errors, and float32's rounding."""
    states = np.asarray(states, np.float64)[..., 0]
    np.testing.assert_array_less(np.abs(states.mean(axis=1) - means), 5 * np.sqrt(variances / COUNT) + 1e-5)
    np.testing.assert_array_less(
        np.abs(states.var(axis=1) - variances), 5 * variances * np.sqrt(2 / COUNT) + 1e-5 * (1 + variances)
    )


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("name", INTERPOLANTS)
def test_an_interpolants_states_have_the_mean_and_variance_of_the_recursion(name, steps):
    means, variances, drifts = interpolant_law(name, steps)
    constant, slope, center = (jnp.asarray(column) for column in zip(*drifts, strict=True))

    def drift(x, tau):
        k = jnp.round(tau[0] * steps).astype(int)
        return constant[k] + slope[k] * (x - center[k])

    keys = jax.random.split(jax.random.key(1), COUNT)
    condition = jnp.full((COUNT, 1), CONDITION)
    path = TRANSPORTS[name]()
    states = path.trajectory(drift, path.noise(keys, (1,), steps), condition, steps)
    check(states, means, variances)


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
@pytest.mark.parametrize("spacing", paths.SPACINGS)
def test_a_diffusions_states_have_the_mean_and_variance_of_the_recursion(spacing, steps):
    """With a network that puts out the mean of the data, whose target at data_scale = S is the exact score."""
    path = paths.Diffusion(t_max=0.5, spacing=spacing, prediction="data", data_scale=S)
    noise = path.noise(jax.random.split(jax.random.key(2), COUNT), (1,), steps)
    states = path.trajectory(lambda x, tau: jnp.full_like(x, M), noise, jnp.zeros((COUNT, 1)), steps)
    check(states, *diffusion_law(path, steps))


@pytest.mark.parametrize("name", INTERPOLANTS)
def test_many_steps_end_in_the_targets_law(name):
    means, variances, _ = interpolant_law(name, 2000)
    assert means[-1] == pytest.approx(M, abs=1e-3)
    assert variances[-1] == pytest.approx(S**2, rel=0.01)


def test_karras_times_reach_the_targets_variance_with_fewer_steps_than_uniform_ones():
    karras, uniform = (diffusion_law(paths.Diffusion(spacing=name), 50)[1][-1] for name in paths.SPACINGS)
    assert abs(karras / S**2 - 1) < 0.1 < abs(uniform / S**2 - 1)


def test_one_euler_step_of_exact_flow_matching_has_no_spread():
    assert interpolant_law("flow_matching", 1)[1][-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in TRANSPORTS if name not in ("conditional_mean", "mean_flow", "score")]
)
@pytest.mark.slow
def test_a_trajectory_ends_in_the_sample(name):
    path = TRANSPORTS[name]()
    keys, condition = jax.random.split(jax.random.key(0), 8), jnp.ones((8, 3))
    noise = path.noise(keys, (3,), 7)
    states = path.trajectory(lambda x, tau: -x, noise, condition, 7)
    assert states.shape == (8, 8, 3)
    np.testing.assert_allclose(states[-1], path.sample(lambda x, tau: -x, noise, condition, 7), rtol=1e-5, atol=1e-5)


def test_schedules_are_the_transport_under_each_spacing():
    flow_matching, diffusion = paths.FlowMatching(), paths.Diffusion(spacing="uniform")
    assert flow_matching.schedules() == {"uniform": flow_matching}
    schedules = diffusion.schedules()
    assert list(schedules) == ["uniform", "karras"]
    assert schedules["uniform"] == diffusion and schedules["karras"] == paths.Diffusion()
    np.testing.assert_allclose(
        [schedules["uniform"].time(i, 4) for i in range(5)], [1, 0.667, 0.334, 0.001, 0], atol=1e-6
    )


def test_a_diffusion_may_start_elsewhere_in_rollouts():
    assert paths.FlowMatching().in_rollouts() == paths.FlowMatching()
    assert paths.Diffusion(t_max=0.5).in_rollouts().t_max == 0.5
    assert paths.Diffusion(rollout_t_max=0.1).in_rollouts().t_max == 0.1
