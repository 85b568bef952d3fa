"""`./launch.sh study data_efficiency[:preset]`: how much data does a latent need?"""

import argparse
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from closure_jax import config as config_lib
from closure_jax.commands import compare, runs
from closure_jax.errors import UserError, check
from closure_jax.workdir import WorkDir, write_json

_JUDGED = (  # the error of the closure alone: a short rollout of few members is the least that an evaluation takes
    "evaluation.steps=1,10",
    "evaluation.rollout_states=1",
    "evaluation.rollout_members=2",
    "evaluation.rollout_time=1",
)


_STEPS = 10
"""Sampler steps at which a point is judged."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this study alone."""
    parser.add_argument("--fractions", default="1/16,1/8,1/4,1/2,1", help="shares of the training trajectories")
    parser.add_argument("--latents", default=",".join(runs.LATENTS), help="latent spaces, with commas between")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of each")
    parser.epilog = (
        "All autoencoders train for equally many steps: with joint among the latents for its transport.steps, as its own do."
        " --config.FIELD=VALUE overrides a field in every run."
    )


def study(options: argparse.Namespace, preset: str, overrides: Sequence[str], folder: pathlib.Path) -> None:
    """Trains fm_LATENT on shares of the training trajectories; writes study.json and its comparison to `folder`.

    All runs are judged on the same test states and normalised by the data they see. Their autoencoders take equally many steps,
    those of the joint training where it is among them: in it autoencoders train for as long as the network.

    Raises:
      UserError: an option or an override is impossible, or a run failed.
    """
    preset, latents = runs.studied(preset, options.latents, options.seeds)
    runs.leave_alone(overrides, "seed", "data.train_trajectories")
    folder = folder.with_name(f"{folder.name}-{preset}") if options.output is None else folder
    planned: dict[runs.Run, dict[str, Any]] = {}
    steps = _autoencoder_steps(latents, preset, overrides)
    for latent in latents:
        (file,) = config_lib.experiments([f"fm_{latent}"])
        for share in map(_fraction, options.fractions.split(",")):
            config = config_lib.load(f"{file}:{preset}")
            config_lib.override(config, [*_JUDGED, *overrides])
            steps_judged = config.evaluation.steps
            check(
                _STEPS in steps_judged,
                f"--config.evaluation.steps={','.join(map(str, steps_judged))}: expected {_STEPS} among them, by which the study"
                " judges",
            )
            count = max(1, round(share * config_lib.build(config).data.training_trajectories()))
            for seed in range(options.seeds):
                cut = 0 if share == 1 else count  # all of them: autoencoders are shared with other experiments
                changed = (*_JUDGED, *overrides, f"data.train_trajectories={cut}", f"seed={seed}")
                changed += () if latent == "joint" else (f"autoencoder.steps={steps}",)
                name = f"fm_{latent}-{count}" + (f"-seed{seed}" if seed else "")
                run = runs.Run(file, preset, changed, folder / name)
                planned[run] = {"latent": latent, "fraction": float(share), "trajectories": count, "seed": seed}
    print(f"study: autoencoders of {steps:,} steps each", flush=True)
    done = runs.run_all(list(planned), "study")
    points = [
        facts | _errors(results)
        for run, facts in planned.items()
        if run in done and (results := WorkDir(run.folder).results()) is not None
    ]
    if points:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "study.json", {"kind": "data_efficiency", "preset": preset, "points": points})
        compare.compare([folder], folder / "compare")
    runs.missing(list(planned), done)
    print(f"study: {folder / 'study.json'}")


def _autoencoder_steps(latents: Sequence[str], preset: str, overrides: Sequence[str]) -> int:
    """The most steps that an autoencoder of these latents trains for."""
    found = []
    for latent in latents:
        (file,) = config_lib.experiments([f"fm_{latent}"])
        config = config_lib.load(f"{file}:{preset}")
        config_lib.override(config, overrides)
        found.append((config.transport if latent == "joint" else config.autoencoder).steps)
    return max(found)


def _errors(results: dict[str, Any]) -> dict[str, Any]:
    """What a point of the study holds, from a run's results."""
    measures = results["a_priori"]["by_steps"][str(_STEPS)]
    return {
        "over_floor": measures["over_floor"],
        "excess_error": measures["excess_error"],
        "crps_ratio": measures["crps_ratio"],
        "reconstruction_closure": results["autoencoder"]["closure"]["relative_error"],
        "reconstruction_vorticity": results["autoencoder"]["vorticity"]["relative_error"],
        "revision": results["revision"],
    }


def _fraction(text: str) -> Fraction:
    try:
        share = Fraction(
            text if "e" not in text.lower() else str(float(text))
        )  # of a large exponent it makes all digits
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"--fractions: '{text}' is not a number: expected shares like 1/16,1/4,1") from None
    if not 0 < share <= 1:
        raise UserError(f"--fractions: {text} is not above 0 and up to 1: expected shares like 1/16,1/4,1")
    return share
