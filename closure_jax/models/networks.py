"""Transport networks by name."""

from closure_jax.models.generator import ProductGenerator
from closure_jax.models.local_generator import LocalGenerator
from closure_jax.models.published_field import PublishedVelocityField
from closure_jax.models.velocity_field import FourierVelocityField

NETWORKS: dict[str, type] = {
    "fourier": FourierVelocityField,
    "local": LocalGenerator,
    "products": ProductGenerator,
    "published": PublishedVelocityField,
}
"""Flax modules that satisfy the interface in `velocity_field`; their fields but `channels` and `times` are configuration."""
