"""data -> steps -> records: one phase of training, resumable at every checkpoint."""

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from closure_jax import interrupts
from closure_jax.errors import UserError, check
from closure_jax.parallel import devices, processes, progress
from closure_jax.training.state import TrainState

if TYPE_CHECKING:
    from closure_jax.workdir import Checkpoints, WorkDir


@dataclasses.dataclass(frozen=True)
class Loop:
    """What the steps of a phase of training are made of.

    Attributes:
      name: of its checkpoints and of its lines in metrics.jsonl.
      section: of the configuration that holds its learning rate, named in errors.
      steps: how many in all.
      batch_at: step -> global batch, a dict of numpy arrays; a pure function.
      train_step: (state, batch, key) -> (state, metrics), for `devices.data_parallel`.
      key: of the phase; the step folds in its number.
      learning_rate: (step, state) -> rate, for the record.
      validate: moving average of params -> measures, called at checkpoints.
      keeps_best: in place of the average stand the parameters of the checkpoint with the least "validation_loss"; those of the
        step are validated.
    """

    name: str
    section: str
    steps: int
    batch_at: Callable[[int], dict[str, np.ndarray]]
    train_step: Callable[..., Any]
    key: jax.Array
    learning_rate: Callable[[int, TrainState], float]
    validate: Callable[[Any], dict[str, float]]
    keeps_best: bool = False


def run(phase: Loop, state: TrainState, work: "WorkDir", log_every: int, checkpoint_every: int) -> TrainState:
    """Trains to the last step, from the newest checkpoint if there is one.

    Args:
      phase: see `Loop`.
      state: initial state, also the template of checkpoints.
      work: where records and checkpoints go.
      log_every: steps between lines of metrics.jsonl; the loss of a line is the mean since the line before.
      checkpoint_every: steps between checkpoints, a multiple of `log_every`.

    Raises:
      UserError: the loss is not finite; names the step, and the last good checkpoint stays. Or more steps were done than asked.
      Stopped: some process was asked to end; there is a checkpoint at the line of metrics.jsonl that came next.
    """
    trained = finished(phase.name, phase.steps, state, work)
    if trained is not None:
        return trained
    checkpoints = work.checkpoints(phase.name)
    try:
        done = processes.on_main(checkpoints.latest)
        if done is not None:
            state = _restored(phase.name, phase.steps, state, work, checkpoints)
            done = int(state.step)
            print(f"{phase.name}: continues at step {done} of {phase.steps}")
        else:
            print(f"{phase.name}: {phase.steps} steps")
        with work.timed(phase.name):
            state = _train(phase, state, done or 0, work, checkpoints, log_every, checkpoint_every)
    finally:
        checkpoints.close()
    return state


def finished(name: str, steps: int, state: TrainState, work: "WorkDir") -> TrainState | None:
    """The last state of a phase that has done all its steps, else None; `state` is the template of its checkpoints.

    Raises:
      UserError: it has done more.
    """
    checkpoints = work.checkpoints(name)
    try:
        done = processes.on_main(checkpoints.latest)
        if done is None or done < steps:
            return None
        check_steps(name, steps, done, work)
        state = _restored(name, steps, state, work, checkpoints)
    finally:
        checkpoints.close()
    if int(state.step) < steps:  # the last checkpoint was damaged
        return None
    print(f"{name}: already trained, {int(state.step)} steps")
    return state


def check_steps(name: str, steps: int, done: int, work: "WorkDir") -> None:
    """Raises UserError where a run has trained a phase for more steps than are asked for: what it holds is of another run."""
    check(
        done <= steps,
        f"the phase {name} in '{work.path}' has done {done} steps, asked for {steps}: expected no more than are asked for; ask"
        f" for {done} or more, or train it anew in another --workdir",
    )


def _restored(name: str, steps: int, state: TrainState, work: "WorkDir", checkpoints: "Checkpoints") -> TrainState:
    state = TrainState(**checkpoints.restore(state.as_dict()))
    check_steps(name, steps, int(state.step), work)
    return state


def _train(
    phase: Loop,
    state: TrainState,
    start: int,
    work: "WorkDir",
    checkpoints: "Checkpoints",
    log_every: int,
    checkpoint_every: int,
) -> TrainState:
    step_fn = devices.data_parallel(phase.train_step)
    validated = phase.keeps_best and start >= checkpoint_every  # then a checkpoint was the best before
    best = phase.validate(state.ema)["validation_loss"] if validated else np.inf
    processes.barrier()  # collectives don't wait for a process that is still reading its files
    state = devices.replicate(state)
    log = work.metrics(phase.name, start)
    waiting: list[dict[str, jax.Array]] = []
    logged_at, clock = start, time.perf_counter()
    bar = progress.bar(phase.steps, phase.name, "step", done=start)
    try:
        for step in range(start, phase.steps):
            state, metrics = step_fn(state, devices.split(phase.batch_at(step)), phase.key)
            waiting.append(metrics)
            done = step + 1
            saves = done % checkpoint_every == 0 or done == phase.steps
            if done % log_every and not saves:
                continue
            stops = processes.asked_to_stop()
            values = _fetch(waiting, phase, logged_at, checkpoints)
            seconds = time.perf_counter() - clock
            values |= {
                "learning_rate": phase.learning_rate(step, state),
                "steps_per_second": (done - logged_at) / max(seconds, 1e-9),
            }
            host = devices.unreplicate(state) if saves or stops else None
            if host is not None and saves:
                values |= phase.validate(host.params if phase.keeps_best else host.ema)
                if phase.keeps_best and values["validation_loss"] < best:
                    best, host = values["validation_loss"], host.replace(ema=host.params)
                    state = devices.replicate(host)
            log.write(done, values)  # first, since a run that goes on from the checkpoint does not write it again
            if host is not None:
                checkpoints.save(done, host.as_dict())
            bar.set_postfix(loss=f"{values['loss']:.3e}", refresh=False)
            bar.update(done - logged_at)
            if stops and done < phase.steps:
                raise interrupts.Stopped(f"{phase.name}: saved at step {done} of {phase.steps}")
            waiting, logged_at, clock = [], done, time.perf_counter()
    finally:
        bar.close()
        log.close()
    if phase.keeps_best and not np.isfinite(best):
        raise UserError(
            f"{phase.name}: no validation loss was finite: expected one, whose parameters are kept; try a smaller"
            f" --config.{phase.section}.learning_rate in another --workdir"
        )
    return devices.unreplicate(state)


def _fetch(
    waiting: list[dict[str, jax.Array]], phase: Loop, start: int, checkpoints: "Checkpoints"
) -> dict[str, float]:
    """Means of the waiting metrics; ends the run where a loss among them is not finite."""
    host = [{name: float(devices.first(value)) for name, value in metrics.items()} for metrics in waiting]
    for offset, values in enumerate(host):
        if not np.isfinite(values["loss"]):
            kept = checkpoints.latest()
            where = f"checkpoint {kept} is kept" if kept is not None else "no checkpoint was made yet"
            raise UserError(
                f"{phase.name}: the loss is {values['loss']} at step {start + offset + 1}, {where}: expected a finite loss;"
                f" try a smaller --config.{phase.section}.learning_rate in another --workdir"
            )
    return {name: float(np.mean([values[name] for values in host])) for name in host[0]}
