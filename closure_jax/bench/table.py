"""The table of a benchmark: its rows as text and Markdown, beside the figures of another program."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from closure_jax.bench import roofline
from closure_jax.bench import rows as rows_lib
from closure_jax.bench.measure import device_name
from closure_jax.errors import UserError
from closure_jax.pages.tables import Table


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
        return Peer({str(row["name"]): float(row["seconds"]) for row in rows}, "; ".join(devices_named))
    except FileNotFoundError:
        raise UserError(f"--against={path} is not there: expected a file that bench --output has written") from None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise UserError(
            f"--against={path} is no list of {{name, seconds, device}}: expected a file of bench --output"
        ) from None


_HEAD: tuple[str, ...] = ("row", "batch", "time", "quartiles", "floor", "share", "limited by", "compilation")


def table(rows: Sequence[Mapping[str, Any]], rates: roofline.Rates, peer: Peer | None = None) -> list[tuple[str, ...]]:
    """Headings and a line for each row; with a peer, its time and how many times ours is as fast.

    A compact row that the peer lacks stands beside its published one, which is what it replaces. Another form of a row that
    the peer measured, under a longer name, has a line of its own below.
    """
    lines: list[tuple[str, ...]] = [_HEAD + (("peer", "peer / ours") if peer is not None else ())]
    for row in rows:
        low, high = row["spread"]
        matrix = row["operations"] / rates.matrix >= row["bytes"] / rates.bandwidth
        line: tuple[str, ...] = (
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
            if name.startswith(row["name"] + "_") and name not in rows_lib.ROWS:
                blank = ("–",) * (len(_HEAD) - 1)
                lines.append((name, *blank, duration(theirs), f"{theirs / row['seconds']:.3g}"))
    return lines


def duration(seconds: float) -> str:
    """Three digits with a unit: 1.23 ms."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 999.5 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """The lines of `table` as aligned text."""
    return Table(lines[0], lines[1:]).plain()


_READING = """A time is the median of a call on the whole batch, of one solver step for `dns_step` and `coupled_step`; compilation
is apart. The floor is the larger of operations over the matrix rate and bytes over the bandwidth: operations of the program as
it is written, counted by XLA, FFTs by 2.5 n log2 n; bytes of the arguments that it reads, parameters among them, and of its
outputs, once. The share is floor over time. `published` is `fm_ga:paper`, in physical space `fm_physical:paper` and for the 50
steps `dm_physical:paper`; `compact` is `fm_ga:small`; see `closure_jax/bench/rows.py`."""


def rates_line(rates: roofline.Rates) -> str:
    """The two measured rates in a sentence."""
    return (
        f"{rates.matrix / 1e9:,.0f} GFLOP/s in float32 matrix products, {rates.bandwidth / 1e9:,.1f} GB/s of memory"
        " bandwidth (triad)"
    )


def markdown(
    lines: Sequence[Sequence[str]], rates: roofline.Rates, command: str, revision: str, peer: Peer | None = None
) -> str:
    """The page docs/performance.md: how it was made, how to read it, the table.

    Args:
      lines: headings and rows of text.
      rates: of this device.
      command: that made the page.
      revision: of the code.
      peer: another program, whose times stand beside.
    """
    origin = f"Made by `{command}` at revision {revision} on {device_name()}"
    beside = ""
    if peer is not None:
        beside = (
            f" The peer is another program, which ran on: {peer.device}. A line with a time of the peer alone is another form of"
            " the row above it, see `benchmarks/torch_peer.py`."
        )
    parts = [
        "# Performance",
        f"{origin}: no figure on this page was typed by hand.",
        f"Measured there: {rates_line(rates)}.",
        _READING + beside,
        Table(lines[0], lines[1:]).markdown().rstrip(),
    ]
    return "\n\n".join(parts) + "\n"
