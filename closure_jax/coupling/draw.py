"""A learned closure as the solver wants it."""

import jax

from closure_jax import random
from closure_jax.closure import StochasticClosure
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import spectral


def model_sampler(model: StochasticClosure, steps: int, white_noise: float = 0.0) -> flow_lib.ClosureSampler:
    """A learned closure as the solver wants it, Fourier to Fourier.

    Args:
      model: the closure.
      steps: sampler steps.
      white_noise: standard deviation of pixel noise added to each sample (published rollouts: 5e-5).
    """

    def sample(keys: jax.Array, vorticity_hat: jax.Array) -> jax.Array:
        vorticity = spectral.to_physical(vorticity_hat)
        closure = model.sample(keys, vorticity, steps)
        if white_noise:
            draw = jax.vmap(lambda key: random.normal(jax.random.fold_in(key, 7), vorticity.shape[1:]))
            closure = closure + white_noise * draw(keys)
        return spectral.to_fourier(closure)

    return sample
