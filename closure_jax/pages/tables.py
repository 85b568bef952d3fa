"""Tables of values, and how a value reads: as aligned plain text, as Markdown, and as rows of text for a page.

The report of a run, the comparison of runs, the benchmark and `--dry_run` all show their tables through this module.
"""

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import Any

DASH = "–"
"""What stands for a value that is missing."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and rows of values: the first column holds names, the last `notes` columns sentences, the others numbers.

    Attributes:
      head: one heading a column.
      rows: as many values in each row as there are headings; None is shown as a dash.
      notes: number of columns at the end that hold text.
      intro: a sentence or two on how to read the table, in plain text.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: int = 0
    intro: str = ""

    @property
    def kinds(self) -> list[str]:
        """`name`, `number` or `note` for each column."""
        return ["name", *["number"] * (len(self.head) - 1 - self.notes), *["note"] * self.notes]

    def texts(self) -> list[list[str]]:
        """The rows as text."""
        return [[value_text(value) for value in row] for row in self.rows]

    def plain(self, indent: str = "") -> str:
        """Lines of text with aligned columns, numbers to the right, the headings first."""
        lines = [list(self.head), *self.texts()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]

        def aligned(line: Sequence[str]) -> str:
            cells = zip(line, widths, self.kinds, strict=True)
            return "  ".join(
                text.rjust(width) if kind == "number" else text.ljust(width) for text, width, kind in cells
            )

        return "\n".join((indent + aligned(line)).rstrip() for line in lines)

    def markdown(self) -> str:
        """The table in Markdown, numbers to the right; markup inside a cell is escaped."""
        rule = ["---:" if kind == "number" else "---" for kind in self.kinds]
        lines = [[markdown_text(cell) for cell in line] for line in [self.head, *self.texts()]]
        return "".join("| " + " | ".join(line) + " |\n" for line in [lines[0], rule, *lines[1:]])


def markdown_text(text: str) -> str:
    """Text for one line of Markdown that cannot open an HTML tag or end a cell of a table."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())


def value_text(value: Any) -> str:
    """A value as plain text: a dash for None, `number_text` of a float, else what `str` gives."""
    if value is None:
        return DASH
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(value: float) -> str:
    """Three significant digits, trailing zeros kept so that columns line up; whole numbers as they are.

    Numbers from 1 to 10 have four digits, since ratios to a perfect 1 need them, and those from 0.99 to 1 as many as
    give their distance from 1 two digits, up to eight decimals.
    """
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size < 1e6 and (size >= 100 or value == round(value)):
        return f"{value:.0f}"
    if 0.99 < size < 1:
        decimals = 1 - math.floor(math.log10(1 - size))
        return f"{value:.{min(8, decimals)}f}"
    if 1 <= size < 10:
        return f"{value:.3f}"
    mantissa, _, exponent = f"{value:#.3g}".partition("e")
    return f"{mantissa} · 10{superscript(int(exponent))}" if exponent else mantissa.rstrip(".")


def superscript(exponent: int) -> str:
    """A whole number in superscript digits: ⁻⁹ for -9."""
    return str(exponent).translate(_SUPERSCRIPTS)


def duration(seconds: float | None) -> str | None:
    """Seconds as text of seconds, minutes or hours; None where they are missing or not finite."""
    if seconds is None or not math.isfinite(seconds):
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
