"""closure_jax: stochastic closures sampled by generative models, coupled to a differentiable JAX solver."""
