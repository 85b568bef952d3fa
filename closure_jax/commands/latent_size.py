"""`./launch.sh study latent_size[:preset]`: at which size does a latent lose the geometry, and which latent keeps it there?"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from closure_jax import config as config_lib
from closure_jax.commands import compare, runs
from closure_jax.data.dataset import FIELDS
from closure_jax.errors import check
from closure_jax.workdir import WorkDir, write_json

GEOMETRY = ("distance_ratio_spread", "distance_rank_correlation", "trustworthiness", "continuity", "distortion")
"""Measures of latent geometry that a point holds of each field, by name as in results.json."""

_GEOMETRY_ALONE = (  # autoencoders in full, of everything else the least that there is
    "transport.steps=1",
    "evaluation.steps=1",
    "evaluation.states=2",
    "evaluation.samples=2",
    "evaluation.rollout_states=1",
    "evaluation.rollout_members=2",
    "evaluation.rollout_time=1",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this study alone."""
    parser.add_argument("--sizes", default="16,8,4", help="points a side of the latents; default 16,8,4")
    parser.add_argument("--distorted", type=float, default=0.1, help="spread of log distance ratios; default 0.1")
    parser.add_argument("--latents", default=",".join(runs.LATENTS), help="latent spaces, with commas between")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of each")
    parser.epilog = (
        "First recon alone at each size, its geometry only. Then all latents at the largest size at which recon is distorted: the"
        " logarithm of latent over full distances scatters by more than --distorted, of either field, in the mean over seeds; at"
        " the smallest where none is. --config.FIELD=VALUE overrides a field in every run."
    )


def study(options: argparse.Namespace, preset: str, overrides: Sequence[str], folder: pathlib.Path) -> None:
    """Trains fm_recon at each size, then fm_LATENT at the size that this decides; writes study.json and its comparison.

    Autoencoders of the first part serve in the second. All runs are judged on the same test states.

    Raises:
      UserError: an option or an override is impossible, or a run failed.
    """
    preset, latents = runs.studied(preset, options.latents, options.seeds)
    runs.leave_alone(overrides, "seed")
    check(options.distorted > 0, f"--distorted={options.distorted}: expected a number above 0")
    sizes = _sizes(options.sizes)
    check(
        not any(text.startswith("autoencoder.latent_resolution=") for text in overrides),
        "--config.autoencoder.latent_resolution: the study tries several, expected --sizes",
    )
    folder = folder.with_name(f"{folder.name}-{preset}") if options.output is None else folder

    def planned(latent: str, size: int, more: Sequence[str], name: str) -> dict[runs.Run, dict[str, Any]]:
        (file,) = config_lib.experiments([f"fm_{latent}"])
        config = config_lib.load(f"{file}:{preset}")
        config_lib.override(config, overrides)
        fields = (*more, *overrides, f"autoencoder.latent_resolution={size}")
        if "modes" in config.network:
            fields = (*fields, f"network.modes={min(config.network.modes, size // 2)}")
        return {
            runs.Run(file, preset, (*fields, f"seed={seed}"), folder / (name + (f"-seed{seed}" if seed else ""))): {
                "latent": latent,
                "resolution": size,
                "seed": seed,
                "whole": not more,
            }
            for seed in range(options.seeds)
        }

    alone = {
        run: facts for size in sizes for run, facts in planned("recon", size, _GEOMETRY_ALONE, f"size-{size}").items()
    }
    for run in alone:
        run.check()
    for latent in latents:  # those that follow are looked at before the first starts
        for run in planned(latent, sizes[-1], (), f"fm_{latent}-{sizes[-1]}"):
            run.check()
    done = runs.run_all(list(alone), "study")
    runs.missing(list(alone), done)
    points = [facts | _point(run) for run, facts in alone.items()]
    found = distorted(points, options.distorted)
    size = max(found, default=sizes[-1])
    which = "the largest at which recon is distorted" if found else "the smallest, and recon is distorted at none"
    print(f"study: latents of {size}^2 points, {which}", flush=True)
    whole = {
        run: facts for latent in latents for run, facts in planned(latent, size, (), f"fm_{latent}-{size}").items()
    }
    done = runs.run_all(list(whole), "study")
    points += [facts | _point(run) for run, facts in whole.items() if run in done]
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "kind": "latent_size",
        "preset": preset,
        "bound": options.distorted,
        "distorted": found,
        "chosen": size,
        "points": points,
    }
    write_json(folder / "study.json", content)
    compare.compare([folder, *(run.folder for run in done)], folder / "compare")
    runs.missing(list(whole), done)
    print(f"study: {folder / 'study.json'}")


def distorted(points: Sequence[Mapping[str, Any]], bound: float) -> list[int]:
    """The sizes at which recon is distorted, by the mean over seeds of one field's measure.

    Args:
      points: of study.json; the geometry of recon at each size.
      bound: see the help of --distorted.
    """
    found = []
    for size in sorted({point["resolution"] for point in points}):
        here = [point for point in points if point["resolution"] == size]
        for field in FIELDS:
            values = [point[f"distance_ratio_spread_{field}"] for point in here]
            # None: of a latent that has collapsed, or is not finite
            if size not in found and (None in values or sum(values) / len(values) > bound):
                found.append(size)
    return found


def _point(run: runs.Run) -> dict[str, Any]:
    """What a point of the study holds, from a run's results; of samples at 10 steps, or at the most that there are."""
    results = WorkDir(run.folder).results()
    assert results is not None
    geometry, by_steps = results["latent_geometry"], results["a_priori"]["by_steps"]
    why = geometry.get("missing", "")
    check("are needed" not in why, f"'{run.folder}': {why}: expected more, see --config.evaluation.geometry_states")
    samples = by_steps.get("10") or by_steps[max(by_steps, key=int)]
    found = {f"{name}_{field}": geometry.get(field, {}).get(name) for field in FIELDS for name in GEOMETRY}
    found |= {f"reconstruction_{field}": results["autoencoder"][field]["relative_error"] for field in FIELDS}
    found |= {name: samples[name] for name in ("over_floor", "spread_ratio", "crps_ratio") if name in samples}
    return found | {"revision": results["revision"]}


def _sizes(text: str) -> list[int]:
    """Descending."""
    try:
        sizes = sorted({int(word) for word in text.split(",")}, reverse=True)
    except ValueError:
        sizes = []
    check(bool(sizes) and sizes[-1] >= 2, f"--sizes={text}: expected whole numbers of at least 2, with commas between")
    return sizes
