"""Average velocities of flow matching: one call from noise to a sample, or a few (Geng et al. 2025, arXiv 2505.13447).

On the straight path x_tau = (1 - tau) z + tau x the flow has the velocity v(x_tau, tau) = E[x - z | x_tau]. Its average on the
way from tau to a later time eta is

    u(x_tau, tau, eta) = 1 / (eta - tau) integral of v along the flow from tau to eta,

so that x_eta = x_tau + (eta - tau) u: one step, whatever its length. The derivative of (eta - tau) u along the flow gives

    u - (eta - tau) du/dtau = v,        du/dtau = v . grad u + partial u / partial tau                         (1)

The left-hand side, with the derivative held fixed and with u(x, tau, tau) as v in it, regresses on x - z, as in improved MeanFlow
(arXiv 2512.02012).

The network puts out a guess D of the data. If x were Normal(D, s^2), s = `data_scale`, x_tau would have the deviation
sigma, sigma^2 = (1 - tau)^2 + tau^2 s^2, the flow would scale it, and

    u = a x_tau + (1 - tau a) D,        a = ((tau + eta) (1 + s^2) - 2) / (sigma(tau) (sigma(tau) + sigma(eta)))       (2)

so that a sample of one call, s z + D, has spread before anything is learned.

The two times of a training pair are the smaller and the larger of two uniform ones on [0, 1]: of density 2 on 0 < tau < eta < 1.
In a share `equal_times` of the pairs eta is set to tau, whose density is 2 (1 - tau) there too. It is the uniform one of the laws
that Geng et al. 2025 compare, who set the times equal in the same way; their time runs from the data to the noise, 1 - tau.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.errors import check
from closure_jax.transport.base import Field, Noise, Steps
from closure_jax.transport.regression import every_state, expand, fixed_noise

_SMALL = 1e-3  # added to a squared error before the power that weighs it


@dataclasses.dataclass(frozen=True)
class MeanFlow:
    """Flow matching by average velocities, for a network of two times, tau and eta.

    Attributes:
      data_scale: s in (2), the deviation of the data around the network's guess.
      equal_times: share of the training pairs with eta = tau, which learn the velocity itself; the law of times stands above.
      adaptive_power: an example's squared error e counts 1 / (e + 1e-3)^power times; 0: each counts alike.
      flow_steps: training steps that learn the velocity alone, flow matching, before the average is learned from it (after arXiv
        2510.24474); 0: all at once.

    Raises:
      UserError: a field has no possible value; the line starts with FIELD=VALUE.
    """

    data_scale: float = 0.4
    equal_times: float = 0.5
    adaptive_power: float = 0.0
    flow_steps: int = 0

    times: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check(self.data_scale > 0, f"data_scale={self.data_scale}: expected a number above 0")
        check(
            0 <= self.equal_times < 1,
            f"equal_times={self.equal_times}: expected a share from 0 up to, not including, 1",
        )
        check(0 <= self.adaptive_power <= 1, f"adaptive_power={self.adaptive_power}: expected a number from 0 to 1")
        check(
            0 <= self.flow_steps <= 2_000_000_000,
            f"flow_steps={self.flow_steps}: expected a whole number from 0 to 2,000,000,000",
        )

    def flow(self) -> "MeanFlow":
        """The same, of which only the velocity is learned: flow matching with this network."""
        return _VelocityAlone(self.data_scale, self.equal_times, self.adaptive_power)

    def noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps) -> Noise:
        """{"source": (batch, ...)}, whatever the number of steps."""
        del steps
        dtype = jnp.result_type(float)
        return {"source": jax.vmap(lambda key: random.normal(key, shape, dtype))(keys)}

    def average(
        self,
        field: Field,
        x: Float[Array, " batch *shape"],
        tau: Float[Array, " batch"],
        eta: Float[Array, " batch"],
    ) -> Float[Array, " batch *shape"]:
        """u of (2), with the network's guess of the data."""
        square = self.data_scale**2

        def deviation(time: jax.Array) -> jax.Array:
            return jnp.sqrt((1 - time) ** 2 + time**2 * square)

        own = deviation(tau)
        a = ((tau + eta) * (1 + square) - 2) / (own * (own + deviation(eta)))
        return expand(a, x) * x + expand(1 - tau * a, x) * field(x, tau, eta)

    def velocity(
        self,
        field: Field,
        x: Float[Array, " batch *shape"],
        tau: Float[Array, " batch"],
        eta: Float[Array, " batch"],
    ) -> Float[Array, " batch *shape"]:
        """The left-hand side of (1), the derivative held fixed; v(x, tau) where the average velocity is exact."""
        along = jax.lax.stop_gradient(self.average(field, x, tau, tau))
        u, slope = jax.jvp(lambda x, tau: self.average(field, x, tau, eta), (x, tau), (along, jnp.ones_like(tau)))
        return u - expand(eta - tau, x) * jax.lax.stop_gradient(slope)

    def loss(
        self,
        field: Field,
        keys: Key[Array, " batch"],
        condition: Float[Array, " batch *shape"],
        x: Float[Array, " batch *shape"],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean squared error of (1) against x - z, weighed; also the "squared_error" as it is.

        Args:
          field: network as a function of state and both times, the condition bound.
          keys: one for each example.
          condition, x: pairs.
        """

        def draw(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            time_key, equal_key, source_key = jax.random.split(key, 3)
            tau, eta = jnp.sort(jax.random.uniform(time_key, (2,), x.dtype))
            equal = jax.random.uniform(equal_key) < self.equal_times
            return tau, jnp.where(equal, tau, eta), random.normal(source_key, x.shape, x.dtype)

        tau, eta, z = jax.vmap(draw)(keys, x)
        at = expand(tau, x)
        errors = (self._learned(field, (1 - at) * z + at * x, tau, eta) - (x - z)) ** 2
        errors = jnp.mean(errors, axis=tuple(range(1, x.ndim)))
        weight = jax.lax.stop_gradient((errors + _SMALL) ** -self.adaptive_power)
        return jnp.mean(weight * errors), {"squared_error": jnp.mean(errors)}

    def _learned(self, field: Field, x: jax.Array, tau: jax.Array, eta: jax.Array) -> jax.Array:
        """What regresses on x - z."""
        return self.velocity(field, x, tau, eta)

    def sample(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> Float[Array, " batch *shape"]:
        """Draws from the model, by `steps` equal steps from noise to data."""
        z = jnp.asarray(noise["source"], condition.dtype)
        return jax.lax.fori_loop(0, steps, lambda index, x: self._step(field, x, index, steps), z)

    def trajectory(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: int
    ) -> Float[Array, "states batch *shape"]:
        """The same draws with every state on the way, source first."""
        z = jnp.asarray(noise["source"], condition.dtype)
        return every_state(lambda index, x: self._step(field, x, index, steps), z, steps)

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """E[x | condition] = z + v(z, 0), which is the same for every z: one fixed draw serves."""
        z, start = fixed_noise(condition), jnp.zeros(len(condition), condition.dtype)
        return z + self.average(field, z, start, start)

    def schedules(self) -> "dict[str, MeanFlow]":
        """Equal steps alone."""
        return {"uniform": self}

    def in_rollouts(self) -> "MeanFlow":
        """Itself."""
        return self

    def _step(self, field: Field, x: jax.Array, index: Steps, steps: Steps) -> jax.Array:
        tau = jnp.full(len(x), index / steps, x.dtype)
        eta = jnp.full(len(x), (index + 1) / steps, x.dtype)
        return x + expand(eta - tau, x) * self.average(field, x, tau, eta)


@dataclasses.dataclass(frozen=True)
class _VelocityAlone(MeanFlow):
    """Both times of every pair are equal."""

    def _learned(self, field: Field, x: jax.Array, tau: jax.Array, eta: jax.Array) -> jax.Array:
        """The velocity, without a derivative along the flow."""
        del eta
        return self.average(field, x, tau, tau)
