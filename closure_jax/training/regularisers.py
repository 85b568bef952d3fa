"""What shapes a latent space, by name: the one table where a new latent is entered.

An entry is called once for each autoencoder, before it trains:

    (config, field, fields, checksum, cache) -> (regulariser, extras)

with `field` "vorticity" or "closure", `fields` (N, n, n) its normalised training fields, `checksum` of the data and `cache` a
folder for what depends on the data only. `regulariser(latent, extra) -> (term, measures)` sees the global batch; `extras`
(N, ...) holds what it needs of each example beside the latent. Both None: reconstruction only.
"""

import contextlib
import pathlib
from collections.abc import Callable

import h5py
import ml_collections
import numpy as np

from closure_jax.config import build
from closure_jax.data.generate import exclusive
from closure_jax.latent import diffusion_potential, geometry_aware, metric_preserving


def reconstruction_only(
    config: ml_collections.ConfigDict, field: str, fields: np.ndarray, checksum: str, cache: pathlib.Path
) -> tuple[None, None]:
    """No regulariser."""
    return None, None


def geometry_aware_from_data(
    config: ml_collections.ConfigDict, field: str, fields: np.ndarray, checksum: str, cache: pathlib.Path
) -> tuple[geometry_aware.GeometryAware, np.ndarray]:
    """The geometry-aware term in the units that `config.latent.ga.scale` names, and the rows of the diffusion potential."""
    ga = config.latent.ga
    rows = cached_potential(ga, field, fields, checksum, cache, config.seed)
    unit, length = 1.0, 1.0
    if ga.scale == "neighbourhood":
        latent_size = int(np.prod(build.latent_shape(config)))
        batch_size = config.autoencoder.batch_size
        unit, length = geometry_aware.neighbourhood(rows, fields, batch_size, latent_size, config.seed)
    return geometry_aware.GeometryAware(ga.weight, ga.zeta, unit, length), rows


def cached_potential(
    ga: ml_collections.ConfigDict, field: str, fields: np.ndarray, checksum: str, cache: pathlib.Path, seed: int
) -> np.ndarray:
    """Diffusion-potential rows (N, M) of the training fields, kept in `cache` under the data's checksum."""
    numbers = {name: ga[name] for name in ("knn", "diffusion_time", "components", "landmarks")} | {"seed": seed}
    file = cache / f"potential-{field}-{checksum[:12]}-{'-'.join(map(str, numbers.values()))}.h5"
    with exclusive(file):
        with contextlib.suppress(OSError, KeyError), h5py.File(file) as stored:  # none yet, or damaged: made anew
            return stored["potential"][:]
        print(f"latent_distances: diffusion potential of {len(fields)} {field} fields")
        rows = diffusion_potential.potential(fields, **numbers)
        partial = file.with_name(file.name + ".partial")
        with h5py.File(partial, "w") as target:
            target["potential"] = rows
            target.attrs.update(field=field, data_checksum=checksum, **numbers)
        partial.replace(file)
        return rows


def metric_preserving_from_data(
    config: ml_collections.ConfigDict, field: str, fields: np.ndarray, checksum: str, cache: pathlib.Path
) -> tuple[metric_preserving.MetricPreserving, np.ndarray]:
    """The metric-preserving term, and the fields themselves."""
    mp = config.latent.mp
    return metric_preserving.MetricPreserving(mp.weight, mp.neighbours, mp.scale == "entry"), fields


REGULARISERS: dict[str, Callable] = {
    "physical": reconstruction_only,
    "recon": reconstruction_only,
    "mp": metric_preserving_from_data,
    "ga": geometry_aware_from_data,
}
"""Latent spaces by name (config.latent.kind)."""
