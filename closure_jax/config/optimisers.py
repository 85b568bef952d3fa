"""Learning-rate schedules, pieces of the configuration, and the optimiser that they make."""

import dataclasses
from typing import ClassVar, Protocol

import optax

from closure_jax.config.settings import Optimisation
from closure_jax.errors import check, not_negative, positive


class Schedule(Protocol):
    """A learning-rate schedule."""

    def rate(self, training: Optimisation) -> optax.Schedule:
        """step -> learning rate."""
        ...

    def after(self) -> list[optax.GradientTransformation]:
        """What follows Adam in the chain, such as a factor that depends on the loss."""
        ...


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to a hundredth of the rate.

    Attributes:
      warmup_steps: of the linear rise from 0; in a shorter training all steps but the last.
    """

    warmup_steps: int = 0

    def __post_init__(self) -> None:
        not_negative(self, "warmup_steps")

    def rate(self, training: Optimisation) -> optax.Schedule:
        """step -> learning rate."""
        peak = training.learning_rate
        warmup = min(self.warmup_steps, training.steps - 1)
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, training.steps, 0.01 * peak)

    def after(self) -> list[optax.GradientTransformation]:
        """Nothing."""
        return []


@dataclasses.dataclass(frozen=True)
class Step:
    """The rate times `decay_factor` after each `decay_every` steps.

    Attributes:
      decay_every: steps at one rate; published 100 epochs.
      decay_factor: between 0 and 1.
    """

    decay_every: int = 16_200
    decay_factor: float = 0.5

    def __post_init__(self) -> None:
        positive(self, "decay_every")
        check(0 < self.decay_factor < 1, f"decay_factor={self.decay_factor}: expected a factor between 0 and 1")

    def rate(self, training: Optimisation) -> optax.Schedule:
        """step -> learning rate."""
        return optax.exponential_decay(training.learning_rate, self.decay_every, self.decay_factor, staircase=True)

    def after(self) -> list[optax.GradientTransformation]:
        """Nothing."""
        return []


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The rate times `decay_factor` where the training loss has not improved for `decay_every` steps.

    The loss is averaged over a thirtieth of `decay_every` steps, one epoch in the published setting, and has not improved where
    30 such averages in a row are no better than the best.

    Attributes:
      decay_every: steps of patience; published 30 epochs.
      decay_factor: between 0 and 1.
    """

    decay_every: int = 4860
    decay_factor: float = 0.8

    averages: ClassVar[int] = 30

    def __post_init__(self) -> None:
        positive(self, "decay_every")
        check(0 < self.decay_factor < 1, f"decay_factor={self.decay_factor}: expected a factor between 0 and 1")

    def rate(self, training: Optimisation) -> optax.Schedule:
        """The rate before the factor of the plateau, which the optimiser's state holds."""
        return optax.constant_schedule(training.learning_rate)

    def after(self) -> list[optax.GradientTransformation]:
        """The factor, which looks at the loss."""
        epoch = max(1, self.decay_every // self.averages)
        return [
            optax.contrib.reduce_on_plateau(factor=self.decay_factor, patience=self.averages, accumulation_size=epoch)
        ]


SCHEDULES: dict[str, type] = {"cosine": Cosine, "step": Step, "plateau": Plateau}
"""Learning-rate schedules by name."""


def optimiser(training: Optimisation, schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Adam at the schedule's rate, gradients clipped first; `update` wants `value=loss`, which a plateau looks at."""
    clip = [optax.clip_by_global_norm(training.clip_norm)] if training.clip_norm else []
    return optax.with_extra_args_support(optax.chain(*clip, optax.adam(schedule.rate(training)), *schedule.after()))
