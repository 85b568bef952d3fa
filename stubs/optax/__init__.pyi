"""What the type checker knows of optax, which doesn't say that it is typed: what this package uses."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jax.typing import ArrayLike

from . import contrib as contrib

Schedule = Callable[[ArrayLike], float | Array]  # a rate is real

class GradientTransformation(NamedTuple):
    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]

class GradientTransformationExtraArgs(GradientTransformation): ...

def adam(
    learning_rate: float | Array | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs: ...
def apply_updates(params: Any, updates: Any) -> Any: ...
def chain(*args: GradientTransformation) -> GradientTransformationExtraArgs: ...
def clip_by_global_norm(max_norm: ArrayLike) -> GradientTransformation: ...
def constant_schedule(value: ArrayLike) -> Schedule: ...
def exponential_decay(
    init_value: ArrayLike,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Schedule: ...
def incremental_update(new_tensors: Any, old_tensors: Any, step_size: ArrayLike) -> Any: ...
def warmup_cosine_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: int,
    decay_steps: int,
    end_value: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> Schedule: ...
def with_extra_args_support(tx: GradientTransformation) -> GradientTransformationExtraArgs: ...
