"""Hosts and devices: which process writes, what is replicated, how a batch is split. No other module maps over devices.

There is one process for each host, or one for each device; all run the same program. Process 0 alone writes files and prints.
"""

import contextlib
import functools
import glob
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from closure_jax import interrupts
from closure_jax.errors import UserError

AXIS = "devices"
"""Name of the mapped axis, for collectives inside a `data_parallel` step."""

Result = TypeVar("Result")

# --- hosts ---------------------------------------------------------------------------------------------------------------

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_PATIENCE = 7 * 24 * 3600 * 1000  # ms; a process that dies ends the others long before, by its missing heartbeat
_turns = itertools.count()  # the same on every process, since all run the same program
_inside = False  # within `on_main` or `main_first`, where only some of the processes are at work


def start() -> None:
    """Joins the processes of one job by `jax.distributed`; does nothing where there is one process.

    They are found from JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, else from a
    SLURM job step of several tasks, else from the metadata of a TPU pod. To be called before anything asks jax for a device.

    Raises:
      UserError: only some of the variables are set, or to what can't be; or process 0 can't be reached.
    """
    if jax.distributed.is_initialized():
        return
    options = _from_variables(os.environ) or _from_slurm(os.environ)
    if options is None and _on_tpu(os.environ):
        options = {}
    if options is None:
        return
    # Without it a CPU knows the other processes but can't exchange arrays with them.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would catch SIGTERM, as `interrupts` does.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"the processes of the job can't be joined ({reason}): expected process 0 at the coordinator's address and all"
            f" processes started; check {', '.join(_VARIABLES)}"
        ) from None


def _from_variables(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None where the variables are absent or name one process."""
    given = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    if not given:
        return None
    missing = [name for name in _VARIABLES if name not in given]
    if missing:
        raise UserError(f"{', '.join(given)} without {', '.join(missing)}: expected all three, or none for one process")
    address, *numbers = (given[name] for name in _VARIABLES)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"{_VARIABLES[0]}={address}: expected HOST:PORT of process 0, such as node01:12345")
    if not numbers[0].isdigit() or int(numbers[0]) < 1:
        raise UserError(f"{_VARIABLES[1]}={numbers[0]}: expected how many processes there are, a whole number above 0")
    count = int(numbers[0])
    if not numbers[1].isdigit() or int(numbers[1]) >= count:
        raise UserError(f"{_VARIABLES[2]}={numbers[1]}: expected the number of this process, from 0 to {count - 1}")
    options = {"coordinator_address": address, "num_processes": count, "process_id": int(numbers[1])}
    return None if count == 1 else options | {"cluster_detection_method": "deactivate"}


def _from_slurm(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments for a task of a SLURM job step; None outside one (a batch script itself is no step) and for a single task.

    jax reads the rest from SLURM and takes one GPU for each task, the one numbered as the task is on its node. That is
    wrong where a task sees one GPU only (--gpus-per-task), and where it has the node to itself.
    """
    if environment.get("SLURM_STEP_NUM_TASKS", "1") in ("", "1"):
        return None
    options: dict[str, Any] = {"cluster_detection_method": "slurm"}
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0]
    if len(visible) == 1 or (visible and tasks == "1"):
        options["local_device_ids"] = list(range(len(visible)))
    return options


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether this is a TPU machine with its library, as in a pod; jax asks the machine's metadata for the others."""
    if environment.get("JAX_PLATFORMS", "tpu") not in ("", "tpu") or importlib.util.find_spec("libtpu") is None:
        return False
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def is_main() -> bool:
    """Whether this is process 0, which writes files and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


@contextlib.contextmanager
def main_speaks() -> Iterator[None]:
    """Within it, what other processes than process 0 print is dropped."""
    with contextlib.redirect_stdout(sys.stdout if is_main() else None):
        yield


PROGRESS_SECONDS = 60.0
"""Between two lines of progress, where output is no terminal."""


def progress(total: int, label: str, unit: str, done: int = 0) -> tqdm:
    """A bar on a terminal; where output goes elsewhere, a line on stdout each minute, none in the first. Process 0 shows it.

    Args:
      total: units of the whole work.
      label: what is done.
      unit: singular.
      done: units that were done before.
    """
    if not is_main():
        return tqdm(disable=True)
    shown: dict[str, Any] = {"total": total, "initial": done, "desc": label, "unit": unit}
    if sys.stderr.isatty():
        return tqdm(mininterval=1.0, **shown)
    line = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} since the start, {remaining} left{postfix}"
    often: dict[str, Any] = {"mininterval": PROGRESS_SECONDS, "miniters": 1, "delay": PROGRESS_SECONDS}
    return tqdm(file=_Lines(), bar_format=line, **often, **shown)


class _Lines:
    """A file for tqdm that is no terminal: what would be drawn over the line before is a line of its own."""

    def write(self, text: str) -> None:
        """Prints what there is to see in the text."""
        if text.strip():
            print(text.strip(), flush=True)

    def flush(self) -> None:
        """Each line was."""


def _client() -> Any:
    # The coordination service has no public name in jax 0.10. Barriers of `multihost_utils` are collectives, which give
    # up after half a minute on a CPU, where a simulation on process 0 takes hours.
    from jax._src import distributed

    return distributed.global_state.client


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    global _inside
    _inside = True
    try:
        yield
    finally:
        _inside = False


def on_main(work: Callable[[], Result]) -> Result:
    """Process 0 does `work()`, the others wait for it; all return its result, which must be JSON or None.

    Every process must come here, in the same order. Inside `work` a further call is an ordinary one.

    Raises:
      UserError: on the others, when it failed on process 0, which raises the error itself.
    """
    if _inside or jax.process_count() == 1:
        return work()
    turn = f"closure_jax/turn/{next(_turns)}"
    if is_main():
        try:
            with _apart():
                result = work()
            word = json.dumps({"result": result})
        except BaseException:
            _client().key_value_set(turn, json.dumps({"failed": True}))
            raise
        _client().key_value_set(turn, word)
        return result
    word = json.loads(_client().blocking_key_value_get(turn, _PATIENCE))
    if "failed" in word:
        interrupts.check()
        raise UserError("process 0 has ended: expected it to go on; its message says why")
    return word["result"]


def asked_to_stop() -> bool:
    """Whether a process of the job was asked to end: the same answer on each, in a place where all come in the same order."""
    if _inside or jax.process_count() == 1:
        return interrupts.asked() is not None
    if interrupts.asked() and not is_main():
        _client().key_value_set("closure_jax/stop/asked", "", allow_overwrite=True)
    return on_main(lambda: interrupts.asked() is not None or bool(_client().key_value_dir_get("closure_jax/stop")))


def main_first(work: Callable[[], Result]) -> Result:
    """Process 0 does `work()`, then the others do it too and find the files that it left; each returns its own result."""
    if _inside or jax.process_count() == 1:
        return work()
    kept: list[Result] = []
    on_main(lambda: kept.append(work()))
    if kept:
        return kept[0]
    with _apart():
        return work()


def barrier() -> None:
    """Waits until every process is here."""
    if not _inside and jax.process_count() > 1:
        _client().wait_at_barrier(f"closure_jax/barrier/{next(_turns)}", _PATIENCE)


# --- devices -------------------------------------------------------------------------------------------------------------


def _all() -> list[Any]:  # of jax.Device, which jax's types leave open
    """Every device of the job, process by process: the order of the mapped axis and of a global batch."""
    return [device for process in range(jax.process_count()) for device in jax.local_devices(process_index=process)]


def describe() -> str:
    """Kind and count of the devices in use, e.g. '1 cpu device (cpu)'; of all processes."""
    devices, hosts = jax.devices(), jax.process_count()
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
    count = jax.device_count()
    if size % count:
        nearest = max(count, round(size / count) * count)
        raise UserError(f"--config.{field}={size} does not divide over {count} devices: expected e.g. {nearest}")


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """Maps step(state, batch, key) -> (state, metrics) over all devices: batch split, state and key replicated.

    Inside, `mean` and `gather` act over the devices of all processes. The state's buffers are reused.
    """
    return jax.pmap(step, axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=0, devices=_all())


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


def index() -> jax.Array:
    """Which device this is, inside a `data_parallel` step."""
    return jax.lax.axis_index(AXIS)


def parts_of(members: int) -> int:
    """Over how many devices of this process an ensemble is split: all if its members divide over them, else one."""
    count = jax.local_device_count()
    return 1 if members % count else count


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
    count = jax.local_device_count() if parts is None else parts
    return jax.pmap(lambda _, leaf: leaf, axis_name=AXIS, in_axes=(0, None), devices=over)(np.zeros(count), tree)


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
    count, local = jax.device_count(), jax.local_device_count()
    mine = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    return jax.tree.map(lambda leaf: leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:])[mine], tree)
