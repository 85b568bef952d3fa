"""Strict files: JSON without the numbers that JSON does not have, written aside and renamed."""

import json
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np

from closure_jax import devices


def write_json(path: pathlib.Path, content: Any) -> None:
    """Strict JSON, written aside and renamed; numbers that are not finite become null. Process 0 alone writes."""
    if not devices.is_main():
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(strict(content), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def strict(content: Any) -> Any:
    """Plain lists, dicts and numbers; arrays as lists, numbers that are not finite as None."""
    if isinstance(content, dict):
        return {str(key): strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    if isinstance(content, np.ndarray | jax.Array):
        return strict(np.asarray(content).tolist())
    if isinstance(content, np.generic):
        return strict(content.item())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
