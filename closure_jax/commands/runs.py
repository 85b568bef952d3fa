"""Many runs one after the other, each a process of its own: what sweeps and studies are made of."""

import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import ml_collections

from closure_jax import config as config_lib
from closure_jax import interrupts
from closure_jax.commands import origins
from closure_jax.errors import UserError, check
from closure_jax.evaluation import evaluate
from closure_jax.parallel import devices
from closure_jax.workdir import WorkDir


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: an experiment's file at a preset, fields that are overridden (`field=value`), and its work directory."""

    file: pathlib.Path
    preset: str
    overrides: tuple[str, ...]
    folder: pathlib.Path

    def config(self) -> ml_collections.ConfigDict:
        """The resolved configuration, as the run itself will have it.

        Raises:
          UserError: the experiment, the preset or an override is impossible, or given data can't be read.
        """
        config = config_lib.load(f"{self.file}:{self.preset}")
        config_lib.override(config, self.overrides)
        origins.take_from_file(config, self.overrides)
        return config

    def check(self) -> None:
        """Raises UserError where the run is impossible, or its folder holds another one; nothing is written."""
        config = self.config()
        config_lib.build(config)
        WorkDir(self.folder).check(config)

    def is_done(self) -> bool:
        """Whether the folder holds this run's results."""
        if not self.folder.is_dir():
            return False
        return not evaluate.is_stale(config_lib.build(self.config()), WorkDir(self.folder))

    def start(self) -> int:
        """Runs it, with its output passed through: the exit status, minus a signal's number where that ended it. Asked to end, it
        asks the run and waits for its end."""
        command = [sys.executable, "-P", "-m", "closure_jax", f"--config={self.file}:{self.preset}"]
        last = {text.partition("=")[0]: text for text in self.overrides}  # what a study sets may be set again
        command += [f"--workdir={self.folder}", *(f"--config.{text}" for text in last.values())]
        with subprocess.Popen(command) as process:
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return process.wait(0.2)
                    if interrupts.asked() == signal.SIGTERM:  # SIGINT comes from a terminal, to the run as well
                        process.terminate()
                        return process.wait()
            except BaseException:
                process.terminate()
                raise


def default_preset() -> str:
    """`paper` on an accelerator, `small` on a CPU; asked in a process of its own, which frees the device again."""
    question = "from closure_jax.parallel import devices; print('paper' if devices.has_accelerator() else 'small')"
    answer = subprocess.run([sys.executable, "-P", "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        return answer.stdout.split()[-1]
    return "paper" if devices.has_accelerator() else "small"  # raises here what jax did there


LATENTS = ("recon", "mp", "ga", "joint")
"""Latent spaces that studies train flow matching in, by `experiments/fm_LATENT.py`."""


def check_seeds(seeds: int) -> None:
    """Raises UserError where --seeds is no number of runs that anybody makes."""
    check(1 <= seeds <= 1000, f"--seeds={seeds}: expected a whole number from 1 to 1,000")


def studied(preset: str, latents: str, seeds: int) -> tuple[str, list[str]]:
    """(preset, latents) of a study of these, the default preset where none is named.

    Args:
      preset: may be empty.
      latents: --latents, some of `LATENTS` with commas between.
      seeds: --seeds.
    Raises:
      UserError: one of them is impossible.
    """
    preset, chosen = preset or default_preset(), latents.split(",")
    check(preset in config_lib.PRESETS, f"preset '{preset}' is unknown: expected {', '.join(config_lib.PRESETS)}")
    check_seeds(seeds)
    for latent in chosen:
        check(latent in LATENTS, f"--latents: '{latent}': expected some of {', '.join(LATENTS)}")
    return preset, chosen


def leave_alone(overrides: Sequence[str], *fields: str) -> None:
    """Raises UserError where an override sets a field that a study sets itself."""
    for text in overrides:
        field = text.partition("=")[0]
        check(field not in fields, f"--config.{text}: the study sets {field} itself; leave it out")


def run_all(runs: Sequence[Run], label: str) -> list[Run]:
    """Starts those runs that are not done, in order, and returns the ones that are done in the end.

    A run that fails is told, and the next one starts; all are checked before the first starts.

    Raises:
      UserError: a run is impossible, or no data could be made.
      Stopped: a run was asked to end; the same command continues.
    """
    origins.check_data_folder()
    for run in runs:
        run.check()
    done = []
    for number, run in enumerate(runs, start=1):
        name = f"{label}: {number} of {len(runs)}, {run.folder.name}"
        if run.is_done():
            print(f"{name}: already done", flush=True)
            done.append(run)
            continue
        print(f"{name}", flush=True)
        start = time.perf_counter()
        status = run.start()
        number_of_signal = -status if status < 0 else status - 128  # below 0 where the run was not listening yet
        if number_of_signal in interrupts.SIGNALS:
            raise interrupts.Stopped(number=number_of_signal)
        if status == 0:
            done.append(run)
        minutes, seconds = divmod(round(time.perf_counter() - start), 60)
        how = "done" if status == 0 else f"FAILED with exit status {status}"
        print(f"{name}: {how} after {minutes} min {seconds:02d} s", flush=True)
    return done


def missing(runs: Sequence[Run], done: Sequence[Run]) -> None:
    """Raises UserError that names the runs which are not done, if any."""
    failed = [run.folder.name for run in runs if run not in done]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed ({', '.join(failed)}): their own lines say why; the same command tries"
            " them again and keeps what is done"
        )
