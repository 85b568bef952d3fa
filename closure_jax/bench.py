"""`./launch.sh bench`: where the time goes, beside the least time that this device allows."""

import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from closure_jax import benchmarks, cli, devices, roofline, workdir
from closure_jax import config as config_lib
from closure_jax import main as main_lib
from closure_jax.errors import UserError

_BUDGET = 1.5  # seconds of repeats a row
_LEAST = 5  # repeats


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("bench", "Time the parts of a closure, each beside the least time that the device allows.")
    parser.add_argument("--output", metavar="FILE.json", type=pathlib.Path, help="write the figures here")
    parser.add_argument("--only", default="*", help="names or patterns, with commas between: dns_*,encode_compact")
    parser.add_argument("--devices", type=int, default=1, help="split each batch over as many; default 1")
    parser.add_argument("--repeats", type=int, help=f"calls of each; default {_BUDGET} s of them, at least {_LEAST}")
    parser.add_argument("--docs", metavar="FILE.md", type=pathlib.Path, help="write the table in Markdown here")
    parser.add_argument(
        "--against", metavar="FILE.json", type=pathlib.Path, help="figures of another program to compare"
    )
    options = parser.parse_args(arguments)
    if options.repeats is not None and options.repeats < 1:
        raise UserError(f"--repeats={options.repeats}: expected a whole number above 0")
    if options.devices < 1:
        raise UserError(f"--devices={options.devices}: expected a whole number above 0")
    for name, suffix in (("output", ".json"), ("docs", ".md")):
        path = getattr(options, name)
        if path is not None and (path.suffix != suffix or path.is_dir()):
            raise UserError(f"--{name}={path}: expected a file that ends in {suffix}")
    return options


def chosen(patterns: Sequence[str]) -> list[str]:
    """Names of rows that match one of the patterns, in the order of the table.

    Raises:
      UserError: a pattern that matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(benchmarks.ROWS, pattern):
            hint = config_lib.nearest(pattern, benchmarks.ROWS)
            raise UserError(f"--only={pattern} is no benchmark{hint}; expected a name or a pattern like encode_*")
    return [name for name in benchmarks.ROWS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


@dataclasses.dataclass(frozen=True)
class Peer:
    """Figures of another program: `seconds` of a call by name of the row, and the `device` it names."""

    seconds: Mapping[str, float]
    device: str


def read_peer(path: pathlib.Path) -> Peer:
    """The figures of a file as `--output` writes it.

    Raises:
      UserError: it is no such file.
    """
    try:
        rows = json.loads(path.read_text())
        devices_named = dict.fromkeys(str(row["device"]) for row in rows)
        return Peer({row["name"]: float(row["seconds"]) for row in rows}, "; ".join(devices_named))
    except FileNotFoundError:
        raise UserError(f"--against={path} is not there: expected a file that bench --output has written") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"--against={path} is no list of {{name, seconds, device}}: expected a file of bench --output"
        ) from None


# --- measuring -------------------------------------------------------------------------------------------------------


def check_devices(count: int, cases: Mapping[str, benchmarks.Case]) -> None:
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


def program(case: benchmarks.Case, count: int = 1) -> tuple[Any, tuple[Any, ...]]:
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


def time_calls(case: benchmarks.Case, repeats: int | None, count: int = 1) -> tuple[np.ndarray, float]:
    """Seconds of each call, and of compilation.

    Args:
      case: what to call; the first call is not counted.
      repeats: how many calls; None: as many as fit the budget of a row, at least `_LEAST`.
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
        return len(seconds) <= _LEAST or sum(seconds[1:]) < _BUDGET

    while more():
        start = time.perf_counter()
        outputs = jax.block_until_ready(compiled(first, *others))
        seconds.append(time.perf_counter() - start)
        if case.carries:
            first = outputs[0]
    return np.array(seconds[1:]), compile_seconds


def measure(
    name: str, case: benchmarks.Case, rates: roofline.Rates, repeats: int | None = None, count: int = 1
) -> dict[str, Any]:
    """One row: name, seconds (median), batch, device, devices; spread (quartiles), repeats, compile_seconds, operations, bytes,
    floor_seconds, share (of the floor in the seconds). All but compile_seconds are of one solver step where the row is.

    `rates` are those of all `count` devices together.
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{kind}, {cores} core{'' if cores == 1 else 's'}"


# --- the table -------------------------------------------------------------------------------------------------------

_HEAD = ("row", "batch", "time", "quartiles", "floor", "share", "limited by", "compilation")


def table(rows: Sequence[Mapping[str, Any]], rates: roofline.Rates, peer: Peer | None = None) -> list[tuple[str, ...]]:
    """Headings and a line for each row; with a peer, its time and how many times ours is as fast.

    A compact row that the peer lacks stands beside its published one, which is what it replaces. Another form of a row that
    the peer measured, under a longer name, has a line of its own below.
    """
    lines = [_HEAD + (("peer", "peer / ours") if peer is not None else ())]
    for row in rows:
        low, high = row["spread"]
        matrix = row["operations"] / rates.matrix >= row["bytes"] / rates.bandwidth
        line = (
            row["name"],
            str(row["batch"]),
            duration(row["seconds"]),
            f"{duration(low)} .. {duration(high)}",
            duration(row["floor_seconds"]),
            f"{100 * row['share']:{'.0f' if row['share'] > 0.1 else '.2g'}} %",
            "operations" if matrix else "bytes",
            f"{row['compile_seconds']:.1f} s",
        )
        if peer is not None:
            replaced = row["name"].replace("_compact", "_published")
            name = row["name"] if row["name"] in peer.seconds else replaced
            label = "" if name == row["name"] else " (published)"
            theirs = peer.seconds.get(name)
            line += ("–", "–") if theirs is None else (duration(theirs) + label, f"{theirs / row['seconds']:.3g}")
        lines.append(line)
        for name, theirs in peer.seconds.items() if peer is not None else ():
            if name.startswith(row["name"] + "_") and name not in benchmarks.ROWS:
                blank = ("–",) * (len(_HEAD) - 1)
                lines.append((name, *blank, duration(theirs), f"{theirs / row['seconds']:.3g}"))
    return lines


def duration(seconds: float) -> str:
    """Three digits with a unit: 1.23 ms."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 999.5 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _plain(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


_READING = """A time is the median of a call on the whole batch, of one solver step for `dns_step` and `coupled_step`; compilation
is apart. The floor is the larger of operations over the matrix rate and bytes over the bandwidth: operations of the program as
it is written, counted by XLA, FFTs by 2.5 n log2 n; bytes of the arguments that it reads, parameters among them, and of its
outputs, once. The share is floor over time. `published` is `fm_ga:paper`, in physical space `fm_physical:paper` and for the 50
steps `dm_physical:paper`; `compact` is `fm_ga:small`; see `closure_jax/benchmarks.py`."""


def rates_line(rates: roofline.Rates) -> str:
    """The two measured rates in a sentence."""
    return (
        f"{rates.matrix / 1e9:,.0f} GFLOP/s in float32 matrix products, {rates.bandwidth / 1e9:,.1f} GB/s of memory"
        " bandwidth (triad)"
    )


def markdown(lines: Sequence[Sequence[str]], rates: roofline.Rates, command: str, peer: Peer | None = None) -> str:
    """The page docs/performance.md: how it was made, how to read it, the table."""
    origin = f"Made by `{command}` at revision {main_lib.revision()} on {device_name()}"
    beside = ""
    if peer is not None:
        beside = (
            f" The peer is another program, which ran on: {peer.device}. A line with a time of the peer alone is another form of"
            " the row above it, see `benchmarks/torch_peer.py`."
        )
    body = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    parts = [
        "# Performance",
        f"{origin}: no figure on this page was typed by hand.",
        f"Measured there: {rates_line(rates)}.",
        _READING + beside,
        "\n".join("| " + " | ".join(line) + " |" for line in body),
    ]
    return "\n\n".join(parts) + "\n"


def _command_line(options: argparse.Namespace) -> str:
    """The command without the names of files, which say nothing about the figures."""
    words = ["./launch.sh bench"]
    words += [f"--only={options.only}"] if options.only != "*" else []
    words += [f"--devices={options.devices}"] if options.devices != 1 else []
    words += [f"--repeats={options.repeats}"] if options.repeats is not None else []
    words += [f"--against={options.against.name}"] if options.against else []
    return " ".join([*words, "--docs=docs/performance.md"])


def _command(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    names = chosen(options.only.split(","))
    peer = read_peer(options.against) if options.against else None
    devices.offer_on_cpu(options.devices)
    cases = {name: benchmarks.ROWS[name]() for name in names}
    check_devices(options.devices, cases)
    rates = roofline.measure_rates()
    print(f"bench on {device_name()}: {rates_line(rates)}", flush=True)
    together = rates.times(options.devices) if devices.has_accelerator() else rates  # a CPU's devices share its cores
    rows = []
    for name in names:
        rows.append(measure(name, cases.pop(name), together, options.repeats, options.devices))
        print(f"{name}: {duration(rows[-1]['seconds'])}", flush=True)
        if options.output:  # after each row, so that a stop loses one
            options.output.parent.mkdir(parents=True, exist_ok=True)
            workdir.write_json(options.output, rows)
    lines = table(rows, together, peer)
    print(_plain(lines))
    if options.docs:
        options.docs.parent.mkdir(parents=True, exist_ok=True)
        options.docs.write_text(markdown(lines, rates, _command_line(options), peer), encoding="utf-8")
    for path in filter(None, (options.output, options.docs)):
        print(f"written: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh bench`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments), stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
