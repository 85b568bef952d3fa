"""Random overrides of any field, alone and in pairs: `python overrides.py EXAMPLES SEED`.

Each is refused in one line with status 2, or its costs are counted and finite; in 10 seconds, and all of them in a process of
at most 1 GB more than it had after the first.
"""

import contextlib
import io
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies

from closure_jax import config
from closure_jax.commands import train

sys.path[:0] = [str(Path(__file__).parent)]
import job  # noqa: E402

EXPERIMENTS = ("fm_ga", "cs_ga", "dm_joint", "mf_ga", "cs_ga_online", "fm_physical", "si_empirical_mp", "oracle")
SECONDS, KILOBYTES = 10.0, 10**6


def file(experiment: str) -> str:
    return f"{job.REPOSITORY / 'experiments' / experiment}.py:tiny"


def fields(experiment: str) -> list[str]:
    return [name for name, _ in config.leaves(config.load(file(experiment))) if name != "experiment_file"]


WORDS = [
    "held",
    "fresh",
    "oracle",
    "physical",
    "joint",
    "cosine",
    "plateau",
    "true",
    "False",
    "None",
    "[]",
    "{}",
    "1,2",
    "0,1",
]
WORDS += [
    "",
    " ",
    "nan",
    "-inf",
    "1e400",
    "0x10",
    "../..",
    "a b",
    "ü",
    "'",
    "\\",
    "$HOME",
    "--help",
    "a.b=c",
    "1,,2",
    "0",
    "-0.0",
]
values = strategies.one_of(
    strategies.integers(-3, 20).map(str),
    strategies.integers(-(2**65), 2**65).map(str),
    strategies.sampled_from([2**k for k in range(0, 40, 3)]).map(str),
    strategies.floats().map(repr),
    strategies.floats(0, 2).map(repr),
    strategies.sampled_from(WORDS),
    strategies.text(max_size=8).filter(lambda text: "\0" not in text),
)
"""Numbers and texts, mostly near what a field might take."""


@strategies.composite
def overrides(draw: Any) -> tuple[str, list[str]]:
    """An experiment, and one or two of its fields with values."""
    experiment = draw(strategies.sampled_from(EXPERIMENTS))
    chosen = strategies.lists(strategies.sampled_from(fields(experiment)), min_size=1, max_size=2, unique=True)
    return experiment, [f"--config.{name}={draw(values)}" for name in draw(chosen)]


def tried(experiment: str, options: list[str]) -> str:
    """How the dry run ended: 'refused' or 'counted'.

    Raises:
      AssertionError: neither, or it took too long.
    """
    out, err, begun = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = train.main([f"--config={file(experiment)}", "--dry_run", *options])
    took = time.monotonic() - begun
    if status == 2:
        said = err.getvalue()
        assert said.startswith("closure_jax: error: ") and said.count("\n") == 1, said
        assert took < SECONDS, f"{took:.0f} s"
        return "refused"
    assert status == 0, (status, err.getvalue())
    table = out.getvalue().split("work directory", 1)[-1]
    bad = [line for line in table.splitlines() if "|" in line and re.search(r"\b(nan|inf)\b", line.split("|", 2)[-1])]
    assert not bad, bad
    return "counted"


def main(count: int, seed: int) -> int:
    """Tries `count` of them; returns 1 after printing the first that is wrong, as small as hypothesis could make it."""
    ended: dict[str, int] = {}
    tried("fm_ga", [])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(overrides())
    def check(example: tuple[str, list[str]]) -> None:
        found = tried(*example)
        ended[found] = ended.get(found, 0) + 1

    check()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{ended}, {grown / 1000:.0f} MB more")
    return int(grown > KILOBYTES)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
