"""`./launch.sh bench`: where the time goes, beside the least time that this device allows."""

import argparse
import fnmatch
import sys
from collections.abc import Sequence

from closure_jax import config as config_lib
from closure_jax import files
from closure_jax.bench import measure, roofline, table
from closure_jax.bench import rows as rows_lib
from closure_jax.commands import cli
from closure_jax.errors import UserError
from closure_jax.parallel import devices
from closure_jax.workdir import provenance


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("bench", "Time the parts of a closure, each beside the least time that the device allows.")
    parser.add_argument("--output", metavar="FILE.json", type=cli.path, help="write the figures here")
    parser.add_argument("--only", default="*", help="names or patterns, with commas between: dns_*,encode_compact")
    parser.add_argument("--devices", type=int, default=1, help="split each batch over as many; default 1")
    parser.add_argument(
        "--repeats", type=int, help=f"calls of each; default {measure.BUDGET} s of them, at least {measure.LEAST}"
    )
    parser.add_argument("--docs", metavar="FILE.md", type=cli.path, help="write the table in Markdown here")
    parser.add_argument("--against", metavar="FILE.json", type=cli.path, help="figures of another program to compare")
    options = parser.options(arguments)
    if options.repeats is not None and options.repeats < 1:
        raise UserError(f"--repeats={options.repeats}: expected a whole number above 0")
    if not 1 <= options.devices <= 256:
        raise UserError(f"--devices={options.devices}: expected a whole number from 1 to 256")
    for name, suffix in (("output", ".json"), ("docs", ".md")):
        path = getattr(options, name)
        if path is not None and (path.suffix != suffix or path.is_dir()):
            raise UserError(f"--{name}={path}: expected a file that ends in {suffix}")
        if path is not None:
            files.check_file(path, f"--{name}")
    return options


def chosen(patterns: Sequence[str]) -> list[str]:
    """Names of rows that match one of the patterns, in the order of the table.

    Raises:
      UserError: a pattern that matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(rows_lib.ROWS, pattern):
            hint = config_lib.nearest(pattern, rows_lib.ROWS)
            raise UserError(f"--only={pattern} is no benchmark{hint}; expected a name or a pattern like encode_*")
    return [name for name in rows_lib.ROWS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


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
    peer = table.read_peer(options.against) if options.against else None
    devices.offer_on_cpu(options.devices)
    cases = {name: rows_lib.ROWS[name]() for name in names}
    measure.check_devices(options.devices, cases)
    rates = roofline.measure_rates()
    print(f"bench on {measure.device_name()}: {table.rates_line(rates)}", flush=True)
    together = rates.times(options.devices) if devices.has_accelerator() else rates  # a CPU's devices share its cores
    rows = []
    for name in names:
        rows.append(measure.measure(name, cases.pop(name), together, options.repeats, options.devices))
        print(f"{name}: {table.duration(rows[-1]['seconds'])}", flush=True)
        if options.output:  # after each row, so that a stop loses one
            options.output.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(options.output, rows)
    lines = table.table(rows, together, peer)
    print(table.plain(lines))
    if options.docs:
        options.docs.parent.mkdir(parents=True, exist_ok=True)
        page = table.markdown(lines, rates, _command_line(options), provenance.revision(), peer)
        files.write(options.docs, page.encode())
    for path in filter(None, (options.output, options.docs)):
        print(f"written: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh bench`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    cli.leave(main())
