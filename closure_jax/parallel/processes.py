"""The processes of a job: how they find each other, which of them writes, and where the others wait for it.

There is one process for each host, or one for each device; all run the same program. Process 0 alone writes files and prints.
"""

import contextlib
import glob
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax

from closure_jax import interrupts
from closure_jax.errors import UserError
from closure_jax.parallel import devices

Result = TypeVar("Result")

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_PATIENCE = 7 * 24 * 3600 * 1000  # ms; a process that dies ends the others long before, by its missing heartbeat
_turns = itertools.count()  # the same on every process, since all run the same program
_inside = False  # within `on_main` or `main_first`, where only some of the processes are at work


def start() -> None:
    """Joins the processes of one job by `jax.distributed`; where there is one process, offers it the cores of its CPU.

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
        devices.offer_cores()
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
      Stopped: on all, when process 0 was asked to end in it.
    """
    if _inside or jax.process_count() == 1:
        return work()
    turn = f"closure_jax/turn/{next(_turns)}"
    if is_main():
        try:
            with _apart():
                result = work()
            word = json.dumps({"result": result})
        except BaseException as error:
            number = error.number if isinstance(error, interrupts.Stopped) else None
            _client().key_value_set(turn, json.dumps({"stopped": number}))
            raise
        _client().key_value_set(turn, word)
        return result
    word = json.loads(_client().blocking_key_value_get(turn, _PATIENCE))
    if "stopped" in word:
        if word["stopped"] is not None:
            raise interrupts.Stopped(number=word["stopped"])
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
