"""`./launch.sh demo`: a coupled rollout with a trained closure that ships with the package, as an animation."""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from closure_jax import pretrained
from closure_jax.closure import StochasticClosure
from closure_jax.commands import cli
from closure_jax.config import build
from closure_jax.coupling import advance as advance_lib
from closure_jax.coupling import draw, ensemble
from closure_jax.data import simulate
from closure_jax.errors import UserError
from closure_jax.evaluation import metrics
from closure_jax.pages.run import animation
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral

_SPIN_UP = 30.0  # time units from a random field to the flow that is shown


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("demo", "Couple a trained closure to the solver and animate it beside the true system.")
    parser.add_argument("--output", default="demo", help="folder of the animation; default demo")
    parser.add_argument("--time", type=int, default=5, help="time units to run; default 5")
    parser.add_argument("--members", type=int, default=4, help="members of each ensemble; default 4")
    parser.add_argument("--seed", type=int, default=1, help="of the initial state and of the noise")
    parser.add_argument("--pack", metavar="RUN", help="instead, put the closure of a finished run into the package")
    options = parser.parse_args(arguments)
    for name, least in (("time", 1), ("members", 2), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name}={getattr(options, name)}: expected a whole number of at least {least}")
    if pathlib.Path(options.output).exists() and not pathlib.Path(options.output).is_dir():
        raise UserError(f"--output={options.output} is a file: expected a folder")
    return options


def developed_flow(config: ml_collections.ConfigDict, seed: int) -> np.ndarray:
    """A state of the true system, (n, n), `_SPIN_UP` after a random initial field."""
    flow, dt = build.stored_flow(config), config.flow.dt
    field = noise_lib.GaussianRandomField(flow.grid, config.flow.initial_alpha, config.flow.initial_tau)
    keys = simulate.trajectory_keys(seed, np.array([0]))
    exact = flow_lib.exact_closure(flow.grid, build.noise(config, flow))
    run = advance_lib.jitted_advance(flow, exact, dt)
    return np.asarray(
        spectral.to_physical(run(keys, simulate.initial_vorticity_hat(keys, field), 0, round(_SPIN_UP / dt)))
    )[0]


def couple(
    model: StochasticClosure, config: ml_collections.ConfigDict, units: int, members: int, seed: int
) -> tuple[ensemble.Rollout, ensemble.Rollout, ensemble.Rollout]:
    """Rollouts of the true system, of the solver closed by the model, and of the solver alone, from one state."""
    flow, dt, ev = build.stored_flow(config), config.flow.dt, config.evaluation
    initial = np.broadcast_to(developed_flow(config, seed), (1, members, *flow.grid.shape))
    exact = flow_lib.exact_closure(flow.grid, build.noise(config, flow))
    sampler = draw.model_sampler(model, ev.rollout_sampler_steps, ev.rollout_white_noise)
    keys = jax.random.split(jax.random.key(seed))
    return (
        ensemble.rollout(flow, exact, initial, keys[0], dt, 1, units, "true ensemble"),
        ensemble.rollout(flow, sampler, initial, keys[1], dt, ev.rollout_hold, units, "model ensemble"),
        ensemble.rollout(flow, flow_lib.no_closure, initial[:, :1], keys[0], dt, 1, units, "no closure"),
    )


def _command(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    if options.pack:
        print(f"packed: {pretrained.pack(pathlib.Path(options.pack))}")
        return
    start = time.perf_counter()
    model, config, facts = pretrained.load()
    n = config.data.resolution
    print(
        f"demo: {facts['experiment']}:{facts['preset']}, trained at revision {facts['trained_revision']}; {options.members}"
        f" members on {n}^2 for {options.time} time units from t = {_SPIN_UP:g}",
        flush=True,
    )
    truth, learned, bare = couple(model, config, options.time, options.members, options.seed)
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "demo.gif"
    arrays = {
        "start_time": np.array(_SPIN_UP),
        "animation_time": np.linspace(0, options.time, len(truth.frames)),
        "animation_truth": truth.frames,
        "animation_model": learned.frames,
    }
    file.write_bytes(animation.rollout_animation(arrays))
    true_mean = truth.fields[-1].mean(axis=1)
    for name, run in (("with the sampled closure", learned), ("without closure", bare)):
        error = metrics.relative_error(run.fields[-1].mean(axis=1), true_mean)
        print(f"error of the vorticity after {options.time} time units, {name}: {error:.4f}")
    print(f"written: {file} ({time.perf_counter() - start:.0f} s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh demo`; returns the exit status."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
