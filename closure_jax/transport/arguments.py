"""What a closure, its transport and a coupled solver are called with: real fields, keys, sampler steps and noise, or one line."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from closure_jax.errors import UserError, check
from closure_jax.transport.base import Noise, Steps, Transport

_MOST_STEPS = 2_000_000_000  # a loop of jax counts in 32 bits


def check_real(name: str, values: Any) -> tuple[int, ...]:
    """The shape of an array of real numbers; where `checkify` asks for it, they have to be finite.

    Raises:
      UserError: it is no array of jax or NumPy, or one of other numbers.
    """
    check(
        isinstance(values, jax.Array | np.ndarray | np.generic),
        f"{name} of type {type(values).__name__}: expected an array of real floating-point numbers",
    )
    real = jnp.issubdtype(values.dtype, jnp.floating)
    check(real, f"{name} of type {values.dtype}: expected real floating-point numbers")
    checkify.debug_check(jnp.isfinite(values).all(), f"{name} is not finite: expected finite numbers")
    return values.shape


def check_keys(keys: Any) -> tuple[int, ...]:
    """Shape of an array of random keys, typed ones or the uint32 numbers of old ones.

    Raises:
      UserError: they are none.
    """
    dtype = getattr(keys, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jnp.shape(keys)
    expected = "expected a random key, such as jax.random.key(0)"
    check(dtype == jnp.uint32, f"key of type {dtype or type(keys).__name__}: {expected}")
    shape, old = jnp.shape(keys), jax.eval_shape(lambda: jax.random.PRNGKey(0)).shape
    check(shape[-1:] == old, f"key of type uint32 and shape {shape}: {expected}")
    return shape[:-1]


def check_steps(steps: Any) -> Steps:
    """A number of sampler steps, checked where it is known; of a traced one where `checkify` asks for it.

    Raises:
      UserError: it is not a whole number of at least 1.
    """
    try:
        number = operator.index("" if isinstance(steps, bool) else steps)  # type: ignore[arg-type]
    except TypeError:  # among others of a traced number
        if isinstance(steps, jax.Array) and jnp.issubdtype(steps.dtype, jnp.integer) and not steps.shape:
            checkify.debug_check(steps >= 1, "steps={steps}: expected at least 1 sampler step", steps=steps)
            return steps
        shown = " ".join(str(steps).split())
        raise UserError(f"steps={shown}: expected a single whole number of sampler steps") from None
    check(number >= 1, f"steps={number}: expected at least 1 sampler step")
    check(number <= _MOST_STEPS, f"steps={number}: expected at most {_MOST_STEPS:,} sampler steps")
    return number


def noise_shapes(transport: Transport, shape: tuple[int, ...], steps: int) -> Noise:
    """Shapes of the noise of one sample (shape), with a leading axis of 1; nothing is drawn."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return jax.eval_shape(lambda keys: transport.noise(keys, shape, steps), keys)


def check_noise(transport: Transport, noise: Noise, batch: tuple[int, ...]) -> None:
    """Raises UserError where noise is not what a transport draws for a batch of samples; finite ones where `checkify` asks.

    Args:
      transport: whose noise it should be.
      noise: any object.
      batch: shape of the samples together, (batch, ...).
    """
    numbers = (1, 2) if transport.times else (1, 1)  # a generator of one call may refuse another
    few, more = (noise_shapes(transport, batch[1:], steps) for steps in numbers)
    structures = [jax.tree.structure(tree) for tree in (noise, few, more)]
    own = structures[1] != structures[2]  # a transport of one's own, with leaves for each step
    drawn = "as noise(keys, vorticity) draws it"
    check(own or structures[0] == structures[1], f"noise {structures[0]}: expected {structures[1]}, {drawn}")
    found = [check_real("noise", leaf) for leaf in jax.tree.leaves(noise)]
    counts = {shape[0] if shape else 0 for shape in found}
    check(
        counts <= {batch[0]},
        f"noise of {min(counts, default=0)} samples for {batch[0]} fields: expected one for each field",
    )
    if own:
        return
    for shape, one, two in zip(found, jax.tree.leaves(few), jax.tree.leaves(more), strict=True):
        # an axis whose length goes with the sampler steps may be longer
        wanted = tuple(a if a == b else "steps" for a, b in zip(one.shape, two.shape, strict=True))[1:]
        fits = len(shape) == len(one.shape) and all(a in (b, "steps") for a, b in zip(wanted, shape[1:], strict=True))
        check(fits, f"noise of shape {shape[1:]} for each field: expected {wanted}, {drawn}")
