"""The only room that says pmap: devices, replication, and the split of a batch over them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax.errors import UserError

AXIS = "devices"
"""Name of the mapped axis, for collectives inside a `data_parallel` step."""


def describe() -> str:
    """Kind and count of the devices in use, e.g. '1 cpu device (cpu)'."""
    devices = jax.devices()
    plural = "" if len(devices) == 1 else "s"
    return f"{len(devices)} {devices[0].platform} device{plural} ({devices[0].device_kind})"


def has_accelerator() -> bool:
    """Whether jax runs on something other than the CPU."""
    return jax.default_backend() != "cpu"


def check_batch(field: str, size: int) -> None:
    """A global batch must divide over the devices.

    Raises:
      UserError: it does not.
    """
    count = jax.local_device_count()
    if size % count:
        nearest = max(count, round(size / count) * count)
        raise UserError(f"--config.{field}={size} does not divide over {count} devices: expected e.g. {nearest}")


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """Maps step(state, batch, key) -> (state, metrics) over devices: batch split, state and key replicated.

    Inside, `mean` and `gather` act over all devices. The state's buffers are reused.
    """
    return jax.pmap(step, axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=0)


def mean(tree: Any) -> Any:
    """Mean over devices, inside a `data_parallel` step: turns local gradients of a local mean into global ones."""
    return jax.lax.pmean(tree, AXIS)


def gather(x: jax.Array) -> jax.Array:
    """The global batch (first axis joined over devices, in order), inside a `data_parallel` step."""
    return jax.lax.all_gather(x, AXIS, tiled=True)


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `mean` or `gather`, for use outside a `data_parallel` step: as if on one device."""
    return lambda *arguments: jax.tree.map(
        lambda leaf: leaf[0], jax.vmap(lambda _: function(*arguments), axis_name=AXIS)(jnp.zeros(1))
    )


def index() -> jax.Array:
    """Which device this is, inside a `data_parallel` step."""
    return jax.lax.axis_index(AXIS)


def replicate(tree: Any) -> Any:
    """One copy of every leaf on each local device, leading axis = devices."""
    count = jax.local_device_count()
    return jax.pmap(lambda _, leaf: leaf, in_axes=(0, None))(np.zeros(count), tree)


def unreplicate(tree: Any) -> Any:
    """The copy of the first device, as an ordinary tree on the default device."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.addressable_shards[0].data[0]), tree)


def split(tree: Any) -> Any:
    """(batch, ...) -> (devices, batch / devices, ...) in order, for numpy arrays."""
    count = jax.local_device_count()
    return jax.tree.map(lambda leaf: leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:]), tree)
