"""Identity of a computation: what it computes, not how its source reads."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax

_FLOAT = re.compile(r"-?\d+\.\d+(?:[eE][+-]?\d+)?")


def program_digest(function: Callable[..., Any], *shapes: Any) -> str:
    """SHA-256 of the StableHLO program that JAX makes of function(*shapes), arrays or `jax.ShapeDtypeStruct`s.

    It changes with every operation, shape and constant, and with the structure of what comes in and goes out; not with comments,
    docstrings, files or names of variables. The program is that of a CPU, whatever the device. Constants count to six digits,
    so that one computed on another device, which rounds otherwise, is the same. Nothing is compiled or run.
    """
    text = jax.jit(function).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    rounded = _FLOAT.sub(lambda literal: f"{float(literal[0]):.5e}", text)
    return hashlib.sha256(rounded.encode()).hexdigest()
