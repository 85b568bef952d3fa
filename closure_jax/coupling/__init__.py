"""The closure inside the solver: where it comes from (draw), its noise in time (rules), stepping (advance), ensembles."""

from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.autoregressive import AR1
from closure_jax.coupling.base import Coupling
from closure_jax.coupling.draw import Draw, FixedSteps, NoClosure
from closure_jax.coupling.matern import Matern
from closure_jax.coupling.rules import EnsembleMean, Extrapolated, Fresh, Held, Scaled

__all__ = [
    "AR1",
    "COUPLINGS",
    "Coupled",
    "Coupling",
    "Draw",
    "EnsembleMean",
    "Extrapolated",
    "FixedSteps",
    "Fresh",
    "Held",
    "Matern",
    "NoClosure",
    "Scaled",
]

COUPLINGS: dict[str, type[Coupling]] = {
    "held": Held,
    "fresh": Fresh,
    "scaled": Scaled,
    "extrapolated": Extrapolated,
    "ar1": AR1,
    "matern": Matern,
    "ensemble_mean": EnsembleMean,
}
"""Rules for the closure's noise in time, by the name that the configuration gives (`coupling.kind`)."""
