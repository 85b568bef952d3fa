"""Transport networks by name, and what one has to have."""

from typing import Any, Protocol

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


class Network(Protocol):
    """A Flax module with two methods of its own; see `velocity_field`."""

    def encode_condition(self, condition: Any) -> Any:
        """Features of the condition, once a sample."""
        ...

    def velocity(self, x: Any, features: Any, *times: Any) -> Any:
        """What the transport regresses on, once a sampler step."""
        ...

    def init(self, *arguments: Any, **options: Any) -> Any:
        """As of Flax."""
        ...

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """As of Flax."""
        ...
