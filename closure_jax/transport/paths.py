"""Paths between a source z and data x: what is in transit at transport time tau, what a network regresses on, how to sample.

Flow matching and interpolants, from tau = 0 to 1, see `Interpolant`:

    x_tau = alpha z + beta x + gamma W_tau,       W_tau = sqrt(tau) n,   n standard normal
    target = alpha' z + beta' x + gamma' W_tau
    dx = b(x, tau) dtau + gamma dW                with b = E[target | x_tau]

Diffusion, from tau = t_max down to 0 (Song et al. 2021):

    x_tau = x + std n,   target = -n / std,   std^2 = (sigma^(2 tau) - 1) / (2 ln sigma),   g = sigma^tau
    dx = -g^2 score dtau + g dW                   with score = E[target | x_tau]

Leading axis is the batch; tau is (batch,).
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from closure_jax.errors import check, positive
from closure_jax.transport.base import Field, Steps
from closure_jax.transport.regression import Regression, Tau, expand, fixed_noise

SPACINGS = ("karras", "uniform")
"""Spacings of a diffusion's sampler times."""


@dataclasses.dataclass(frozen=True)
class Interpolant(Regression):
    """x_tau = alpha z + beta x + gamma W_tau; straight, alpha = 1 - tau and beta = tau, unless a subclass overrides them.

    alpha is 1 at tau = 0 and 0 at tau = 1, beta the reverse. gamma is alpha on a stochastic path, else 0.

    Raises:
      UserError: a subclass does not lead from the source to the data; or prediction = data and gamma is neither 0 nor alpha, so
        that the target does not follow from the data.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(getattr(type(self), share) is not getattr(Interpolant, share) for share in ("alpha", "beta", "gamma")):
            self._check_shares()

    def alpha(self, tau: Tau) -> Tau:
        """Share of the source."""
        return 1.0 - tau

    def beta(self, tau: Tau) -> Tau:
        """Share of the data."""
        return tau

    def gamma(self, tau: Tau) -> Tau:
        """Factor of the Brownian part; also the diffusion coefficient of the sampler."""
        return self.alpha(tau) if self.stochastic else 0.0 * tau

    def diffusion(self, tau: Tau) -> Tau:
        """gamma."""
        return self.gamma(tau)

    def in_transit(
        self, z: Float[Array, " *shape"], x: Float[Array, " *shape"], normal: Float[Array, " *shape"], tau: Tau
    ) -> tuple[Float[Array, " *shape"], Float[Array, " *shape"]]:
        """(x_tau, target) of one example; `normal` is W_tau / sqrt(tau)."""
        x_tau = self.alpha(tau) * z + self.beta(tau) * x
        target = jax.grad(self.alpha)(tau) * z + jax.grad(self.beta)(tau) * x
        if self.stochastic:
            wiener = jnp.sqrt(tau) * normal
            x_tau, target = x_tau + self.gamma(tau) * wiener, target + jax.grad(self.gamma)(tau) * wiener
        return x_tau, target

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """E[x | condition] from the target at tau = 0, where x_tau is the source and says nothing of x: alpha' z + beta' E[x].

        It is the same for every z, so that one fixed draw serves.
        """
        z = self.source(fixed_noise(condition), condition)
        tau = jnp.zeros(len(condition), condition.dtype)
        slopes = jax.grad(self.alpha)(0.0), jax.grad(self.beta)(0.0)
        return (self.target(field, z, tau) - slopes[0] * z) / slopes[1]

    def target_from_data(
        self, data: Float[Array, " batch *shape"], x_tau: Float[Array, " batch *shape"], tau: Tau
    ) -> Float[Array, " batch *shape"]:
        """The target that a guess of the data stands for, preconditioned so that errors stay bounded (after Karras et al. 2022).

        Let gamma be 0 or alpha, and N = z or z + W_tau. Then x_tau = alpha N + beta x and target = alpha' N + beta' x, so that

            target = alpha' / alpha x_tau + (beta' - alpha' beta / alpha) x,                          (1)

        singular where alpha = 0. The guess of x is therefore taken as a mean of `data` and x_tau / beta with weights alpha^2 and
        scale^2 beta^2, where scale = `data_scale`:

            E[x | x_tau] = (alpha^2 data + scale^2 beta x_tau) / D,       D = alpha^2 + scale^2 beta^2,

        which is exact where gamma = 0, z is standard normal and x is Normal(data, scale^2). In (1) this gives

            target = [(alpha' alpha + scale^2 beta' beta) x_tau + alpha (beta' alpha - alpha' beta) data] / D,

        in which nothing is singular.
        """
        tau, scale = expand(tau, x_tau), self.data_scale
        alpha, alpha_slope = _value_and_slope(self.alpha, tau)
        beta, beta_slope = _value_and_slope(self.beta, tau)
        width = alpha**2 + scale**2 * beta**2
        of_state = (alpha_slope * alpha + scale**2 * beta_slope * beta) / width
        of_data = alpha * (beta_slope * alpha - alpha_slope * beta) / width
        return of_state * x_tau + of_data * data

    def _check_shares(self) -> None:
        """Refuses, by the values at some times from 0 to 1, shares that make no path, or no target from a guess of the data."""
        with jax.ensure_compile_time_eval():
            tau = jnp.linspace(0.0, 1.0, 9)
            alpha, beta, gamma = (
                np.asarray(jnp.broadcast_to(share(tau), tau.shape)) for share in (self.alpha, self.beta, self.gamma)
            )
        name = type(self).__name__
        ends = [alpha[0], alpha[-1], beta[0], beta[-1], gamma[-1]]
        check(
            np.allclose(ends, [1, 0, 0, 1, 0], atol=1e-5),
            f"{name}: expected alpha to go from 1 to 0, beta from 0 to 1 and gamma to 0 as tau goes from 0 to 1",
        )
        none, same = np.allclose(gamma, 0.0, atol=1e-6), np.allclose(gamma, alpha, rtol=1e-5, atol=1e-6)
        check(
            self.stochastic or none, f"{name}.gamma: expected 0 on a path of an ODE; for an SDE set stochastic = True"
        )
        follows = none or same or type(self).target_from_data is not Interpolant.target_from_data
        check(
            self.prediction != "data" or follows,
            f"prediction=data: expected target, since gamma of {name} is neither 0 nor alpha and its target does not follow from"
            " the data",
        )


def _value_and_slope(share: Callable[[Tau], Tau], tau: Float[Array, "..."]) -> tuple[jax.Array, jax.Array]:
    """A share of the path and its derivative, at each of the times."""
    value, slope = jax.vmap(jax.value_and_grad(share))(tau.reshape(-1))
    return value.reshape(tau.shape), slope.reshape(tau.shape)


@dataclasses.dataclass(frozen=True)
class FlowMatching(Interpolant):
    """From Gaussian noise by an ODE, gamma = 0 (Lipman et al. 2023).

    Rectified (Liu et al. 2023, arXiv 2209.03003), it learns again from pairs of a noise and the sample that the flow before made
    of it. Such pairs cross less than independent ones, so that paths are straighter, and one step keeps more of the spread.

    Attributes:
      rectify: how many times the network is trained again, each time as long as at first, on pairs that it drew before.
      rectify_steps: sampler steps of those draws.
    """

    rectify: int = 0
    rectify_steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.rectify <= 100, f"rectify={self.rectify}: expected a whole number from 0 to 100")
        positive(self, "rectify_steps")

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """See `Interpolant.mean`; None where the flow is rectified: its first step then depends on the noise."""
        return None if self.rectify else super().mean(field, condition)


@dataclasses.dataclass(frozen=True)
class InterpolantGaussian(Interpolant):
    """From Gaussian noise by an SDE, gamma = alpha (arXiv 2602.17089, after Chen et al. 2024)."""

    stochastic: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class InterpolantEmpirical(Interpolant):
    """From the condition by an SDE, gamma = alpha (arXiv 2602.17089, after Chen et al. 2024)."""

    stochastic: ClassVar[bool] = True
    from_condition: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Diffusion(Regression):
    """Variance-exploding diffusion, sampled by the reverse SDE on times that end at 0 (Song et al. 2021).

    Attributes:
      sigma: growth of the noise; published 30.
      t_max: where sampling starts. It belongs to the scale of the field: std(t_max) must exceed the field's deviation.
      t_min, rho: last of the times before the final 0, and the exponent of the Karras times.
      spacing: "karras" (published) or "uniform" times.
      t_train: training draws transport times from t_min up to here; published 1.
      rollout_t_max: where sampling starts in coupled rollouts; 0: at t_max.
    """

    sigma: float = 30.0
    t_max: float = 1.0
    t_min: float = 1e-3
    rho: float = 7.0
    spacing: str = "karras"
    t_train: float = 1.0
    rollout_t_max: float = 0.0

    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sigma > 1, f"sigma={self.sigma}: expected a number above 1")
        check(self.rho > 0, f"rho={self.rho}: expected a number above 0")
        spacings = ", ".join(sorted(SPACINGS))
        check(self.spacing in SPACINGS, f"spacing={self.spacing}: expected one of {spacings}")
        check(self.t_min > 0, f"t_min={self.t_min}: expected a time above 0")
        between = f"expected a time above t_min = {self.t_min}, up to t_train = {self.t_train}"
        check(self.t_min < self.t_max <= self.t_train, f"t_max={self.t_max}: {between}")
        check(
            self.rollout_t_max == 0 or self.t_min < self.rollout_t_max <= self.t_train,
            f"rollout_t_max={self.rollout_t_max}: {between}, or 0 for t_max",
        )

    def schedules(self) -> dict[str, Regression]:
        """Karras and uniform times, those in use first."""
        names = sorted(SPACINGS, key=lambda name: name != self.spacing)
        return {name: dataclasses.replace(self, spacing=name) for name in names}

    def in_rollouts(self) -> "Regression":
        """The same, started at `rollout_t_max` where that is not 0."""
        return dataclasses.replace(self, t_max=self.rollout_t_max or self.t_max)

    @property
    def training_range(self) -> tuple[float, float]:
        """Transport times that training draws from, uniformly."""
        return self.t_min, self.t_train

    def std(self, tau: Tau) -> Float[Array, "..."]:
        """Deviation of the noise in x_tau."""
        return jnp.sqrt((self.sigma ** (2 * tau) - 1) / (2 * jnp.log(self.sigma)))

    def time(self, index: Steps, steps: Steps) -> Float[Array, ""]:
        """`steps` times from t_max to t_min, then 0: Karras et al. 2022, or evenly spaced.

        Without that 0 the noise of t_min stays in the sample: 1.87 times the closure's deviation s in physical units. With it,
        the last step draws to the mean: in the limit of many steps s^2 / sqrt(s^2 + std(t_min)^2), 0.53 s there.
        """
        share = index / jnp.maximum(steps - 1, 1)
        rho = self.rho if self.spacing == "karras" else 1.0
        first, last = self.t_max ** (1 / rho), self.t_min ** (1 / rho)
        return jnp.where(index < steps, (first + share * (last - first)) ** rho, 0.0)

    def weight(self, tau: Tau) -> Float[Array, "..."]:
        """std^2."""
        return self.std(tau) ** 2

    def diffusion(self, tau: Tau) -> Tau:
        """g = sigma^tau."""
        return self.sigma**tau

    def velocity(self, target: Float[Array, " batch *shape"], tau: Tau) -> Float[Array, " batch *shape"]:
        """-g^2 score."""
        return -expand(self.diffusion(tau) ** 2, target) * target

    def source(self, normal: Float[Array, " *shape"], condition: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """std(t_max) times standard normal."""
        return self.std(self.t_max) * normal

    def in_transit(
        self, z: Float[Array, " *shape"], x: Float[Array, " *shape"], normal: Float[Array, " *shape"], tau: Tau
    ) -> tuple[Float[Array, " *shape"], Float[Array, " *shape"]]:
        """(x_tau, target) of one example; the source takes no part."""
        std = self.std(tau)
        return x + std * normal, -normal / std

    def network_input(self, x_tau: Float[Array, " batch *shape"], tau: Tau) -> Float[Array, " batch *shape"]:
        """x_tau scaled to variance of order 1: the noise alone reaches 11 at tau = 1."""
        return x_tau / expand(jnp.sqrt(1 + self.std(tau) ** 2), x_tau)

    def target_from_output(
        self, output: Float[Array, " batch *shape"], x_tau: Float[Array, " batch *shape"], tau: Tau
    ) -> Float[Array, " batch *shape"]:
        """As for any path; a predicted target is the output over std, so that the output is of order 1."""
        if self.prediction == "target":
            return output / expand(self.std(tau), output)
        return self.target_from_data(output, x_tau, tau)

    def target_from_data(
        self, data: Float[Array, " batch *shape"], x_tau: Float[Array, " batch *shape"], tau: Tau
    ) -> Float[Array, " batch *shape"]:
        """(data - x_tau) / (data_scale^2 + std^2): the score of Normal(data, data_scale^2 + std^2)."""
        return (data - x_tau) / expand(self.data_scale**2 + self.std(tau) ** 2, x_tau)
