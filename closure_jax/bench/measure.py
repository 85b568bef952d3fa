"""Times one row of the benchmark, beside the least time that the device allows."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from closure_jax.bench import roofline, rows
from closure_jax.errors import UserError
from closure_jax.parallel import devices

BUDGET = 1.5  # seconds of repeats a row
LEAST = 5  # repeats


def check_devices(count: int, cases: Mapping[str, rows.Case]) -> None:
    """Raises UserError where there are not `count` devices, or the batch of a row does not divide over them."""
    available = jax.local_device_count()
    if count > available:
        raise UserError(
            f"--devices={count}: expected at most {available}, the {jax.devices()[0].platform} devices here"
        )
    for name, case in cases.items():
        if case.batch % count:
            raise UserError(
                f"--devices={count} does not divide the batch of {case.batch} of {name}: expected a number that does, or"
                " other rows in --only"
            )


def program(case: rows.Case, count: int = 1) -> tuple[Any, tuple[Any, ...]]:
    """What is called for a case on `count` devices, and its arguments: copies, on their devices, since the first is reused."""
    donated = (0,) if case.carries else ()
    if count == 1:
        arguments = jax.device_put(jax.tree.map(jax.numpy.array, case.arguments))
        return jax.jit(devices.alone(case.function), donate_argnums=donated), arguments
    # what is reused lies on each device, as the state of training does
    copied = [case.carries and place == 0 and not split for place, split in enumerate(case.split)]
    axes = tuple(0 if split or copy else None for split, copy in zip(case.split, copied, strict=True))
    arguments = tuple(
        devices.split_members(argument, count) if split else devices.replicate(argument, count) if copy else argument
        for argument, split, copy in zip(case.arguments, case.split, copied, strict=True)
    )
    return devices.map_members(case.function, count, axes, donated), arguments


def time_calls(case: rows.Case, repeats: int | None, count: int = 1) -> tuple[np.ndarray, float]:
    """Seconds of each call, and of compilation.

    Args:
      case: what to call; the first call is not counted.
      repeats: how many calls; None: as many as fit the budget of a row, at least `LEAST`.
      count: devices over which the batch is split.
    """
    function, (first, *others) = program(case, count)
    start = time.perf_counter()
    compiled = function.lower(first, *others).compile()
    compile_seconds = time.perf_counter() - start
    seconds: list[float] = []

    def more() -> bool:
        if repeats is not None:
            return len(seconds) <= repeats
        return len(seconds) <= LEAST or sum(seconds[1:]) < BUDGET

    while more():
        start = time.perf_counter()
        outputs = jax.block_until_ready(compiled(first, *others))
        seconds.append(time.perf_counter() - start)
        if case.carries:
            first = outputs[0]
    return np.array(seconds[1:]), compile_seconds


def measure(
    name: str, case: rows.Case, rates: roofline.Rates, repeats: int | None = None, count: int = 1
) -> dict[str, Any]:
    """One row of the benchmark.

    Args:
      name: of the row.
      case: what to call.
      rates: of all `count` devices together.
      repeats: how many calls; None: as many as fit the budget of a row.
      count: devices over which the batch is split.

    Returns:
      name, seconds (median of a call), batch, device, devices, spread (quartiles, s), repeats, compile_seconds, operations,
      bytes, floor_seconds, share (of the floor in the seconds). All but compile_seconds are of one solver step where the row is.
    """
    seconds, compile_seconds = time_calls(case, repeats, count)
    low, median, high = np.quantile(seconds / case.steps, (0.25, 0.5, 0.75))
    unit, steps = (case.function, case.steps) if case.unit is None else (case.unit, 1)
    operations = roofline.operations(devices.alone(unit), *case.arguments) / steps
    moved = roofline.bytes_moved(devices.alone(unit), *case.arguments) / steps
    floor = rates.floor(operations, moved)
    return {
        "name": name,
        "seconds": median,
        "batch": case.batch,
        "device": device_name(),
        "devices": count,
        "spread": [low, high],
        "repeats": len(seconds),
        "compile_seconds": compile_seconds,
        "operations": operations,
        "bytes": moved,
        "floor_seconds": floor,
        "share": floor / median,
    }


def device_name() -> str:
    """The device that a row runs on, e.g. 'NVIDIA H100 80GB HBM3' or 'cpu, 2 cores'."""
    kind = jax.devices()[0].device_kind
    if devices.has_accelerator():
        return kind
    cores = devices.cores()
    return f"{kind}, {cores} core{'' if cores == 1 else 's'}"
