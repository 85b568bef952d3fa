"""Progress of long work: a bar on a terminal, a line a minute elsewhere."""

import sys
from typing import Any

from tqdm import tqdm

from closure_jax.parallel import processes

SECONDS = 60.0
"""Between two lines of progress, where output is no terminal."""


def bar(total: int, label: str, unit: str, done: int = 0) -> tqdm:
    """A bar on a terminal; where output goes elsewhere, a line on stdout each minute, none in the first. Process 0 shows it.

    Args:
      total: units of the whole work.
      label: what is done.
      unit: singular.
      done: units that were done before.
    """
    if not processes.is_main():
        return tqdm(disable=True)
    shown: dict[str, Any] = {"total": total, "initial": done, "desc": label, "unit": unit}
    if sys.stderr.isatty():
        return tqdm(mininterval=1.0, **shown)
    line = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} since the start, {remaining} left{postfix}"
    often: dict[str, Any] = {"mininterval": SECONDS, "miniters": 1, "delay": SECONDS}
    return tqdm(file=_Lines(), bar_format=line, **often, **shown)


class _Lines:
    """A file for tqdm that is no terminal: what would be drawn over the line before is a line of its own."""

    def write(self, text: str) -> None:
        """Prints what there is to see in the text."""
        if text.strip():
            print(text.strip(), flush=True)

    def flush(self) -> None:
        """Each line was."""
