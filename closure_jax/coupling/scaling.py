"""A closure whose noise is scaled: m + factor (x - m), x a draw and m the conditional mean, which is had in one of three ways.

The derivation of factors stands in docs/coupling.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from closure_jax.coupling.base import draw_closure, draw_mean
from closure_jax.coupling.draw import Draw
from closure_jax.errors import check

MEANS = ("antithetic", "own", "linear")
"""Where the conditional mean comes from: a pair of draws with noise z and -z, or the draw's own `mean`; or none is needed, since
a draw that is linear in z about its mean has its fluctuation scaled with z."""


def check_mean_by(mean: str) -> None:
    """Raises UserError where the conditional mean can't be had so from any draw."""
    check(mean in MEANS, f"mean={mean}: expected one of {', '.join(MEANS)}")


def check_has_mean(draw: Draw, vorticity: Float[Array, "state member n n"], mean: str) -> None:
    """Raises UserError where mean = own, and the draw has no mean, or mean = linear, and it is not; nothing is computed."""
    if mean == "linear":
        check(
            getattr(draw, "linear_in_noise", False),
            "mean=linear: expected a draw that is linear in its noise, as a generator of products is, and this one is not;"
            " mean=antithetic takes the mean from a pair of draws",
        )
    if mean == "own":
        check(
            jax.eval_shape(lambda: draw_mean(draw, vorticity)) is not None,
            "mean=own: expected a draw that knows its conditional mean, which this one does not; mean=antithetic takes it"
            " from a pair of draws",
        )


def scaled_closure(
    draw: Draw, noise: Any, vorticity: Float[Array, "state member n n"], factor: float, mean: str
) -> Float[Array, "state member n n"]:
    """The closure of each member from its noise, with the fluctuation times `factor`.

    With an antithetic pair, the part of the closure that is even in the noise counts as its mean: it is not scaled.

    Args:
      draw: where closures come from.
      noise: of each member, as `draw_noise` gives it.
      vorticity: physical units.
      factor: of the fluctuation; with 1 the draw itself is returned, and no mean is computed.
      mean: where the conditional mean comes from.
    Raises:
      UserError: see `check_has_mean`.
    """
    check_has_mean(draw, vorticity, mean)
    if factor == 1 or not jax.tree.leaves(noise):
        return draw_closure(draw, noise, vorticity)
    if mean == "linear":
        return draw_closure(draw, jax.tree.map(lambda z: factor * z, noise), vorticity)
    own = draw_mean(draw, vorticity) if mean == "own" else None
    if own is not None:
        return own + factor * (draw_closure(draw, noise, vorticity) - own)
    both = jax.tree.map(lambda z: jnp.concatenate([z, -z], axis=1), noise)
    pairs = draw_closure(draw, both, jnp.concatenate([vorticity, vorticity], axis=1))
    plus, minus = jnp.split(pairs, 2, axis=1)
    return (plus + minus) / 2 + factor * (plus - minus) / 2
