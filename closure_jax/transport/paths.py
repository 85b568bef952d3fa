"""Paths from a source z to a target x: what is in transit at transport time tau, what a network regresses on, how to sample.

Flow matching and interpolants, from tau = 0 to 1:

    x_tau = alpha z + beta x + gamma W_tau,       W_tau = sqrt(tau) n,   n standard normal
    target = alpha' z + beta' x + gamma' W_tau
    dx = b(x, tau) dtau + gamma dW                with b = E[target | x_tau]

alpha = 1 - tau and beta = tau throughout; gamma = 0 is flow matching (Lipman et al. 2023), gamma = 1 - tau the stochastic
interpolants of arXiv 2602.17089 (after Chen et al. 2024). Diffusion, from tau = t_max down to 0 (Song et al. 2021):

    x_tau = x + std n,   target = -n / std,   std^2 = (sigma^(2 tau) - 1) / (2 ln sigma),   g = sigma^tau
    dx = -g^2 score dtau + g dW                   with score = E[target | x_tau]

Leading axis is the batch; tau is (batch,).
"""

import dataclasses

import jax
import jax.numpy as jnp

from closure_jax import random


def _expand(tau: jax.Array, like: jax.Array) -> jax.Array:
    return tau.reshape(tau.shape + (1,) * (like.ndim - tau.ndim))


@dataclasses.dataclass(frozen=True)
class Path:
    """A straight path with or without a Brownian part; override alpha, beta and gamma for another.

    Attributes:
      stochastic: gamma = 1 - tau instead of 0; the sampler is then an SDE.
      from_condition: the source is the condition itself instead of Gaussian noise.
      data_scale: deviation of the data around a network's guess of them, see `target_from_data`.
    """

    stochastic: bool = False
    from_condition: bool = False
    data_scale: float = 0.4

    training_range = (0.0, 1.0)
    """Transport times that training draws from, uniformly."""

    schedules = ("uniform",)
    """How the sampler's times may be spaced, the one in use first; `with_schedule` takes another."""

    def with_schedule(self, schedule: str) -> "Path":
        """The same path with its sampler's times spaced so."""
        if schedule not in self.schedules:
            raise ValueError(f"schedule '{schedule}': expected one of {', '.join(self.schedules)}")
        return self

    def time(self, index: jax.Array, steps: jax.Array | int) -> jax.Array:
        """The sampler's time before step `index` of `steps`; its end for index = steps."""
        return index / steps

    def weight(self, tau: jax.Array) -> jax.Array:
        """Weight of the squared error at tau."""
        return jnp.ones_like(tau)

    def velocity(self, target: jax.Array, tau: jax.Array) -> jax.Array:
        """dx / dtau of the sampler, without its noise, from the expected target."""
        return target

    def network_input(self, x_tau: jax.Array, tau: jax.Array) -> jax.Array:
        """What the network sees of x_tau."""
        return x_tau

    def target_from_output(self, output: jax.Array, x_tau: jax.Array, tau: jax.Array, prediction: str) -> jax.Array:
        """The expected target that a network's output stands for; see PREDICTIONS."""
        return output if prediction == "target" else self.target_from_data(output, x_tau, tau)

    def alpha(self, tau: jax.Array) -> jax.Array:
        """Share of the source, 1 at tau = 0."""
        return 1.0 - tau

    def beta(self, tau: jax.Array) -> jax.Array:
        """Share of the target, 1 at tau = 1."""
        return tau

    def gamma(self, tau: jax.Array) -> jax.Array:
        """Factor of the Brownian part; also the diffusion coefficient of the sampler."""
        return 1.0 - tau if self.stochastic else 0.0 * tau

    def source(self, key: jax.Array, condition: jax.Array) -> jax.Array:
        """One draw of z for one example, shape of `condition`."""
        return condition if self.from_condition else random.normal(key, condition.shape, condition.dtype)

    def in_transit(self, key: jax.Array, z: jax.Array, x: jax.Array, tau: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x_tau, target) of one example; `tau` is a scalar."""
        parts = [(self.alpha, z), (self.beta, x)]
        if self.stochastic:
            parts.append((self.gamma, jnp.sqrt(tau) * random.normal(key, x.shape, x.dtype)))
        x_tau = sum(share(tau) * part for share, part in parts)
        return x_tau, sum(jax.grad(share)(tau) * part for share, part in parts)

    def target_from_data(self, data: jax.Array, x_tau: jax.Array, tau: jax.Array) -> jax.Array:
        """The target that a network's guess of the data stands for, preconditioned so that errors stay bounded.

        On every path here target = (x - x_tau) / (1 - tau), singular at tau = 1. The guess of x is therefore taken as a mean
        of `data` and x_tau / tau with the weights of a Gaussian of deviation scale = `data_scale` (after Karras et al. 2022):

            target = [scale^2 tau - (1 - tau)] / D x_tau + (1 - tau) / D data,    D = scale^2 tau^2 + (1 - tau)^2
        """
        tau, scale = _expand(tau, x_tau), self.data_scale
        width = scale**2 * tau**2 + (1 - tau) ** 2
        return (scale**2 * tau - (1 - tau)) / width * x_tau + (1 - tau) / width * data


@dataclasses.dataclass(frozen=True)
class Diffusion(Path):
    """Variance-exploding diffusion, sampled by the reverse SDE on Karras times that end at 0.

    Attributes:
      sigma: growth of the noise; published 30.
      t_max: where sampling starts. It belongs to the scale of the field: std(t_max) must exceed the field's deviation.
      t_min, rho: last of the times before the final 0, and the exponent of the Karras times.
      schedule: "karras" (published) or "uniform" times.
      t_train: training draws transport times up to here; published 1.
    """

    stochastic: bool = True
    sigma: float = 30.0
    t_max: float = 1.0
    t_min: float = 1e-3
    rho: float = 7.0
    schedule: str = "karras"
    t_train: float = 1.0

    @property
    def schedules(self) -> tuple[str, ...]:
        """Both spacings, the one in use first."""
        return tuple(sorted(SCHEDULES, key=lambda name: name != self.schedule))

    def with_schedule(self, schedule: str) -> "Diffusion":
        """The same diffusion with its sampler's times spaced so."""
        return dataclasses.replace(self, schedule=schedule)

    @property
    def training_range(self) -> tuple[float, float]:
        """Transport times that training draws from, uniformly."""
        return self.t_min, self.t_train

    def std(self, tau: jax.Array) -> jax.Array:
        """Deviation of the noise in x_tau."""
        return jnp.sqrt((self.sigma ** (2 * tau) - 1) / (2 * jnp.log(self.sigma)))

    def time(self, index: jax.Array, steps: jax.Array | int) -> jax.Array:
        """`steps` times from t_max to t_min, then 0: Karras et al. 2022, or evenly spaced.

        Without that 0 the noise of t_min stays in the sample: 1.87 times the closure's deviation s in physical units. With it,
        the last step draws to the mean: in the limit of many steps s^2 / sqrt(s^2 + std(t_min)^2), 0.53 s there.
        """
        share = index / jnp.maximum(steps - 1, 1)
        rho = self.rho if self.schedule == "karras" else 1.0
        first, last = self.t_max ** (1 / rho), self.t_min ** (1 / rho)
        return jnp.where(index < steps, (first + share * (last - first)) ** rho, 0.0)

    def weight(self, tau: jax.Array) -> jax.Array:
        """std^2."""
        return self.std(tau) ** 2

    def gamma(self, tau: jax.Array) -> jax.Array:
        """g = sigma^tau."""
        return self.sigma**tau

    def velocity(self, target: jax.Array, tau: jax.Array) -> jax.Array:
        """-g^2 score."""
        return -_expand(self.gamma(tau) ** 2, target) * target

    def source(self, key: jax.Array, condition: jax.Array) -> jax.Array:
        """std(t_max) times standard normal, shape of `condition`."""
        return self.std(self.t_max) * random.normal(key, condition.shape, condition.dtype)

    def in_transit(self, key: jax.Array, z: jax.Array, x: jax.Array, tau: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x_tau, target) of one example; the source takes no part."""
        noise, std = random.normal(key, x.shape, x.dtype), self.std(tau)
        return x + std * noise, -noise / std

    def network_input(self, x_tau: jax.Array, tau: jax.Array) -> jax.Array:
        """x_tau scaled to variance of order 1: the noise alone reaches 11 at tau = 1."""
        return x_tau / _expand(jnp.sqrt(1 + self.std(tau) ** 2), x_tau)

    def target_from_output(self, output: jax.Array, x_tau: jax.Array, tau: jax.Array, prediction: str) -> jax.Array:
        """As for any path; a predicted target is the output over std, so that the output is of order 1."""
        if prediction == "target":
            return output / _expand(self.std(tau), output)
        return self.target_from_data(output, x_tau, tau)

    def target_from_data(self, data: jax.Array, x_tau: jax.Array, tau: jax.Array) -> jax.Array:
        """(data - x_tau) / (data_scale^2 + std^2): the score of Normal(data, data_scale^2 + std^2)."""
        return (data - x_tau) / _expand(self.data_scale**2 + self.std(tau) ** 2, x_tau)


SCHEDULES = ("karras", "uniform")
"""Spacings of a diffusion's sampler times."""

PATHS: dict[str, Path] = {
    "diffusion": Diffusion(),
    "flow_matching": Path(),
    "interpolant_gaussian": Path(stochastic=True),
    "interpolant_empirical": Path(stochastic=True, from_condition=True),
}
"""Processes by name; numbers that a configuration may change are replaced in `build.path`."""

PREDICTIONS = ("target", "data")
"""What a network may put out: the path's target itself (published), or the data, from which the target follows."""
