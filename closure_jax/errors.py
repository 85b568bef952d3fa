"""The one exception that a user's mistake raises, and the checks that raise it."""

import math
import numbers
from collections.abc import Sequence
from typing import Any


class UserError(Exception):
    """A mistake of the caller: the message is one line that names the value, what was expected and the remedy.

    The command line prints it without a traceback and ends with exit status 2.
    """


def check(holds: bool, message: str) -> None:
    """Raises UserError with the message where a rule does not hold.

    In the `__post_init__` of a piece the message begins with `FIELD=VALUE: expected`; the configuration puts
    `--config.SECTION.` before it.
    """
    if not holds:
        raise UserError(message)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that is known, and no truth value."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def one_of(piece: Any, field: str, choices: Sequence[str]) -> None:
    """Raises UserError where a field of the piece is none of the choices."""
    value = getattr(piece, field)
    check(value in choices, f"{field}={value}: expected {', '.join(choices)}")


def finite(piece: Any, *fields: str) -> None:
    """Raises UserError where one of the piece's fields is not a finite number."""
    for field in fields:
        value = getattr(piece, field)
        check(isinstance(value, numbers.Real) and math.isfinite(value), f"{field}={value}: expected a finite number")


def positive(piece: Any, *fields: str, most: float = math.inf) -> None:
    """Raises UserError where one of the piece's fields is not a finite number above 0, or is above `most`."""
    finite(piece, *fields)
    for field in fields:
        value = getattr(piece, field)
        check(value > 0, f"{field}={value}: expected a number above 0")
        check(value <= most, f"{field}={value}: expected at most {most:,}")


def not_negative(piece: Any, *fields: str) -> None:
    """Raises UserError where one of the piece's fields is not a finite number, or is below 0."""
    finite(piece, *fields)
    for field in fields:
        value = getattr(piece, field)
        check(value >= 0, f"{field}={value}: expected a number that is not negative")


def grid_size(piece: Any, *fields: str) -> None:
    """Raises UserError where one of the piece's fields is no number of points a side that a grid may have."""
    for field in fields:
        n = getattr(piece, field)
        check(8 <= n <= 4096 and n % 2 == 0, f"{field}={n}: expected an even whole number from 8 to 4096")
