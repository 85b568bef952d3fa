"""Regression of a network on the target of a path, and the path's ODE or SDE from its source to a sample.

A path says what is in transit at transport time tau between a source z and data x, and what the network regresses on there. Its
sampler is the equation

    dx = velocity(E[target | x_tau], tau) dtau + diffusion(tau) dW

by Euler's or the Euler-Maruyama method, without noise in the last step.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.errors import UserError, check
from closure_jax.transport.base import Field, Noise, Steps

PREDICTIONS = ("target", "data")
"""What a network may put out: the path's target itself (published), or the data, from which the target follows."""

Tau = Float[Array, "..."] | float
"""Transport time: of one example in the loss, of a batch (batch,) beside a network's output."""


def expand(tau: Tau, like: Float[Array, "batch ..."]) -> Float[Array, "..."]:
    """Times (batch,) with axes of length 1 for those of `like` that follow the batch."""
    tau = jnp.asarray(tau)
    return tau.reshape(tau.shape + (1,) * (like.ndim - tau.ndim))


def every_state(
    step: Callable[[jax.Array, jax.Array], jax.Array], start: Float[Array, " batch *shape"], steps: int
) -> Float[Array, "states batch *shape"]:
    """The start and the state after each step (index, x) -> x, steps + 1 of them."""

    def body(x: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = step(index, x)
        return x, x

    return jnp.concatenate([start[None], jax.lax.scan(body, start, jnp.arange(steps))[1]])


def fixed_noise(like: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"]:
    """One standard normal draw for all, where what follows is the same for every draw."""
    return jnp.broadcast_to(random.normal(jax.random.key(0), like.shape[1:], like.dtype), like.shape)


@dataclasses.dataclass(frozen=True)
class Regression:
    """A transport whose network regresses on a path's target; a path overrides the hooks below `in_rollouts`.

    Attributes:
      prediction: what the network puts out: "target", or "data", from which the target follows; see PREDICTIONS.
      data_scale: with prediction = data, the deviation of the data around the network's guess of them.
      times: transport times that the network sees.
      stochastic: the sampler is an SDE, and `noise` draws its increments.
      from_condition: the source is the condition itself, and `noise` draws none.
      training_range: transport times that training draws from, uniformly.

    Raises:
      UserError: a field has no possible value; the line starts with FIELD=VALUE.
    """

    prediction: str = "target"
    data_scale: float = 0.4

    times: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    from_condition: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(
            self.prediction in PREDICTIONS,
            f"prediction={self.prediction}: expected one of {', '.join(sorted(PREDICTIONS))}",
        )
        check(self.data_scale > 0, f"data_scale={self.data_scale}: expected a number above 0")

    # --- the transport ---

    def noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps) -> Noise:
        """{"source": (batch, ...)} unless the source is the condition, and of an SDE {"increments": (batch, steps, ...)}.

        Increment i of an example depends on its key and on i, not on the number of steps.

        Raises:
          UserError: `steps` of an SDE is traced.
        """
        pairs = jax.vmap(jax.random.split)(keys)
        dtype = jnp.result_type(float)

        def normal(key: jax.Array) -> jax.Array:
            return random.normal(key, shape, dtype)

        drawn = {} if self.from_condition else {"source": jax.vmap(normal)(pairs[:, 0])}
        if self.stochastic:
            numbers = jnp.arange(_static(steps))
            one = jax.vmap(lambda key, i: normal(jax.random.fold_in(key, i)), (None, 0))
            drawn["increments"] = jax.vmap(one, (0, None))(pairs[:, 1], numbers)
        return drawn

    def loss(
        self,
        field: Field,
        keys: Key[Array, " batch"],
        condition: Float[Array, " batch *shape"],
        x: Float[Array, " batch *shape"],
        source: Float[Array, " batch *shape"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Weighted mean squared error of the network's target, tau uniform in `training_range`; no other measures.

        Args:
          field: network as a function of state and time, the condition bound.
          keys: one for each example.
          condition, x: pairs.
          source: standard normal numbers from which each x came, where it came from some; None: independent ones.
        """

        def draw(key: jax.Array, c: jax.Array, x: jax.Array, given: jax.Array | None) -> tuple[jax.Array, ...]:
            time_key, source_key, noise_key = jax.random.split(key, 3)
            tau = jax.random.uniform(time_key, (), x.dtype, *self.training_range)
            z = self.source(random.normal(source_key, c.shape, c.dtype) if given is None else given, c)
            return tau, *self.in_transit(z, x, random.normal(noise_key, x.shape, x.dtype), tau)

        tau, x_tau, target = jax.vmap(draw)(keys, condition, x, source)
        errors = jnp.mean((self.target(field, x_tau, tau) - target) ** 2, axis=tuple(range(1, x.ndim)))
        return jnp.mean(self.weight(tau) * errors), {}

    def sample(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> Float[Array, " batch *shape"]:
        """Draws from the model, one for each example of the condition.

        Args:
          field: network as a function of state and time, the condition bound.
          noise: what `noise` gives, for at least so many steps.
          condition: shape of a sample.
          steps: of the sampler. A Python number can be differentiated through, a traced one lets one program serve all numbers.
        Raises:
          UserError: a static number of steps is more than the noise suffices for.
        """
        start, euler = self._euler(field, noise, condition, steps)
        return jax.lax.fori_loop(0, steps, euler, start)

    def trajectory(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: int
    ) -> Float[Array, "states batch *shape"]:
        """The same draws with every state on the way, source first; see `sample`."""
        start, euler = self._euler(field, noise, condition, steps)

        return every_state(euler, start, steps)

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """E[x | condition] by one network call; None: no call of this path gives it."""
        return None

    def schedules(self) -> "dict[str, Regression]":
        """The same transport under each spacing of its sampler's times, the one in use first."""
        return {"uniform": self}

    def in_rollouts(self) -> "Regression":
        """The transport that a coupled rollout uses: this one."""
        return self

    # --- what a path overrides ---

    @property
    def training_range(self) -> tuple[float, float]:
        """Transport times that training draws from, uniformly."""
        return 0.0, 1.0

    def time(self, index: Steps, steps: Steps) -> Float[Array, ""] | float:
        """The sampler's time before step `index` of `steps`; its end for index = steps."""
        return index / steps

    def source(self, normal: Float[Array, " *shape"], condition: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """The source z, from standard normal numbers and the condition."""
        return condition if self.from_condition else normal

    def in_transit(
        self, z: Float[Array, " *shape"], x: Float[Array, " *shape"], normal: Float[Array, " *shape"], tau: Tau
    ) -> tuple[Float[Array, " *shape"], Float[Array, " *shape"]]:
        """(x_tau, target) of one example.

        Args:
          z, x: source and data.
          normal: standard normal numbers of what a path adds on the way.
          tau: scalar.
        """
        raise NotImplementedError

    def weight(self, tau: Tau) -> Float[Array, "..."]:
        """Weight of the squared error at tau."""
        return jnp.ones_like(tau)

    def diffusion(self, tau: Tau) -> Tau:
        """Factor of dW in the sampler's SDE."""
        raise NotImplementedError

    def velocity(self, target: Float[Array, " batch *shape"], tau: Tau) -> Float[Array, " batch *shape"]:
        """dx / dtau of the sampler, without its noise, from the expected target."""
        return target

    def network_input(self, x_tau: Float[Array, " batch *shape"], tau: Tau) -> Float[Array, " batch *shape"]:
        """What the network sees of x_tau."""
        return x_tau

    def target_from_output(
        self, output: Float[Array, " batch *shape"], x_tau: Float[Array, " batch *shape"], tau: Tau
    ) -> Float[Array, " batch *shape"]:
        """The expected target that the network's output stands for, by `prediction`."""
        return output if self.prediction == "target" else self.target_from_data(output, x_tau, tau)

    def target_from_data(
        self, data: Float[Array, " batch *shape"], x_tau: Float[Array, " batch *shape"], tau: Tau
    ) -> Float[Array, " batch *shape"]:
        """The expected target that a guess of the data stands for, by `data_scale`."""
        raise NotImplementedError

    # --- common to all paths ---

    def target(
        self, field: Field, x_tau: Float[Array, " batch *shape"], tau: Float[Array, " batch"]
    ) -> Float[Array, " batch *shape"]:
        """E[target | x_tau] according to the network."""
        return self.target_from_output(field(self.network_input(x_tau, tau), tau), x_tau, tau)

    def _euler(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> tuple[Float[Array, " batch *shape"], Callable[[jax.Array, jax.Array], jax.Array]]:
        """The sources, and the step (index, x) -> x."""
        drawn = {name: jnp.asarray(numbers, condition.dtype) for name, numbers in noise.items()}
        if self.stochastic and isinstance(steps, int):
            count = drawn["increments"].shape[1]
            check(
                steps <= count, f"steps={steps}: the noise suffices for {count} sampler steps, expected at most so many"
            )

        def step(index: Steps, x: jax.Array) -> jax.Array:
            tau = jnp.asarray(self.time(index, steps), x.dtype)
            size = jnp.asarray(self.time(index + 1, steps), x.dtype) - tau
            batch_tau = jnp.full(len(x), tau, x.dtype)
            x = x + size * self.velocity(self.target(field, x, batch_tau), batch_tau)
            if self.stochastic:
                scale = jnp.where(index < steps - 1, self.diffusion(tau) * jnp.sqrt(jnp.abs(size)), 0.0)
                x = x + scale * drawn["increments"][:, index]
            return x

        return self.source(drawn.get("source", condition), condition), step


def _static(steps: Steps) -> int:
    try:
        return operator.index(steps)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(
            f"steps={steps}: noise of an SDE needs a Python integer; expected steps to be static, or noise drawn before for the"
            " largest number"
        ) from None
