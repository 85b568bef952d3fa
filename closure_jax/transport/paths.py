"""Paths from a source z to a target x: what is in transit at transport time tau, and what a network regresses on.

    x_tau = alpha z + beta x + gamma W_tau,       W_tau = sqrt(tau) n,   n standard normal
    target = alpha' z + beta' x + gamma' W_tau
    dx = b(x, tau) dtau + gamma dW                with b = E[target | x_tau]

alpha = 1 - tau and beta = tau throughout; gamma = 0 is flow matching (Lipman et al. 2023), gamma = 1 - tau the stochastic
interpolants of arXiv 2602.17089 (after Chen et al. 2024). Leading axis is the batch; tau is (batch,).
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
    """

    stochastic: bool = False
    from_condition: bool = False

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

    def target_from_data(self, data: jax.Array, x_tau: jax.Array, tau: jax.Array, scale: float = 0.4) -> jax.Array:
        """The target that a network's guess of the data stands for, preconditioned so that errors stay bounded.

        On every path here target = (x - x_tau) / (1 - tau), singular at tau = 1. The guess of x is therefore taken as a mean
        of `data` and x_tau / tau with the weights of a Gaussian of deviation `scale` (after Karras et al. 2022):

            target = [scale^2 tau - (1 - tau)] / D x_tau + (1 - tau) / D data,    D = scale^2 tau^2 + (1 - tau)^2
        """
        tau = _expand(tau, x_tau)
        width = scale**2 * tau**2 + (1 - tau) ** 2
        return (scale**2 * tau - (1 - tau)) / width * x_tau + (1 - tau) / width * data


PATHS: dict[str, Path] = {
    "flow_matching": Path(),
    "interpolant_gaussian": Path(stochastic=True),
    "interpolant_empirical": Path(stochastic=True, from_condition=True),
}
"""Processes by name."""

PREDICTIONS = ("target", "data")
"""What a network may put out: the path's target itself (published), or the data, from which the target follows."""
