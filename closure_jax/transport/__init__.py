"""Transports by name: how samples of the closure's latent are drawn given that of the vorticity."""

from closure_jax.transport import paths
from closure_jax.transport.base import Field, Noise, Transport
from closure_jax.transport.conditional_mean import ConditionalMean
from closure_jax.transport.mean_flow import MeanFlow
from closure_jax.transport.regression import PREDICTIONS, Regression
from closure_jax.transport.score import Score

TRANSPORTS: dict[str, type] = {
    "conditional_mean": ConditionalMean,
    "diffusion": paths.Diffusion,
    "flow_matching": paths.FlowMatching,
    "interpolant_empirical": paths.InterpolantEmpirical,
    "interpolant_gaussian": paths.InterpolantGaussian,
    "mean_flow": MeanFlow,
    "score": Score,
}
"""Classes by name; their dataclass fields are what a configuration may say of them."""

__all__ = [
    "PREDICTIONS",
    "TRANSPORTS",
    "ConditionalMean",
    "Field",
    "MeanFlow",
    "Noise",
    "Regression",
    "Score",
    "Transport",
]
