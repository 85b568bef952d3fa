"""The term that keeps the closure's latent near a standard normal while autoencoders and transport network train at once.

    0.1 * mean over latent entries of (var + mean^2 - 1 - log var) / 2       (arXiv 2602.17089)

the Kullback-Leibler divergence of Normal(mean, var) from Normal(0, 1), with the moments of each entry over the batch: zero
where every entry has mean 0 and variance 1. It is what a standardisation does for the other latents, as a term of the loss.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def moment_divergence(latent: Float[Array, " batch *latent"]) -> Float[Array, ""]:
    """The mean above without its weight, from the whole global batch of latents (batch, r, r, c)."""
    mean, variance = jnp.mean(latent, axis=0), jnp.var(latent, axis=0)
    variance = jnp.maximum(variance, 1e-12)  # a dead entry costs much, and its gradient stays finite
    return 0.5 * jnp.mean(variance + mean**2 - 1 - jnp.log(variance))
