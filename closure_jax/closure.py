"""StochasticClosure: (key, vorticity) -> a sample of the closure H. What a fork or another solver imports.

Encode the vorticity, sample the closure's latent with the transport network, decode. Pure: jit, vmap, grad and scan work.
"""

import contextlib
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

import closure_jax
from closure_jax.errors import UserError, check
from closure_jax.transport.arguments import check_keys, check_noise, check_real, check_steps, noise_shapes
from closure_jax.transport.base import Field, Noise, Steps, Transport

Fields = Float[Array | np.ndarray, "batch n n"]
"""Vorticity or closure in physical units."""


@flax.struct.dataclass
class Scaling:
    """Mean and standard deviation that take a quantity to mean 0 and variance 1; scalars.

    Attributes:
      mean, std: arrays; inside jax, what stands for one.
    """

    mean: Any
    std: Any

    def apply(self, x: ArrayLike) -> jax.Array:
        """To mean 0 and variance 1."""
        return (jnp.asarray(x) - self.mean) / self.std

    def invert(self, x: ArrayLike) -> jax.Array:
        """To the original mean and variance, the inverse of `apply`."""
        return jnp.asarray(x) * self.std + self.mean


@flax.struct.dataclass
class StochasticClosure:
    """A trained closure: a pytree whose leaves are parameters and scalings, so it passes through jit as an argument.

    Methods that take a number of sampler steps use the attribute `steps` where it is None. It has to be static where noise of an
    SDE is drawn, and for gradients; else `draw` and `sample_latent` take a traced one too.

    Shapes, types and keys, the structure of noise and static steps are checked in each call, under jit, vmap and grad too, and
    raise UserError. What only their numbers show is told where a call is wrapped in `jax.experimental.checkify.checkify`, else
    nobody looks: fields, latents and noise that are not finite, traced steps below 1, or other than 1 of a generator of one call.

    Attributes:
      params: {"vorticity": {"encoder"}, "closure": {"encoder", "decoder"}, "network"}; vorticity has a decoder too.
      scalings: {"vorticity", "closure"} of fields and {"latent_vorticity", "latent_closure"} of latents.
      encoder, decoder, network: modules.
      transport: how the network makes samples.
      steps: sampler steps used when a call names none.
      resolution: n of the fields, (batch, n, n).
    """

    params: dict[str, Any]
    scalings: dict[str, Scaling]
    encoder: nn.Module = flax.struct.field(pytree_node=False)
    decoder: nn.Module = flax.struct.field(pytree_node=False)
    network: nn.Module = flax.struct.field(pytree_node=False)
    transport: Transport = flax.struct.field(pytree_node=False)
    steps: int = flax.struct.field(pytree_node=False)
    resolution: int = flax.struct.field(pytree_node=False)

    if TYPE_CHECKING:  # flax adds it, and its types don't say so

        def replace(self, **updates: Any) -> Self:
            """The same closure with other values of some attributes."""
            ...

    @classmethod
    def load(cls, directory: str | pathlib.Path) -> "StochasticClosure":
        """`closure_jax.load`: the closure that a finished run left in its work directory."""
        return closure_jax.load(directory)

    def digest(self) -> str:
        """Twelve hexadecimal digits that differ where any number of the closure does."""
        numbers = hashlib.sha256()
        for leaf in jax.tree.leaves(self):
            numbers.update(np.asarray(leaf).tobytes())
        return numbers.hexdigest()[:12]

    def __call__(self, key: Key[Array, ""], vorticity: Fields, steps: Steps | None = None) -> Float[Array, "batch n n"]:
        """One sample of H for each field, both in physical units; field i draws from fold_in(key, i)."""
        self._check_field("vorticity", vorticity)
        axes = check_keys(key)
        check(
            axes == (),
            f"{axes} keys for a call: expected a single one; sample(keys, vorticity) takes one for each field",
        )
        return self.sample(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(vorticity))), vorticity, steps)

    def sample(
        self, keys: Key[Array, " batch"], vorticity: Fields, steps: Steps | None = None
    ) -> Float[Array, "batch n n"]:
        """As a call, with one key for each field: what an ensemble uses. Equals draw(noise(keys, ...), ...)."""
        condition = self.encode(vorticity)
        return self._decoded(self._latent(self._noise(keys, condition.shape, steps), condition, steps))

    def noise(self, keys: Key[Array, " batch"], vorticity: Fields, steps: Steps | None = None) -> Noise:
        """All random numbers of a sample of H for each field, standard normal; one key for each field."""
        return self._noise(keys, jax.eval_shape(self.encode, vorticity).shape, steps)

    def draw(self, noise: Noise, vorticity: Fields, steps: Steps | None = None) -> Float[Array, "batch n n"]:
        """The sample of H that the noise stands for, for each field; `steps` at most those that the noise was drawn for."""
        return self._decoded(self._latent(noise, self.encode(vorticity), steps))

    def mean(self, vorticity: Fields) -> Float[Array, "batch n n"] | None:
        """E[H | vorticity] as the decoded mean of the latent, by one network call; None where a call does not give it.

        It does for a path from noise or from the condition to the data, and for a generator that is linear in its noise, or has
        none.
        """
        condition = self.encode(vorticity)
        if (
            self.transport.times == 0
            and not self.linear_in_noise
            and jax.tree.leaves(noise_shapes(self.transport, condition.shape[1:], 1))
        ):
            return None
        latent = self.transport.mean(bind(self.network, self.params["network"], condition), condition)
        return None if latent is None else self._decoded(latent)

    @property
    def linear_in_noise(self) -> bool:
        """Whether the sampled latent is linear in its noise about its mean: a generator whose network says so."""
        return self.transport.times == 0 and getattr(self.network, "linear_in_noise", False)

    def encode(self, vorticity: Fields) -> Float[Array, "batch r r c"]:
        """Standardised latent of the vorticity, which is the transport's condition."""
        self._check_field("vorticity", vorticity)
        latent = apply(self.encoder, self.params["vorticity"]["encoder"], self.scalings["vorticity"].apply(vorticity))
        return self.scalings["latent_vorticity"].apply(latent)

    def bind(self, condition: Float[Array, "batch r r c"]) -> Field:
        """The network with its condition branch run."""
        self._check_latent("condition", condition)
        return bind(self.network, self.params["network"], condition)

    def latent_noise(
        self, keys: Key[Array, " batch"], condition: Float[Array, "batch r r c"], steps: Steps | None = None
    ) -> Noise:
        """As `noise`; of the condition only the shape counts."""
        shape = jnp.shape(condition)
        check(len(shape) == 4, f"condition of shape {shape}: expected (batch, r, r, c), as encode(vorticity) gives it")
        return self._noise(keys, shape, steps)

    def sample_latent(
        self, noise: Noise, condition: Float[Array, "batch r r c"], steps: Steps | None = None
    ) -> Float[Array, "batch r r c"]:
        """One standardised latent of the closure for each condition."""
        self._check_latent("condition", condition)
        return self._latent(noise, condition, steps)

    def trajectory(
        self, noise: Noise, condition: Float[Array, "batch r r c"], steps: int | None = None
    ) -> Float[Array, "states batch r r c"]:
        """As `sample_latent`, with every state on the way: steps + 1 of them, the source first."""
        bound = self.bind(condition)
        check_noise(self.transport, noise, condition.shape)
        number = self._number(steps)
        if not isinstance(number, int):
            raise UserError(
                "steps: expected a static number of sampler steps for a trajectory, since its length depends on it"
            )
        return self.transport.trajectory(bound, noise, condition, number)

    def decode(self, latent: Float[Array, "batch r r c"]) -> Float[Array, "batch n n"]:
        """The closure in physical units from its standardised latent."""
        self._check_latent("latent", latent)
        return self._decoded(latent)

    def reconstruct(self, field: str, values: Fields) -> Float[Array, "batch n n"]:
        """Encoded and decoded fields in physical units; `field` is 'vorticity' or 'closure'."""
        check(field in ("vorticity", "closure"), f"field={field!r}: expected 'vorticity' or 'closure'")
        self._check_field(field, values)
        latent = apply(self.encoder, self.params[field]["encoder"], self.scalings[field].apply(values))
        return self.scalings[field].invert(apply(self.decoder, self.params[field]["decoder"], latent))

    def _noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps | None) -> Noise:
        axes, count = check_keys(keys), shape[0]
        check(
            axes == (count,),
            f"{axes[0] if axes else 'a single'} key{'s' if axes else ''} for {count} fields: expected one for each field, such as"
            f" jax.random.split(key, {count})",
        )
        return self.transport.noise(keys, shape[1:], self._number(steps))

    def _latent(
        self, noise: Noise, condition: Float[Array, "batch r r c"], steps: Steps | None
    ) -> Float[Array, "batch r r c"]:
        """As `sample_latent`, of a condition that `encode` gave."""
        number = self._number(steps)
        check_noise(self.transport, noise, condition.shape)
        field = bind(self.network, self.params["network"], condition)
        return self.transport.sample(field, noise, condition, number)

    def _decoded(self, latent: Float[Array, "batch r r c"]) -> Float[Array, "batch n n"]:
        """As `decode`, of a latent that the transport made."""
        latent = self.scalings["latent_closure"].invert(latent)
        decoded = self.scalings["closure"].invert(apply(self.decoder, self.params["closure"]["decoder"], latent))
        checkify.debug_check(jnp.isfinite(decoded).all(), "the closure became not finite: expected finite numbers")
        return decoded

    def _number(self, steps: Steps | None) -> Steps:
        """The number of sampler steps that is meant."""
        return check_steps(self.steps if steps is None else steps)

    def _check_field(self, name: str, values: Fields) -> None:
        n, shape = self.resolution, check_real(name, values)
        check(
            len(shape) == 3 and shape[1:] == (n, n),
            f"{name} of shape {shape}: expected (batch, {n}, {n}); one field is {name}[None]",
        )

    def _check_latent(self, name: str, values: Float[Array, "batch r r c"]) -> None:
        shape, field = (
            check_real(name, values),
            jax.ShapeDtypeStruct((1, self.resolution, self.resolution), jnp.float32),
        )
        own = jax.eval_shape(self.encode, field).shape[1:]
        check(
            shape[1:] == own and len(shape) == 4,
            f"{name} of shape {shape}: expected (batch, {', '.join(map(str, own))})",
        )


def bind(network: nn.Module, params: Any, condition: Float[Array, "batch r r c"]) -> Field:
    """The network with its condition branch run: field(x, *times), as a transport takes it."""
    with _precision_of(network):
        features = network.apply(params, condition, method="encode_condition")

    def field(x: Float[Array, "batch r r c"], *times: Float[Array, " batch"]) -> Float[Array, "batch r r c"]:
        return apply(network, params, x, features, *times, method="velocity")

    return field


def apply(module: nn.Module, params: Any, *arguments: Any, method: str | None = None) -> jax.Array:
    """What a module makes of arrays, in the precision that it has as a field; no collection of it is mutable."""
    with _precision_of(module):
        output = module.apply(params, *arguments, method=method)
    return output  # type: ignore[return-value]  # a tuple only where a call makes collections mutable


def _precision_of(module: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Products of a module are formed as its field `precision` says; of one without the field as jax is told elsewhere."""
    precision = getattr(module, "precision", None)
    return contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
