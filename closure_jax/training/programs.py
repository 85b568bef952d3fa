"""Programs: in which phases a closure is trained. A program of one's own is one class; see docs/extend.md."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from closure_jax.closure import StochasticClosure
from closure_jax.config.experiment import Experiment
from closure_jax.errors import UserError, check
from closure_jax.parallel import processes
from closure_jax.training import loop, shared
from closure_jax.training import phase as phase_lib
from closure_jax.training.joint import Joint
from closure_jax.training.online import Online
from closure_jax.training.phase import Params, Phase, Run
from closure_jax.training.two_phase import TwoPhase
from closure_jax.workdir import Checkpoints

if TYPE_CHECKING:
    from closure_jax.workdir import WorkDir


class Program(Protocol):
    """How a closure is trained.

    One that starts from something outside the run may have a method `started_from(experiment)`: its digest, "" where it starts
    from nothing. It is asked before anything is made, kept, and compared where the run is started again.
    """

    def phases(self, experiment: Experiment) -> list[Phase]:
        """The phases in turn; each may start from, and learn from, what earlier ones left."""
        ...

    def closure(self, run: Run, trained: Mapping[str, Params]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
        """What the phases make together.

        Args:
          run: the experiment and its data.
          trained: parameters by name of the phase.
        Returns:
          {"vorticity", "closure": {"encoder", "decoder"}, "network"}, and (mean, standard deviation) of each field's latent.
        """
        ...


PROGRAMS: dict[str, type] = {"two_phase": TwoPhase, "joint": Joint, "online": Online}
"""Programs by name."""


def train(run: Run) -> StochasticClosure:
    """All phases of the experiment's program, each from where it stopped; the closure is saved as the checkpoint 'closure'."""
    experiment = run.experiment
    phases = experiment.program.phases(experiment)
    checkpoints = run.work.checkpoints("closure")
    try:
        finished = _finished(run, phases, checkpoints) if processes.on_main(checkpoints.latest) is not None else None
        if finished is not None:
            return finished
        _check_order(phases, run)
        trained: dict[str, Params] = {}
        for phase in phases:
            trained[phase.name] = shared.once(phase, run, lambda phase=phase: phase_lib.train(phase, run, trained))
        leaves = run.leaves(*experiment.program.closure(run, trained))
        checkpoints.save(0, leaves)
    finally:
        checkpoints.close()
    return experiment.assemble(leaves)


def _finished(run: Run, phases: list[Phase], checkpoints: Checkpoints) -> StochasticClosure | None:
    """The closure that is there; None where it can't be read, which is said, and its last phase can make it again.

    Raises:
      UserError: it can't be read, and there is no such phase.
    """
    try:
        leaves = jax.tree.map(jnp.asarray, checkpoints.restore(run.experiment.template()))
    except UserError:
        if not (phases and processes.on_main(lambda: run.work.has_begun(phases[-1].name))):
            raise
        print(
            f"the finished closure in '{run.work.path}' can't be read: it is made again from the checkpoints of its phases"
        )
        return None
    for phase in phases:
        print(f"{phase.name}: already trained, {phase.training.settings.steps} steps")
    return run.experiment.assemble(leaves)


def check_phases(experiment: Experiment, source: "WorkDir") -> None:
    """Raises UserError where phases of another run have more steps than the experiment asks for, or arrays of other shapes."""
    made: dict[str, Params] = {}  # their shapes
    for phase in experiment.program.phases(experiment):
        made[phase.name] = jax.eval_shape(lambda phase=phase: phase.start(jax.random.key(0), made))
        if not jax.tree.leaves(made[phase.name]):  # nothing is trained
            continue
        checkpoints = source.checkpoints(phase.name)
        try:
            loop.check_steps(phase.name, phase.training.settings.steps, checkpoints.latest() or 0, source)
            misfit = checkpoints.misfit(phase_lib.state_shapes(phase, made[phase.name]))
        finally:
            checkpoints.close()
        check(
            not misfit,
            f"the phase {phase.name} in '{source.path}' is of other sizes ({misfit}): expected those of this configuration;"
            " set them as they are there, or train it anew without --fork",
        )


def _check_order(phases: list[Phase], run: Run) -> None:
    """Raises UserError where a phase is there that goes on from one that isn't, as in a fork to which one was added."""
    begun = [processes.on_main(lambda phase=phase: run.work.has_begun(phase.name)) for phase in phases]
    for place, phase in enumerate(phases):
        later = [other.name for other, there in zip(phases[place:], begun[place:], strict=True) if there]
        check(
            phase.shared_field is not None or begun[place] or not later,
            f"work directory '{run.work.path}' holds the phase {', '.join(later)}, and not {phase.name}, from which it goes on:"
            " expected both or none; give another --workdir, or a fork of the same program",
        )
