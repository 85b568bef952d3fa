"""What a transport is: how samples of p(x | condition) are drawn with a network, and what the network is trained on.

A transport never holds parameters. It is given the network as a `Field` whose condition branch has run, and noise as an argument,
so that whoever calls it may carry the noise from one draw to the next, correlate it or mirror it.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

Field = Callable[..., jax.Array]
"""field(x, *times): the network with its condition bound. x and the value are (batch, ...), each of the times is (batch,)."""

Noise = Any
"""All random numbers of a batch of samples: a pytree of **standard normal** float arrays whose leading axis is the batch.

A linear combination a N1 + b N2 of two independent ones with a^2 + b^2 = 1 is again such noise, and so is -N.
"""

Steps = int | Int[Array, ""]
"""A number of sampler steps: static, or traced so that one compiled program serves all."""


@runtime_checkable
class Transport(Protocol):
    """A way from noise to samples of x given a condition, with a network in between.

    Attributes:
      times: transport times that the network sees: 1; 2 for an average velocity; 0 for a generator of one call, whose loss has
        one argument more, `decode`: see `Score.loss`.

    A transport that can be rectified has fields `rectify` and `rectify_steps` (`FlowMatching`), a leaf "source" in its noise, and
    one argument more of its loss, `source`: the noise from which each x was drawn, None for noise independent of x.
    """

    @property
    def times(self) -> int: ...

    def noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps) -> Noise:
        """The noise of one sample for each key.

        Args:
          keys: one for each example.
          shape: of one example, such as (r, r, c).
          steps: the noise suffices for samples of up to so many sampler steps; static where its size depends on them.
        """
        ...

    def loss(
        self,
        field: Field,
        keys: Key[Array, " batch"],
        condition: Float[Array, " batch *shape"],
        x: Float[Array, " batch *shape"],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """(what training minimises, other measures by name), from pairs of condition and sample; keys one for each pair."""
        ...

    def sample(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> Float[Array, " batch *shape"]:
        """Samples of x; `steps` at most those of the noise, and differentiable in reverse where they are static."""
        ...

    def trajectory(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: int
    ) -> Float[Array, "states batch *shape"]:
        """The same samples with every state on the way: steps + 1 of them, the source first."""
        ...

    def mean(self, field: Field, condition: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"] | None:
        """E[x | condition] by one network call; None where a call does not give it."""
        ...

    def schedules(self) -> "dict[str, Transport]":
        """The same transport under each spacing of its sampler's times, the one in use first."""
        ...

    def in_rollouts(self) -> "Transport":
        """The transport that a coupled rollout uses."""
        ...
