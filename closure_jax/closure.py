"""StochasticClosure: (key, vorticity) -> a sample of the closure H. What a fork or another solver imports.

Encode the vorticity, sample the closure's latent with the transport network, decode. Pure: jit, vmap, grad and scan work.
"""

import contextlib
import hashlib
import operator
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
    SDE is drawn; `draw` and `sample_latent` take a traced one too. Wrong shapes, types and steps raise UserError. Fields that are
    not finite are told where a call is wrapped in `jax.experimental.checkify.checkify`, in jit and vmap too; else nobody looks.

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
        axes = _axes_of(key)
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
        return self.decode(self.sample_latent(self.latent_noise(keys, condition, steps), condition, steps))

    def noise(self, keys: Key[Array, " batch"], vorticity: Fields, steps: Steps | None = None) -> Noise:
        """All random numbers of a sample of H for each field, standard normal; one key for each field."""
        return self._noise(keys, jax.eval_shape(self.encode, vorticity).shape, steps)

    def draw(self, noise: Noise, vorticity: Fields, steps: Steps | None = None) -> Float[Array, "batch n n"]:
        """The sample of H that the noise stands for, for each field; `steps` at most those that the noise was drawn for."""
        return self.decode(self.sample_latent(noise, self.encode(vorticity), steps))

    def mean(self, vorticity: Fields) -> Float[Array, "batch n n"] | None:
        """E[H | vorticity] as the decoded mean of the latent, by one network call; None where a call does not give it.

        It does for a path from noise or from the condition to the data, and for a generator that is linear in its noise, or has
        none.
        """
        condition = self.encode(vorticity)
        if (
            self.transport.times == 0
            and not self.linear_in_noise
            and jax.tree.leaves(_noise_shapes(self.transport, condition.shape[1:], 1))
        ):
            return None
        latent = self.transport.mean(self.bind(condition), condition)
        return None if latent is None else self.decode(latent)

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
        return bind(self.network, self.params["network"], condition)

    def latent_noise(
        self, keys: Key[Array, " batch"], condition: Float[Array, "batch r r c"], steps: Steps | None = None
    ) -> Noise:
        """As `noise`; of the condition only the shape counts."""
        return self._noise(keys, condition.shape, steps)

    def sample_latent(
        self, noise: Noise, condition: Float[Array, "batch r r c"], steps: Steps | None = None
    ) -> Float[Array, "batch r r c"]:
        """One standardised latent of the closure for each condition."""
        self._check_noise(noise, condition)
        return self.transport.sample(self.bind(condition), noise, condition, self._number(steps))

    def trajectory(
        self, noise: Noise, condition: Float[Array, "batch r r c"], steps: int | None = None
    ) -> Float[Array, "states batch r r c"]:
        """As `sample_latent`, with every state on the way: steps + 1 of them, the source first."""
        self._check_noise(noise, condition)
        number = self._number(steps)
        if not isinstance(number, int):
            raise UserError(
                "steps: expected a static number of sampler steps for a trajectory, since its length depends on it"
            )
        return self.transport.trajectory(self.bind(condition), noise, condition, number)

    def decode(self, latent: Float[Array, "batch r r c"]) -> Float[Array, "batch n n"]:
        """The closure in physical units from its standardised latent."""
        latent = self.scalings["latent_closure"].invert(latent)
        decoded = self.scalings["closure"].invert(apply(self.decoder, self.params["closure"]["decoder"], latent))
        checkify.debug_check(jnp.isfinite(decoded).all(), "the closure became not finite: expected finite numbers")
        return decoded

    def reconstruct(self, field: str, values: Fields) -> Float[Array, "batch n n"]:
        """Encoded and decoded fields in physical units; `field` is 'vorticity' or 'closure'."""
        self._check_field(field, values)
        latent = apply(self.encoder, self.params[field]["encoder"], self.scalings[field].apply(values))
        return self.scalings[field].invert(apply(self.decoder, self.params[field]["decoder"], latent))

    def _noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps | None) -> Noise:
        axes, count = _axes_of(keys), shape[0]
        check(
            axes == (count,),
            f"{axes[0] if axes else 'a single'} key{'s' if axes else ''} for {count} fields: expected one for each field, such as"
            f" jax.random.split(key, {count})",
        )
        return self.transport.noise(keys, shape[1:], self._number(steps))

    def _check_field(self, name: str, values: Fields) -> None:
        n, shape = self.resolution, jnp.shape(values)
        check(
            len(shape) == 3 and shape[1:] == (n, n),
            f"{name} of shape {shape}: expected (batch, {n}, {n}); one field is {name}[None]",
        )
        dtype = jnp.result_type(values)
        check(jnp.issubdtype(dtype, jnp.floating), f"{name} of type {dtype}: expected real floating-point numbers")
        checkify.debug_check(jnp.isfinite(values).all(), f"{name} is not finite: expected finite numbers")

    def _check_noise(self, noise: Noise, condition: jax.Array) -> None:
        count = condition.shape[0]
        found = [jnp.shape(leaf) for leaf in jax.tree.leaves(noise)]
        counts = {shape[0] if shape else 0 for shape in found}
        check(
            counts <= {count},
            f"noise of {min(counts, default=0)} samples for {count} fields: expected one for each field",
        )
        numbers = (1, 2) if self.transport.times else (1, 1)  # a generator of one call may refuse another
        few, more = (_noise_shapes(self.transport, condition.shape[1:], steps) for steps in numbers)
        structures = [jax.tree.structure(tree) for tree in (noise, few, more)]
        if structures[1] != structures[2]:  # of a transport of one's own, with leaves for each step
            return
        drawn = "as noise(keys, vorticity) draws it"
        check(structures[0] == structures[1], f"noise {structures[0]}: expected {structures[1]}, {drawn}")
        for own, one, two in zip(found, jax.tree.leaves(few), jax.tree.leaves(more), strict=True):
            # an axis whose length goes with the sampler steps may be longer
            wanted = tuple(a if a == b else "steps" for a, b in zip(one.shape, two.shape, strict=True))[1:]
            fits = len(own) == len(one.shape) and all(a in (b, "steps") for a, b in zip(wanted, own[1:], strict=True))
            check(fits, f"noise of shape {own[1:]} for each field: expected {wanted}, {drawn}")

    def _number(self, steps: Steps | None) -> Steps:
        """The number of sampler steps that is meant, checked where it is known."""
        steps = self.steps if steps is None else steps
        try:
            number = operator.index(steps)
        except TypeError:  # among others of a traced number
            if isinstance(steps, jax.Array) and jnp.issubdtype(steps.dtype, jnp.integer):
                return steps
            raise UserError(f"steps={steps}: expected a whole number of sampler steps") from None
        check(number >= 1, f"steps={number}: expected at least 1 sampler step")
        return number


def _axes_of(keys: Any) -> tuple[int, ...]:
    """Shape of an array of random keys, typed ones or the uint32 numbers of old ones.

    Raises:
      UserError: they are none.
    """
    dtype = getattr(keys, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jnp.shape(keys)
    shape = jnp.shape(keys) if dtype == jnp.uint32 else ()
    check(
        len(shape) > 0, f"key of type {dtype or type(keys).__name__}: expected a random key, such as jax.random.key(0)"
    )
    return shape[:-1]


def _noise_shapes(transport: Transport, shape: tuple[int, ...], steps: int) -> Noise:
    """Shapes of the noise of one sample (shape), with a leading axis of 1; nothing is drawn."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return jax.eval_shape(lambda keys: transport.noise(keys, shape, steps), keys)


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
