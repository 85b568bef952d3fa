"""Dynamics of an ensemble: what is integrated, and the solver closed by draws as one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Key

from closure_jax.coupling.base import Between, Carry, Coupling, StepNumber
from closure_jax.coupling.draw import Draw
from closure_jax.errors import check, is_whole
from closure_jax.physics import spectral
from closure_jax.physics.stepper import repeated
from closure_jax.transport.arguments import check_keys, check_real

State = TypeVar("State")
Step: TypeAlias = Callable[[Array, Array], Array]
"""step(vorticity_hat, closure_hat) -> vorticity_hat, each (..., n, n // 2 + 1): one step of the solver with its closure."""


@runtime_checkable
class Dynamics(Protocol):
    """What an ensemble integrates; states are pytrees whose leaves have the leading axes (state, member).

    Attributes:
      dt: time of one step.
      period: steps that cannot be cut.
      crosses_members: whether members of a state influence each other; they are then integrated together.
    """

    @property
    def dt(self) -> float: ...

    @property
    def period(self) -> int: ...

    @property
    def crosses_members(self) -> bool: ...

    def begin(self, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> Any:
        """The state of members that start from `vorticity` (physical units); one key each, the same in all of their run."""
        ...

    def advance(self, keys: Key[Array, "state member"], state: Any, start: StepNumber, steps: int) -> Any:
        """The state `steps` later, a static multiple of `period`; `start` is the number of the first step.

        Draws depend on a member's key and the number of the step alone, so a run may be cut at any period.
        """
        ...

    def vorticity(self, state: Any) -> Float[Array, "state member n n"]:
        """The vorticity of a state, physical units."""
        ...


class Independent:
    """Dynamics that can be cut at any step, and whose members do not see each other."""

    @property
    def period(self) -> int:
        """1."""
        return 1

    @property
    def crosses_members(self) -> bool:
        """No."""
        return False


def by_period(
    body: Callable[[State, Any], State], state: State, start: StepNumber, steps: int, period: int, remat: bool = False
) -> State:
    """body(state, number of its first step) for each period in `steps` steps, in one `lax.scan`.

    Args:
      body: one period; pure.
      state: pytree that it carries.
      start: number of the first step.
      steps: static multiple of `period`.
      period: steps of one call.
      remat: recompute inside the backward pass, so that a long run can be differentiated in bounded memory.
    Raises:
      UserError: `steps` is no multiple of `period`, or not known.
    """
    check(
        is_whole(steps) and steps >= 0 and steps % period == 0,
        f"steps={steps}: expected a static number of solver steps that is a multiple of the period, {period}",
    )
    one = jax.checkpoint(body) if remat else body
    return jax.lax.scan(
        lambda carry, index: (one(carry, start + period * index), None), state, jnp.arange(steps // period)
    )[0]


class CoupledState(NamedTuple):
    """The members of an ensemble.

    Attributes:
      vorticity_hat: (state, member, n, n // 2 + 1).
      carry: of their rule.
      before: the closure of the period before and what it weighs, where a closure is that of an instant.
    """

    vorticity_hat: Complex[Array, "state member n half"]
    carry: Carry
    before: tuple[()] | tuple[Float[Array, "state member n n"], Float[Array, "state member"]] = ()


@dataclasses.dataclass(frozen=True)
class Coupled:
    """The closed solver: each period a closure from `coupling`, held while the solver steps.

    Attributes:
      step: of the solver; its own closure term is absent.
      dt: time of one step.
      draw: where closures come from.
      coupling: the rule for their noise in time.
      remat: see `by_period`.
      instantaneous: whether the draw gives the closure of an instant rather than that of a step. It is then extrapolated by half
        a step, x + (x - x') / (2 period) with x' that of the period before, which for a period of one step is the second-order
        formula of Adams and Bashforth.
    """

    step: Step
    dt: float
    draw: Draw
    coupling: Coupling
    remat: bool = False
    instantaneous: bool = False

    def __post_init__(self) -> None:
        _check_piece("draw", self.draw, Draw, "a closure, such as cj.load gives")
        _check_piece("coupling", self.coupling, Coupling, "a rule, such as cj.COUPLINGS['held'](period=5)")
        check(callable(self.step), f"step={self.step}: expected step(vorticity_hat, closure_hat) -> vorticity_hat")

    @property
    def period(self) -> int:
        """Of the rule."""
        return self.coupling.period

    @property
    def crosses_members(self) -> bool:
        """Whether the rule does."""
        return self.coupling.crosses_members

    def begin(self, keys: Key[Array, "state member"], vorticity: Float[Array, "state member n n"]) -> CoupledState:
        """See `Dynamics`.

        Raises:
          UserError: arguments of other shapes or types; fields that are not of the draw's grid, or of the solver's; not finite
            ones where `checkify` asks.
        """
        shape = check_real("vorticity", vorticity)
        check(
            len(shape) == 4 and shape[2] == shape[3],
            f"vorticity of shape {shape}: expected (state, member, n, n); an ensemble of one state is vorticity[None]",
        )
        _check_members(keys, shape[:2])
        jax.eval_shape(self.draw.noise, keys.reshape(-1), vorticity.reshape(-1, *shape[2:]))
        self._check_step(vorticity)
        nothing = (jnp.zeros_like(vorticity), jnp.zeros_like(vorticity[..., 0, 0])) if self.instantaneous else ()
        return CoupledState(spectral.to_fourier(vorticity), self.coupling.begin(self.draw, keys, vorticity), nothing)

    def advance(
        self, keys: Key[Array, "state member"], state: CoupledState, start: StepNumber, steps: int
    ) -> CoupledState:
        """See `Dynamics`.

        Raises:
          UserError: `steps` is no multiple of the period, or the keys are not those of the members.
        """
        _check_members(keys, state.vorticity_hat.shape[:2])
        between: Between | None = getattr(self.coupling, "between", lambda: None)()

        def held(vorticity_hat: Array, closure: Array, number: StepNumber) -> Array:
            closure_hat = spectral.to_fourier(closure)
            if between is None:
                return repeated(lambda vorticity_hat: self.step(vorticity_hat, closure_hat), self.period)(vorticity_hat)
            change = between

            def further(carry: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], None]:
                vorticity_hat, closure = carry
                closure = change(closure, keys, number + offset)
                return (self.step(vorticity_hat, spectral.to_fourier(closure)), closure), None

            first = self.step(vorticity_hat, closure_hat), closure
            return jax.lax.scan(further, first, jnp.arange(1, self.period))[0][0]

        def period(state: CoupledState, number: StepNumber) -> CoupledState:
            vorticity = spectral.to_physical(state.vorticity_hat)
            drawn, carry = self.coupling.closure(self.draw, state.carry, keys, number, vorticity)
            if not state.before:
                return CoupledState(held(state.vorticity_hat, drawn, number), carry)
            earlier, weight = state.before
            closure = drawn + weight[..., None, None] * (drawn - earlier)
            before = drawn, jnp.full_like(weight, 1 / (2 * self.period))
            return CoupledState(held(state.vorticity_hat, closure, number), carry, before)

        return by_period(period, state, start, steps, self.period, self.remat)

    def vorticity(self, state: CoupledState) -> Float[Array, "state member n n"]:
        """See `Dynamics`."""
        return spectral.to_physical(state.vorticity_hat)

    def _check_step(self, vorticity: Float[Array, "state member n n"]) -> None:
        fields_hat = jax.eval_shape(spectral.to_fourier, vorticity)
        problem = ""
        try:
            after = jax.eval_shape(self.step, fields_hat, fields_hat)
        except (TypeError, ValueError) as error:  # of shapes that don't go together
            problem = str(error)
        else:
            if after.shape != fields_hat.shape:
                problem = f"from shape {fields_hat.shape} to {after.shape}"
        check(
            not problem,
            f"vorticity of shape {vorticity.shape}: expected fields of the solver's grid, which its step takes and gives back;"
            f" it ends with: {' '.join(problem.split())}",
        )


def _check_piece(field: str, value: Any, kind: type, expected: str) -> None:
    """Raises UserError where a value is no object of a protocol, or the class of one."""
    found = value.__name__ if isinstance(value, type) else type(value).__name__
    check(isinstance(value, kind) and not isinstance(value, type), f"{field}={found}: expected {expected}")


def _check_members(keys: Key[Array, "state member"], members: tuple[int, ...]) -> None:
    """Raises UserError where these are not the keys of an ensemble (state, member)."""
    found = check_keys(keys)
    check(
        jnp.issubdtype(keys.dtype, jax.dtypes.prng_key),
        f"keys of type {keys.dtype}: expected those of jax.random.key; jax.random.wrap_key_data(keys) makes them of old ones",
    )
    check(
        found == members,
        f"keys of shape {found}: expected one for each member, {members}, such as jax.random.split(key, {members})",
    )
