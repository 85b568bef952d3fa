"""closure_jax: stochastic closures sampled by generative models, coupled to a differentiable JAX solver."""

from typing import Any

__version__ = "0.1.0"


def load(directory: Any) -> Any:
    """The closure that a finished run left in its work directory, a `StochasticClosure`.

    Raises:
      UserError: no run there, or a phase that is not trained.
    """
    from closure_jax import pretrained

    return pretrained.load_run(directory)
