"""A short run of `tiny` in a process of its own, and what must be the same whatever befell it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHORT = ["autoencoder.steps=4", "transport.steps=8", "training.log_every=2", "training.checkpoint_every=4"]
SHORT += ["evaluation.steps=1,2", "evaluation.samples=3", "evaluation.rollout_states=1", "evaluation.rollout_members=2"]
ONLINE = [*SHORT[:4], *SHORT[5:], "program.steps=8"]


def command(folder: Path, *options: str, experiment: str = "fm_ga", work: str = "run") -> list[str]:
    """The command of the short run, in folder/run."""
    short = ONLINE if experiment.endswith("online") else SHORT
    return [
        *(sys.executable, "-m", "closure_jax", f"--config={REPOSITORY / 'experiments' / experiment}.py:tiny"),
        *(f"--workdir={folder / work}", *(f"--config.{text}" for text in short), *options),
    ]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Data in folder/data; compiled programs wherever the caller keeps them."""
    own = {"CLOSURE_JAX_DATA": str(folder / "data"), "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    return os.environ | own | more


def start(folder: Path, *options: str, experiment: str = "fm_ga", work: str = "run", **more: str) -> subprocess.Popen:
    """Starts the run."""
    return subprocess.Popen(
        command(folder, *options, experiment=experiment, work=work),
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_kind(folder: Path, kind: str) -> list[subprocess.Popen]:
    """Starts what is named: an experiment's short run, that of fm_ga in "two processes" on loopback, or a "sweep" of two."""
    if kind == "two processes":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
        # one process would read a compiled program that the other is still writing
        return [
            start(folder, **job, JAX_PROCESS_ID=str(number), JAX_ENABLE_COMPILATION_CACHE="false")
            for number in range(2)
        ]
    if kind != "sweep":
        return [start(folder, experiment=kind)]
    command = [sys.executable, "-m", "closure_jax.commands.sweep", "--preset=tiny", "--only=fm_ga,fm_recon"]
    command += [f"--runs={folder / 'sweep'}"]
    return [
        subprocess.Popen(
            [*command, *(f"--config.{text}" for text in SHORT)],
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    ]


def numbers_of_all(folder: Path) -> dict[str, Any]:
    """What the runs of `start_kind` say, by work directory."""
    works = sorted(file.parent for file in folder.rglob("results.json"))
    return {str(work.relative_to(folder)): numbers(folder, str(work.relative_to(folder))) for work in works}


def end(process: subprocess.Popen) -> tuple[int, str]:
    """(exit status, stderr) of a run."""
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def assert_refused(status: int, said: str) -> None:
    """One line of ours, which names the file where a disk is full, and status 2."""
    assert status == 2 and said.startswith("closure_jax: error: ") and said.count("\n") == 1, (
        f"{status}: {said[-3000:]}"
    )
    assert "Errno None" not in said and ("no space left" not in said or "'/" in said), said


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        timed = ("second", "revision", "device", "versions")
        return {name: _timeless(value) for name, value in content.items() if not any(word in name for word in timed)}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def numbers(folder: Path, work: str = "run") -> dict[str, Any]:
    """What a finished run says, times apart: results.json, and the records of its training."""
    results = json.loads((folder / work / "results.json").read_text())
    lines = map(json.loads, (folder / work / "metrics.jsonl").read_text().splitlines())
    return {"results": _timeless(results), "records": [_timeless(line) for line in lines]}
