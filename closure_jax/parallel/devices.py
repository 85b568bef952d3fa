"""Devices: what is replicated, and how a batch and an ensemble are split. No other module maps over devices.

Where the cores of a CPU are devices (`offer_cores`), ensembles are split over them, and training has the first one.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax.errors import UserError

AXIS = "devices"
"""Name of the mapped axis, for collectives inside a `data_parallel` step."""


_MOST_CORES = 8
_offered = False


def offer_cores() -> None:
    """Makes a device of each core of a CPU, so that members of an ensemble run side by side; training stays on the first one,
    whose products use all cores.

    Does nothing where XLA_FLAGS or JAX_NUM_CPU_DEVICES says how many devices the CPU stands for, or where jax has started. To be
    called by the only process of a job.
    """
    global _offered
    counted: Any = jax.config  # whose types leave the options open
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or counted.jax_num_cpu_devices > 0:
        return
    with contextlib.suppress(RuntimeError):  # jax has started
        jax.config.update("jax_num_cpu_devices", min(_MOST_CORES, cores()))
        _offered = True


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _all() -> list[Any]:  # of jax.Device, which jax's types leave open
    """Every device that trains, process by process: the order of the mapped axis and of a global batch."""
    if _offered and not has_accelerator():
        return jax.local_devices()[:1]
    return [device for process in range(jax.process_count()) for device in jax.local_devices(process_index=process)]


def count() -> int:
    """How many devices train, in all processes."""
    return len(_all())


def describe() -> str:
    """Kind and count of the devices that train, e.g. '1 cpu device (cpu)'; of all processes."""
    devices, hosts = _all(), jax.process_count()
    plural = "" if len(devices) == 1 else "s"
    return f"{len(devices)} {devices[0].platform} device{plural} ({devices[0].device_kind})" + (
        f" in {hosts} processes" if hosts > 1 else ""
    )


def has_accelerator() -> bool:
    """Whether jax runs on something other than the CPU."""
    return jax.default_backend() != "cpu"


def offer_on_cpu(count: int) -> None:
    """Lets a CPU stand for `count` devices, if nothing has asked jax for a device yet and XLA_FLAGS doesn't say how many."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)


def check_batch(field: str, size: int) -> None:
    """A global batch must divide over the devices of all processes.

    Raises:
      UserError: it does not.
    """
    devices = count()
    if size % devices:
        nearest = max(devices, round(size / devices) * devices)
        raise UserError(f"--config.{field}={size} does not divide over {devices} devices: expected e.g. {nearest}")


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """Maps step(state, batch, key) -> (state, metrics) over all devices: batch split, state and key replicated.

    Inside, `mean` and `gather` act over the devices of all processes. The state's buffers are reused where memory is short; on
    a CPU a program that may write into its arguments takes up to a third longer, for the same numbers.
    """
    donated = 0 if has_accelerator() else ()
    return jax.pmap(step, axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=donated, devices=_all())


def mean(tree: Any) -> Any:
    """Mean over devices, inside a `data_parallel` step: turns local gradients of a local mean into global ones."""
    return jax.lax.pmean(tree, AXIS)


def gather(x: jax.Array) -> jax.Array:
    """The global batch (first axis joined over devices, in order), inside a `data_parallel` step."""
    return jax.lax.all_gather(x, AXIS, tiled=True)


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `mean` or `gather`, for use outside a mapped one: as if on one device."""
    return lambda *arguments: jax.tree.map(
        lambda leaf: leaf[0], jax.vmap(lambda _: function(*arguments), axis_name=AXIS)(jnp.zeros(1))
    )


def parts_of(members: int) -> int:
    """Over how many devices of this process an ensemble is split: the most that its members divide over."""
    return max(parts for parts in range(1, jax.local_device_count() + 1) if members % parts == 0)


def rounded(members: int) -> int:
    """The number of members, or the next one above that divides over this process' devices."""
    return -(-members // jax.local_device_count()) * jax.local_device_count()


def map_members(function: Callable[..., Any], parts: int, in_axes: Any = 0, donate: Any = ()) -> Callable[..., Any]:
    """`jax.pmap` of an ensemble's function over `parts` devices of this process; it must treat each member by itself.

    Arguments and results have the axes (parts, members / parts, ...) where `in_axes` is 0, see `split_members`. Inside, `mean`
    and `gather` act over these devices.
    """
    own = jax.local_devices()[:parts]
    return jax.pmap(function, axis_name=AXIS, in_axes=in_axes, donate_argnums=donate, devices=own)


def split_members(tree: Any, parts: int) -> Any:
    """(members, ...) -> (parts, members / parts, ...) in order, each part on its device: only there can its buffers be reused."""
    cut = jax.tree.map(lambda leaf: leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:]), tree)
    return _placed(parts)(cut)


def to_host(tree: Any) -> list[np.ndarray]:
    """The leaves of a state that `map_members` gave, on the host; random keys as their numbers."""
    return [np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


def from_host(leaves: Sequence[np.ndarray], like: Any, parts: int) -> Any:
    """The inverse of `to_host`, each part on its device; `like` is a state of the same structure, shapes and types."""
    own, structure = jax.tree.flatten(like)
    wrapped = [
        jax.random.wrap_key_data(jnp.asarray(leaf), impl=jax.random.key_impl(one)) if _is_key(one) else leaf
        for leaf, one in zip(leaves, own, strict=True)
    ]
    return _placed(parts)(jax.tree.unflatten(structure, wrapped))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@functools.cache
def _placed(parts: int) -> Callable[[Any], Any]:
    return jax.pmap(lambda tree: tree, axis_name=AXIS, devices=jax.local_devices()[:parts])


def join_members(leaf: jax.Array) -> np.ndarray:
    """The inverse, on the host: (parts, members / parts, ...) -> (members, ...)."""
    host = np.asarray(leaf)
    return host.reshape(-1, *host.shape[2:])


def replicate(tree: Any, parts: int | None = None) -> Any:
    """One copy of every leaf on each local device, or on the first `parts` of them; leading axis = devices."""
    over = _all() if parts is None else jax.local_devices()[:parts]
    copies = _local() if parts is None else parts
    return _copied(tuple(over))(np.zeros(copies), tree)


@functools.cache
def _copied(over: tuple[Any, ...]) -> Callable[..., Any]:
    """One function for all calls: jax keeps what it compiled by the function."""
    return jax.pmap(lambda _, leaf: leaf, axis_name=AXIS, in_axes=(0, None), devices=over)


def _local() -> int:
    """How many devices of this process train."""
    return count() // jax.process_count()


def unreplicate(tree: Any) -> Any:
    """The copy of the first local device, as an ordinary tree on the default device."""
    return _leading(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree))


@jax.jit
def _leading(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def first(leaf: jax.Array) -> np.ndarray:
    """One replicated array, from the first local device."""
    return np.asarray(leaf.addressable_shards[0].data)[0]


def split(tree: Any) -> Any:
    """Global batch (batch, ...) -> this process' rows (local devices, batch / devices, ...) in order, for numpy arrays."""
    devices, local = count(), _local()
    mine = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    return jax.tree.map(lambda leaf: leaf.reshape(devices, leaf.shape[0] // devices, *leaf.shape[1:])[mine], tree)
