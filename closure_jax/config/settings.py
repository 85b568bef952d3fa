"""Fields that a section has whatever pieces are chosen, with their published values and rules."""

import dataclasses
from typing import Literal

from closure_jax.errors import check, grid_size, not_negative, positive

MOST_STEPS = 100_000
"""Sampler steps, of which some transports draw all noise at once."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Which snapshots of the problem are made, or given.

    Attributes:
      path: an existing file, ours or in the authors' layout; empty: simulate.
      seed: of the simulation; the seed of training and evaluation is another.
      trajectories: how many there are, test trajectories included.
      test_trajectories: how many of them test.
      train_trajectories: how many of the training trajectories are used; 0: all.
      resolution: points a side of the stored fields, on which the closure lives.
      burn_in: time before the first snapshot.
      end: time of the last snapshot.
      snapshot_every: solver steps between snapshots.
      chunk: trajectories that are simulated together.
    """

    path: str = ""
    seed: int = 0
    trajectories: int = 100
    test_trajectories: int = 10
    train_trajectories: int = 0
    resolution: int = 64
    burn_in: float = 20.0
    end: float = 40.0
    snapshot_every: int = 100
    chunk: int = 50

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**31, f"seed={self.seed}: expected a whole number from 0 to 2147483647")
        check(
            self.trajectories >= 3,
            f"trajectories={self.trajectories}: expected a whole number of at least 3 (train, validation, test)",
        )
        positive(self, "trajectories", "test_trajectories", most=1_000_000)
        positive(self, "snapshot_every", "chunk")
        not_negative(self, "train_trajectories", "burn_in")
        grid_size(self, "resolution")
        check(0 < self.end <= 1e9, f"end={self.end}: expected a time above 0, up to 1e9")
        check(self.burn_in < self.end, f"burn_in={self.burn_in}: expected less than data.end = {self.end}")
        training = self.trajectories - self.test_trajectories
        check(
            training >= 2,
            f"test_trajectories={self.test_trajectories}: expected at most data.trajectories - 2 = {self.trajectories - 2}"
            " (one to train on, one to validate)",
        )
        most = training - self.validation_trajectories()
        check(
            self.path != "" or self.train_trajectories <= most,
            f"train_trajectories={self.train_trajectories}: expected at most {most}, the training trajectories without those"
            " held out to validate (0 for all)",
        )

    def validation_trajectories(self) -> int:
        """How many of the training trajectories, the last ones, are held out to validate."""
        return max(1, (self.trajectories - self.test_trajectories) // 10)

    def training_trajectories(self) -> int:
        """How many trajectories there are to train on, without those held out to validate or test."""
        return self.trajectories - self.test_trajectories - self.validation_trajectories()


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """How a phase is trained; its learning-rate schedule is a piece.

    Attributes:
      batch_size: examples of a step, over all devices.
      steps: how many.
      learning_rate: of Adam, before its schedule.
      clip_norm: largest norm of a gradient; 0: any.
      ema_decay: of the moving average of parameters, which is what is used later; 0: the last parameters.
      keep: 'last', the moving average at the end is what is used later; 'best', the parameters of the checkpoint with the least
        validation loss, as the published autoencoders.
    """

    batch_size: int = 100
    steps: int = 162_000
    learning_rate: float = 1e-3
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        positive(self, "steps", most=2_000_000_000)
        positive(self, "learning_rate", most=10)
        positive(self, "batch_size", most=1_000_000)
        check(self.batch_size >= 2, f"batch_size={self.batch_size}: expected a whole number of at least 2")
        not_negative(self, "clip_norm")
        check(0 <= self.ema_decay < 1, f"ema_decay={self.ema_decay}: expected a number from 0 up to, not including, 1")
        check(
            self.keep == "last" or self.ema_decay == 0,
            f"ema_decay={self.ema_decay}: expected 0 with keep = best, where nothing is averaged",
        )


@dataclasses.dataclass(frozen=True)
class AutoencoderOptimisation(Optimisation):
    """How the autoencoders are trained.

    Attributes:
      standardise: fields at mean 0 and variance 1; false: in their units, as published.
    """

    standardise: bool = True


@dataclasses.dataclass(frozen=True)
class TransportOptimisation(Optimisation):
    """How the transport network is trained.

    Attributes:
      standardise: latents at mean 0 and variance 1; false: in the units of the field.
    """

    standardise: bool = True


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a sample is drawn.

    Attributes:
      steps: network calls of a sample where a call names none.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        positive(self, "steps", most=MOST_STEPS)


@dataclasses.dataclass(frozen=True)
class Training:
    """What training writes down.

    Attributes:
      log_every: steps between records.
      checkpoint_every: steps between checkpoints, a multiple of `log_every`.
      validation_fields: about how many held-out fields a validation takes.
    """

    log_every: int = 50
    checkpoint_every: int = 1000
    validation_fields: int = 256

    def __post_init__(self) -> None:
        positive(self, "log_every", "checkpoint_every", "validation_fields")
        check(
            self.checkpoint_every % self.log_every == 0,
            f"checkpoint_every={self.checkpoint_every}: expected a multiple of training.log_every = {self.log_every}",
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is judged.

    Attributes:
      states: test states of the a priori part.
      samples: drawn for each of them.
      steps: numbers of sampler steps that are compared.
      geometry_states: test states whose latent geometry is measured.
      rollout_states: starts of rollouts, one a test trajectory.
      rollout_members: of the ensemble from each start.
      rollout_chunk: members that run together; bounds the memory, changes no number.
      rollout_start: time of the starts.
      rollout_time: length of rollouts, whole time units.
      rollout_sampler_steps: sampler steps of a draw in rollouts.
      turnovers: turnover times 2 pi / rms(w) that eight runs of each closure must last to be called stable; 0: none is run.
      measures: functions (samples, truth) -> number of one's own, as `module:function`; `config.add_measure` enters one.
    """

    states: int = 64
    samples: int = 100
    steps: tuple[int, ...] = (1, 2, 5, 10, 50)
    geometry_states: int = 1000
    rollout_states: int = 10
    rollout_members: int = 100
    rollout_chunk: int = 512
    rollout_start: float = 30.0
    rollout_time: float = 20.0
    rollout_sampler_steps: int = 2
    turnovers: float = 0.0
    measures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive(self, "states", "rollout_states", "rollout_chunk", "rollout_time")
        positive(self, "rollout_sampler_steps", most=MOST_STEPS)
        positive(self, "samples", "rollout_members", most=1_000_000)
        positive(self, "geometry_states", most=50_000)  # all pairs of them have a distance
        not_negative(self, "rollout_start", "turnovers")
        check(self.turnovers <= 1e5, f"turnovers={self.turnovers:g}: expected a number up to 100000")
        for name in ("samples", "rollout_members"):
            check(getattr(self, name) >= 2, f"{name}={getattr(self, name)}: expected a whole number of at least 2")
        check(
            self.geometry_states >= 8,
            f"geometry_states={self.geometry_states}: expected a whole number of at least 8",
        )
        check(
            len(self.steps) > 0 and min(self.steps) > 0,
            f"steps={self.steps}: expected at least one number of sampler steps, all above 0",
        )
        check(
            len(set(self.steps)) == len(self.steps) and max(self.steps) <= MOST_STEPS,
            f"steps={self.steps}: expected different numbers of sampler steps, up to {MOST_STEPS:,}",
        )
        check(
            round(self.rollout_time) >= 1 and abs(self.rollout_time - round(self.rollout_time)) < 1e-6,
            f"rollout_time={self.rollout_time}: expected a whole number of time units, at least 1",
        )
