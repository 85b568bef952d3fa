"""The least time a program can take on this device: operations over the matrix rate, bytes over the bandwidth, the larger.

Williams, Waterman, Patterson 2009. Operations are those of the program as it is written: XLA's count, with loops by their
length and FFTs by 2.5 n log2 n (n points of a real transform; twice that for a complex one). Bytes are those of the arguments
that it reads, parameters among them, and of its outputs, each moved once.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from closure_jax.parallel import devices


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a device reaches: `matrix` float32 operations / s in matrix products, `bandwidth` bytes / s of its memory."""

    matrix: float
    bandwidth: float

    def floor(self, operations: float, bytes_moved: float) -> float:
        """The least time [s] of a program."""
        return max(operations / self.matrix, bytes_moved / self.bandwidth)

    def times(self, count: int) -> "Rates":
        """The rates of `count` such devices that work at once."""
        return Rates(count * self.matrix, count * self.bandwidth)


def measure_rates() -> Rates:
    """Both rates, measured now on the default device: the best of a few trials, since they stand for a limit."""
    large = devices.has_accelerator()
    matrix = matrix_rate(8192 if large else 2048, trials=15)
    return Rates(matrix, triad_bandwidth(2**28 if large else 2**24))


@functools.cache
def matrix_rate(size: int = 2048, trials: int = 5) -> float:
    """Operations a second of the product of two float32 matrices of `size`^2; measured once in a process."""
    a = jnp.ones((size, size))
    return 2 * size**3 / _best_seconds(jax.jit(lambda a: a @ a), trials, a)


def triad_bandwidth(size: int, trials: int = 5) -> float:
    """Bytes a second of a = b + s c on float32 vectors of `size`, two read and one written (STREAM's triad)."""
    return 3 * 4 * size / _best_seconds(jax.jit(lambda b, c: b + 3.0 * c), trials, jnp.ones(size), jnp.full(size, 2.0))


def _best_seconds(function: Callable[..., jax.Array], trials: int, *arguments: jax.Array) -> float:
    """The shortest of a few calls, after one that compiles."""
    function(*arguments).block_until_ready()
    best = math.inf
    for _ in range(trials):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of function(*arguments), arrays or shapes; the body of a loop counts as often as it runs.

    A `while` loop whose length is not known counts once.
    """
    return _operations(jax.make_jaxpr(function)(*arguments))


def bytes_moved(function: Callable[..., Any], *arguments: Any) -> float:
    """Bytes of the outputs of function(*arguments) and of those arguments that it reads."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    read = {id(variable) for equation in program.eqns for variable in equation.invars}
    read |= {id(variable) for variable in program.outvars}
    moved: list[Any] = [variable.aval for variable in program.invars if id(variable) in read]
    moved += [variable.aval for variable in program.outvars]
    return float(sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in moved))


def _operations(program: core.ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.in_avals]
    constants = [jax.ShapeDtypeStruct(np.shape(one), jnp.result_type(one)) for one in program.consts]

    def function(constants: list[Any], *arguments: Any) -> Any:
        return core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, constants))(*arguments)

    # constants as arguments: those of a grid of 4096^2 points are written out otherwise
    return _xla_count(function, constants, *shapes) + _missed(program.jaxpr)


def _xla_count(function: Callable[..., Any], *shapes: Any) -> float:
    analysis = jax.jit(function).lower(*shapes).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _missed(program: core.Jaxpr) -> float:
    """What XLA's count of a program lacks: it takes the body of a loop once, and has its own formula for an FFT."""
    total = 0.0
    for equation in program.eqns:
        if equation.primitive.name == "fft":
            inputs: list[Any] = [variable.aval for variable in equation.invars]
            (x,) = inputs
            kind, lengths = equation.params["fft_type"], tuple(equation.params["fft_lengths"])
            total += _fft_operations(x.shape, kind, lengths) - _xla_fft_count(x.shape, x.dtype, kind, lengths)
        elif equation.primitive.name == "scan":
            body = equation.params["jaxpr"]
            total += (equation.params["length"] - 1) * _operations(body) + _missed(body.jaxpr)
        else:
            total += sum(_missed(inner) for inner in inner_programs(equation.params.values()))
    return total


def inner_programs(parameters: Iterable[Any]) -> Iterator[core.Jaxpr]:
    """The programs among the parameters of an equation: bodies of loops, branches, functions that it calls."""
    for parameter in parameters:
        if isinstance(parameter, core.ClosedJaxpr):
            yield parameter.jaxpr
        elif isinstance(parameter, core.Jaxpr):
            yield parameter
        elif isinstance(parameter, tuple | list):
            yield from inner_programs(parameter)


def _fft_operations(shape: tuple[int, ...], kind: Any, lengths: tuple[int, ...]) -> float:
    points = math.prod(lengths)
    transforms = math.prod(shape[: len(shape) - len(lengths)])
    real = jax.lax.FftType(kind) in (jax.lax.FftType.RFFT, jax.lax.FftType.IRFFT)
    return (2.5 if real else 5.0) * transforms * points * math.log2(points)


@functools.lru_cache(maxsize=64)
def _xla_fft_count(shape: tuple[int, ...], dtype: Any, kind: Any, lengths: tuple[int, ...]) -> float:
    return _xla_count(lambda x: jax.lax.fft(x, kind, lengths), jax.ShapeDtypeStruct(shape, dtype))
