"""What shapes a latent space, as pieces of the configuration: the term that an autoencoder's loss gets beside its error."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np

from closure_jax.errors import check, not_negative, positive
from closure_jax.latent import diffusion_potential, distances, geometry_aware, metric_preserving

Term = Callable[[jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]
"""(latents of the global batch, what the term needs beside them) -> (term of the loss, measures for the record)."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a latent space may depend on.

    Attributes:
      field: 'vorticity' or 'closure'.
      latent_shape: (r, r, channels).
      batch_size: examples of a training step, over all devices.
      seed: of the run.
      cached: (name, numbers, make) -> array: what `make()` returns, kept on disk for all runs that see the same data under
        the name and the numbers that it depends on.
    """

    field: str
    latent_shape: tuple[int, int, int]
    batch_size: int
    seed: int
    cached: Callable[[str, dict[str, Any], Callable[[], np.ndarray]], np.ndarray]


class Latent(Protocol):
    """A latent space.

    One whose batches are not drawn at random has a method `companions(fields, setting)`: (N, k) rows of the training fields, of
    each field those that may stand beside it in a batch, whose second half then consists of them; None: batches at random. It
    has a method `effect(fields, setting, encoders, batches)` too, which says what the term did; see `GeometryAware`.
    """

    def term(self, fields: np.ndarray, setting: Setting) -> tuple[Term | None, np.ndarray | None]:
        """The term of an autoencoder's loss, called once before it trains.

        Args:
          fields: (N, n, n) normalised training fields.
          setting: what else it may depend on.
        Returns:
          The term, None for reconstruction only; and what it needs of each example beside the latent, (N, ...), None for
          nothing: the term then gets None.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ReconstructionOnly:
    """No term: the autoencoder is trained for its reconstruction error alone."""

    def term(self, fields: np.ndarray, setting: Setting) -> tuple[Term | None, np.ndarray | None]:
        """None."""
        del fields, setting
        return None, None


@dataclasses.dataclass(frozen=True)
class Physical(ReconstructionOnly):
    """No latent space: fields as they are, with the autoencoder `identity`."""


@dataclasses.dataclass(frozen=True)
class MetricPreserving:
    """Latent distances to the nearest fields follow their Euclidean distances; see `metric_preserving`.

    Attributes:
      weight: of the term.
      neighbours: how many nearest fields of the batch count for each.
      scale: 'published' takes distances as they are, 'entry' divides them by the square root of the number of entries.
    """

    weight: float = 1e-2
    neighbours: int = 5
    scale: Literal["published", "entry"] = "published"

    def __post_init__(self) -> None:
        not_negative(self, "weight")
        positive(self, "neighbours")

    def term(self, fields: np.ndarray, setting: Setting) -> tuple[Term, np.ndarray]:
        """The term, and the fields themselves."""
        del setting
        return metric_preserving.MetricPreserving(self.weight, self.neighbours, self.scale == "entry"), fields


@dataclasses.dataclass(frozen=True)
class GeometryAware:
    """Latent distances follow diffusion-potential distances between near fields; see `geometry_aware`.

    Attributes:
      weight: of the term.
      zeta: decay of a pair's weight with distance.
      scale: 'neighbourhood' measures distances in units of the neighbourhood; 'published' takes them as they are, with which
        every pair weight vanishes.
      pairs: 'neighbours' fills half of a batch with neighbours of the other half; 'random' takes fields at random, among which
        there are hardly any.
      knn: neighbour that sets the bandwidth of the kernel.
      diffusion_time: steps of the random walk.
      components: principal components kept.
      landmarks: up to this many fields the walk is exact.
    """

    weight: float = 1e-3
    zeta: float = 1.0
    scale: Literal["neighbourhood", "published"] = "neighbourhood"
    pairs: Literal["neighbours", "random"] = "random"
    knn: int = 10
    diffusion_time: int = 10
    components: int = 100
    landmarks: int = 2000

    def __post_init__(self) -> None:
        not_negative(self, "weight", "zeta")
        positive(self, "knn", "diffusion_time", "components", "landmarks")

    def term(self, fields: np.ndarray, setting: Setting) -> tuple[geometry_aware.GeometryAware, np.ndarray]:
        """The term, and the rows of the diffusion potential."""
        rows = setting.cached(*self.potential(fields, setting.seed))
        size, unit, length = int(np.prod(setting.latent_shape)), 1.0, 1.0
        if self.scale == "neighbourhood":
            nearest = self.companions(fields, setting)
            unit, length = (
                geometry_aware.neighbourhood(rows, fields, setting.batch_size, size, setting.seed)
                if nearest is None
                else geometry_aware.edge_of_neighbours(rows, fields, nearest, size)
            )
        return geometry_aware.GeometryAware(self.weight, self.zeta, unit, length), rows

    def companions(self, fields: np.ndarray, setting: Setting) -> np.ndarray | None:
        """(N, knn): the nearest of each field in potential distance; None where pairs are drawn at random."""
        if self.pairs == "random":
            return None
        name, numbers, make = self.potential(fields, setting.seed)
        of_rows = functools.partial(setting.cached, name, numbers, make)
        return setting.cached("nearest", numbers, lambda: distances.nearest(of_rows(), self.knn))

    def effect(
        self,
        fields: np.ndarray,
        setting: Setting,
        encoders: Sequence[geometry_aware.Encode],
        batches: Iterable[np.ndarray],
    ) -> dict[str, float | None]:
        """What the term did to the latents of (N, n, n) normalised training fields, see `geometry_aware.effect`."""
        return geometry_aware.effect(*self.term(fields, setting), fields, encoders, batches)

    def potential(self, fields: np.ndarray, seed: int) -> tuple[str, dict[str, Any], Callable[[], np.ndarray]]:
        """Name, numbers and maker of the diffusion potential of (N, n, n) fields."""
        numbers = {name: getattr(self, name) for name in ("knn", "diffusion_time", "components", "landmarks")}
        numbers["seed"] = seed
        return (
            "potential",
            numbers | {"version": diffusion_potential.VERSION},
            lambda: diffusion_potential.potential(fields, **numbers),
        )


@dataclasses.dataclass(frozen=True)
class Joint(ReconstructionOnly):
    """Shaped by the transport loss itself: both autoencoders and the transport network are trained at once (program `joint`).

    Attributes:
      closure_weight: of the mean squared reconstruction error of the closure, in the units of the field.
      vorticity_weight: likewise of the vorticity.
      moment_weight: of the term that keeps the closure's latent at mean 0 and variance 1; see `joint`.
    """

    closure_weight: float = 1000.0
    vorticity_weight: float = 1.0
    moment_weight: float = 0.1

    def __post_init__(self) -> None:
        not_negative(self, "closure_weight", "vorticity_weight", "moment_weight")
        check(
            self.closure_weight + self.vorticity_weight > 0,
            f"closure_weight={self.closure_weight}: expected a reconstruction that counts, of closure or vorticity",
        )


LATENTS: dict[str, type] = {
    "physical": Physical,
    "recon": ReconstructionOnly,
    "mp": MetricPreserving,
    "ga": GeometryAware,
    "joint": Joint,
}
"""Latent spaces by name."""
