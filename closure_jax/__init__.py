"""closure_jax: stochastic closures sampled by generative models, coupled to a differentiable JAX solver.

    import closure_jax as cj
    closure = cj.load("fm_ga")            # one that ships with the package; a run's folder gives that run's
    H = closure(key, vorticity)           # (batch, n, n) -> one sample of the closure for each field

What is named here is imported when it is first used, so that importing the package takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closure_jax.closure import StochasticClosure
    from closure_jax.config import add_measure, base, use
    from closure_jax.config.optimisers import SCHEDULES
    from closure_jax.coupling import COUPLINGS, Coupled, FixedSteps, NoClosure
    from closure_jax.errors import UserError
    from closure_jax.latent.spaces import LATENTS
    from closure_jax.models.autoencoders import AUTOENCODERS
    from closure_jax.models.networks import NETWORKS
    from closure_jax.physics.flow import FLOWS
    from closure_jax.pretrained import load
    from closure_jax.problems import PROBLEMS
    from closure_jax.training.programs import PROGRAMS
    from closure_jax.transport import TRANSPORTS

__version__ = "0.1.0"

_WHERE = {
    "load": "closure_jax.pretrained",
    "StochasticClosure": "closure_jax.closure",
    "UserError": "closure_jax.errors",
    "base": "closure_jax.config",
    "use": "closure_jax.config",
    "add_measure": "closure_jax.config",
    "Coupled": "closure_jax.coupling",
    "FixedSteps": "closure_jax.coupling",
    "NoClosure": "closure_jax.coupling",
    "PROBLEMS": "closure_jax.problems",
    "FLOWS": "closure_jax.physics.flow",
    "AUTOENCODERS": "closure_jax.models.autoencoders",
    "NETWORKS": "closure_jax.models.networks",
    "LATENTS": "closure_jax.latent.spaces",
    "TRANSPORTS": "closure_jax.transport",
    "COUPLINGS": "closure_jax.coupling",
    "PROGRAMS": "closure_jax.training.programs",
    "SCHEDULES": "closure_jax.config.optimisers",
}
"""Public names, and the modules that define them; those in capitals are the tables of pieces."""

__all__ = [
    "load",
    "StochasticClosure",
    "UserError",
    "base",
    "use",
    "add_measure",
    "Coupled",
    "FixedSteps",
    "NoClosure",
    "PROBLEMS",
    "FLOWS",
    "AUTOENCODERS",
    "NETWORKS",
    "LATENTS",
    "TRANSPORTS",
    "COUPLINGS",
    "PROGRAMS",
    "SCHEDULES",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'closure_jax' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
