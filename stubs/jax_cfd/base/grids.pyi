"""What the type checker knows of jax_cfd's grids: what this package uses."""

from collections.abc import Sequence

import numpy as np

class Grid:
    shape: tuple[int, ...]
    step: tuple[float, ...]
    domain: tuple[tuple[float, float], ...]
    ndim: int
    def __init__(
        self,
        shape: Sequence[int],
        step: float | Sequence[float] | None = None,
        domain: float | Sequence[tuple[float, float]] | None = None,
    ) -> None: ...
    def axes(self, offset: Sequence[float] | None = None) -> tuple[np.ndarray, ...]: ...
    def mesh(self, offset: Sequence[float] | None = None) -> tuple[np.ndarray, ...]: ...
    def rfft_axes(self) -> tuple[np.ndarray, ...]: ...
    def rfft_mesh(self) -> tuple[np.ndarray, ...]: ...
