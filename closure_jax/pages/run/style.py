"""Colours and lines of a report's figures."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from closure_jax.pages.results import NO_CLOSURE as NO_CLOSURE_NAME

Arrays = Mapping[str, np.ndarray]
"""The arrays of arrays.npz by name."""

DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
TRUTH = {"color": "#222222", "linewidth": 2.8}
MODEL = {"color": "#1f83d6", "linewidth": 1.8}
NO_CLOSURE = {"color": "#d55e00", "linewidth": 1.5, "linestyle": "--"}
REFERENCE = {"color": "#777777", "linewidth": 1.2, "linestyle": ":"}
_BASELINE_COLORS = ("#009e73", "#a34fb8", "#8c6d1f", "#17a2b8")
_BASELINE_LINES = ("-.", (0, (5, 1)), (0, (1, 1, 4, 1)))


_VARIANTS = ("fitted", "dynamic")
_NOISY = " ar1"


def baseline_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style for each baseline by name; the solver alone looks the same in every figure.

    Variants of one closure, such as "leith", "leith fitted" and "dynamic leith", share a colour; one with noise has the line of
    the one without, paler.
    """
    styles: dict[str, dict[str, Any]] = {}
    families: dict[str, int] = {}
    for name in (name for name in names if name != NO_CLOSURE_NAME):
        without = name.removesuffix(_NOISY)
        if without != name and without in styles:
            styles[name] = styles[without] | {"linewidth": 1.0, "alpha": 0.45}
            continue
        family = " ".join(word for word in name.split() if word not in _VARIANTS)
        place = list(families).index(family) if family in families else len(families)
        variant = families[family] = families.get(family, -1) + 1
        line = _BASELINE_LINES[(variant + place // len(_BASELINE_COLORS)) % len(_BASELINE_LINES)]
        styles[name] = {"color": _BASELINE_COLORS[place % len(_BASELINE_COLORS)], "linewidth": 1.1, "linestyle": line}
    return {NO_CLOSURE_NAME: NO_CLOSURE} | styles
