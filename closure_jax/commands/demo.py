"""`./launch.sh demo`: a coupled rollout with a trained closure that ships with the package, as an animation."""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from closure_jax import files, pretrained, random
from closure_jax.commands import cli
from closure_jax.coupling import Coupling, Fresh, ensemble
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.draw import Draw, FixedSteps, NoClosure
from closure_jax.errors import UserError
from closure_jax.evaluation import metrics
from closure_jax.pages.run import animation
from closure_jax.problems import Kolmogorov

_SPIN_UP = 30.0  # time units from a random field to the flow that is shown


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("demo", "Couple a trained closure to the solver and animate it beside the true system.")
    parser.add_argument("--output", type=cli.path, default="demo", help="folder of the animation; default demo")
    parser.add_argument("--time", type=int, default=5, help="time units to run; default 5")
    parser.add_argument("--members", type=int, default=4, help="members of each ensemble; default 4")
    parser.add_argument("--seed", type=int, default=1, help="of the initial state and of the noise")
    names = ", ".join(pretrained.names())
    parser.add_argument(
        "--closure", default="cs_ga_online", help=f"which of the shipped closures: {names}; default cs_ga_online"
    )
    parser.add_argument("--pack", metavar="RUN", help="instead, put the closure of a finished run into the package")
    options = parser.options(arguments)
    for name, least, most in (("time", 1, 100_000), ("members", 2, 1_000_000), ("seed", 0, 2**32 - 1)):
        if not least <= getattr(options, name) <= most:
            raise UserError(f"--{name}={getattr(options, name)}: expected a whole number from {least} to {most:,}")
    files.check_folder(options.output, "--output")
    return options


def developed_flow(problem: Kolmogorov, seed: int) -> np.ndarray:
    """A state of the true system, (n, n), `_SPIN_UP` after a random initial field."""
    system = problem.truth()
    keys = random.stream(seed, "demo_start")[None]
    run = jax.jit(system.advance, static_argnums=3)
    return np.asarray(system.vorticity(run(keys, system.initial(keys), 0, round(_SPIN_UP / system.dt))))[0]


def couple(
    problem: Kolmogorov, coupling: Coupling, draw: Draw, units: int, members: int, seed: int
) -> tuple[ensemble.Rollout, ensemble.Rollout, ensemble.Rollout]:
    """Rollouts from one state: of the true system, of the solver closed by a model, and of the solver alone.

    Args:
      problem: the system and its solver.
      coupling: the rule for the model's noise in time.
      draw: the model.
      units: time units to run.
      members: of each ensemble; the solver alone has one.
      seed: of the initial state and of the noise.
    """
    solver, grid = problem.solver(), problem.flow.grid
    initial = np.broadcast_to(developed_flow(problem, seed), (1, members, *grid.shape))
    closed = functools.partial(Coupled, solver.step, solver.dt)
    true_key, model_key = random.stream(seed, "demo_true"), random.stream(seed, "demo_model")
    return (
        ensemble.rollout(problem.truth(), initial, true_key, units, "true ensemble"),
        ensemble.rollout(closed(draw, coupling), initial, model_key, units, "model ensemble"),
        ensemble.rollout(closed(NoClosure(), Fresh()), initial[:, :1], true_key, units, "no closure"),
    )


def _command(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    if options.pack:
        print(f"packed: {pretrained.pack(pathlib.Path(options.pack))}")
        return
    folder = options.output
    start = time.perf_counter()
    model, experiment, facts = pretrained.shipped(options.closure)
    folder.mkdir(parents=True, exist_ok=True)
    n = experiment.data.resolution
    print(
        f"demo: {facts['experiment']}:{facts['preset']}, trained at revision {facts['trained_revision']}; {options.members}"
        f" members on {n}^2 for {options.time} time units from t = {_SPIN_UP:g}",
        flush=True,
    )
    sampled = model.replace(transport=model.transport.in_rollouts())
    draw = FixedSteps(sampled, experiment.evaluation.rollout_sampler_steps)
    problem = experiment.problem
    assert isinstance(problem, Kolmogorov)  # the shipped closures are of this problem
    truth, learned, bare = couple(problem, experiment.coupling, draw, options.time, options.members, options.seed)
    file = folder / "demo.gif"
    arrays = {
        "start_time": np.array(_SPIN_UP),
        "animation_time": np.linspace(0, options.time, len(truth.frames)),
        "animation_truth": truth.frames,
        "animation_model": learned.frames,
    }
    files.write(file, animation.rollout_animation(arrays))
    true_mean = truth.fields[-1].mean(axis=1)
    for name, run in (("with the sampled closure", learned), ("without closure", bare)):
        error = metrics.relative_error(run.fields[-1].mean(axis=1), true_mean)
        print(f"error of the vorticity after {options.time} time units, {name}: {error:.4f}")
    spreads = [metrics.rms_spread(run.fields[-1]) for run in (learned, truth)]
    print(f"spread of the ensemble over that of the true one: {spreads[0] / spreads[1]:.2f}")
    print(f"written: {file} ({time.perf_counter() - start:.0f} s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh demo`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    cli.leave(main())
