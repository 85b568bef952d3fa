"""StochasticClosure: (key, vorticity) -> a sample of the closure H. What a fork or another solver imports.

Encode the vorticity, sample the closure's latent with the transport network, decode. Pure: jit, vmap, grad and scan work.
"""

import pathlib
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

import closure_jax
from closure_jax.transport import losses, samplers
from closure_jax.transport.paths import Path


@flax.struct.dataclass
class Scaling:
    """Mean and standard deviation that take a quantity to mean 0 and variance 1; scalars."""

    mean: jax.Array
    std: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """To standard scale."""
        return (x - self.mean) / self.std

    def invert(self, x: jax.Array) -> jax.Array:
        """Back."""
        return x * self.std + self.mean


@flax.struct.dataclass
class StochasticClosure:
    """A trained closure: a pytree whose leaves are parameters and scalings, so it passes through jit as an argument.

    Attributes:
      params: {"vorticity": {"encoder"}, "closure": {"encoder", "decoder"}, "network"}; vorticity has a decoder too.
      scalings: {"vorticity", "closure"} of fields and {"latent_vorticity", "latent_closure"} of latents.
      encoder, decoder, network, path, prediction: modules and process; see `build`.
      steps: sampler steps used when a call names none.
    """

    params: dict[str, Any]
    scalings: dict[str, Scaling]
    encoder: nn.Module = flax.struct.field(pytree_node=False)
    decoder: nn.Module = flax.struct.field(pytree_node=False)
    network: nn.Module = flax.struct.field(pytree_node=False)
    path: Path = flax.struct.field(pytree_node=False)
    prediction: str = flax.struct.field(pytree_node=False)
    steps: int = flax.struct.field(pytree_node=False)

    @classmethod
    def load(cls, directory: str | pathlib.Path) -> "StochasticClosure":
        """`closure_jax.load`: the closure that a finished run left in its work directory."""
        return closure_jax.load(directory)

    def __call__(self, key: jax.Array, vorticity: jax.Array, steps: int | jax.Array | None = None) -> jax.Array:
        """One sample of H for each field.

        Args:
          key: random key of the call; field i draws from fold_in(key, i).
          vorticity: (batch, n, n), physical units.
          steps: sampler steps; the configured number if None.
        Returns:
          (batch, n, n), physical units.
        """
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(vorticity.shape[0]))
        return self.sample(keys, vorticity, steps)

    def sample(self, keys: jax.Array, vorticity: jax.Array, steps: int | jax.Array | None = None) -> jax.Array:
        """As a call, with one key for each field, (batch,): what an ensemble uses."""
        return self.decode(self.sample_latent(keys, self.encode(vorticity), steps))

    def encode(self, vorticity: jax.Array) -> jax.Array:
        """(batch, n, n) -> standardised latent of the vorticity, the condition (batch, r, r, c)."""
        latent = self.encoder.apply(self.params["vorticity"]["encoder"], self.scalings["vorticity"].apply(vorticity))
        return self.scalings["latent_vorticity"].apply(latent)

    def sample_latent(self, keys: jax.Array, condition: jax.Array, steps: int | jax.Array | None = None) -> jax.Array:
        """Condition (batch, r, r, c) -> one standardised latent of the closure each."""
        drift = bind_drift(self.network, self.path, self.prediction, self.params["network"], condition)
        return samplers.sample(self.path, drift, keys, condition, self.steps if steps is None else steps)

    def trajectory(self, keys: jax.Array, condition: jax.Array, steps: int) -> jax.Array:
        """As `sample_latent`, with every state on the way: (steps + 1, batch, r, r, c), the source first."""
        drift = bind_drift(self.network, self.path, self.prediction, self.params["network"], condition)
        return samplers.trajectory(self.path, drift, keys, condition, steps)

    def decode(self, latent: jax.Array) -> jax.Array:
        """Standardised latent of the closure -> (batch, n, n), physical units."""
        latent = self.scalings["latent_closure"].invert(latent)
        return self.scalings["closure"].invert(self.decoder.apply(self.params["closure"]["decoder"], latent))

    def reconstruct(self, field: str, values: jax.Array) -> jax.Array:
        """Encoded and decoded fields; `field` is 'vorticity' or 'closure', `values` (batch, n, n) in physical units."""
        scaled = self.scalings[field].apply(values)
        latent = self.encoder.apply(self.params[field]["encoder"], scaled)
        return self.scalings[field].invert(self.decoder.apply(self.params[field]["decoder"], latent))


def bind_drift(network: nn.Module, path: Path, prediction: str, params: Any, condition: jax.Array) -> losses.Drift:
    """The network as a drift (x_tau, tau) -> target, with the condition branch already run."""
    features = network.apply(params, condition, method="encode_condition")

    def drift(x_tau: jax.Array, tau: jax.Array) -> jax.Array:
        output = network.apply(params, path.network_input(x_tau, tau), tau, features, method="velocity")
        return path.target_from_output(output, x_tau, tau, prediction)

    return drift
