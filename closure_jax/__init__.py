"""closure_jax: stochastic closures sampled by generative models, coupled to a differentiable JAX solver."""

__version__ = "0.1.0"
