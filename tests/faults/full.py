"""The faults in full, `./launch.sh test --faults`: hours. The short form is tests/test_faults.py.

Every run is a process of its own; three of them at a time, one more than there are cores to test on. Those that only end by
themselves are forked (forks.py). What is found wrong is listed at the end of each test.
"""

import concurrent.futures
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent)]
import forks  # noqa: E402
import job  # noqa: E402

WORKERS = int(os.environ.get("FAULT_WORKERS", "3"))
FIRST, EVERY = int(os.environ.get("FAULT_FIRST", "1")), int(os.environ.get("FAULT_EVERY", "1"))
"""The first write that fails, and every how manieth from there; 1 and 1: each of them."""
FLIPS, ENDS = int(os.environ.get("FAULT_FLIPS", "200")), int(os.environ.get("FAULT_ENDS", "10"))
"""Bits that are flipped, and ends by each signal of each experiment."""


def all_of(tried: Callable[[int], None], numbers: Iterable[int], label: str) -> None:
    """Tries each number, prints a line a minute, and fails with all that went wrong."""
    numbers, wrong, said, begun = list(numbers), [], time.monotonic(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        running = {pool.submit(tried, number): number for number in numbers}
        for done, future in enumerate(concurrent.futures.as_completed(running), start=1):
            error = future.exception()
            if error is not None:
                wrong.append(f"{label} {running[future]}: {error}")
                print(wrong[-1], flush=True)
            if time.monotonic() - said > 60 or done == len(numbers):
                said = time.monotonic()
                print(f"{label}: {done} of {len(numbers)}, {len(wrong)} wrong, {said - begun:.0f} s", flush=True)
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with an unbroken run, and its numbers."""
    folder = tmp_path_factory.mktemp("whole")
    status, said = job.end(job.start(folder))
    assert status == 0, said
    return folder, job.numbers(folder)


# --- writes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).parent / "shim.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def test_any_write_may_fail(whole, shim, tmp_path):
    """Odd numbers: that write alone. Even ones: it and all later ones, as while a disk stays full."""

    def under(folder: Path, number: int) -> dict[str, str]:
        return {"FAULT_UNDER": str(folder), "FAULT_AT": str(number), "FAULT_FROM": str(1 - number % 2)}

    counted = tmp_path / "counted"

    def tried(number: int) -> None:
        folder = tmp_path / str(number)
        status, said = runs.run(folder, **under(folder, number))
        if status:
            job.assert_refused(status, said)
        status, said = runs.run(folder)
        assert status == 0, said
        assert job.numbers(folder) == whole[1], "other numbers"
        shutil.rmtree(folder)

    with forks.runs(tmp_path, WORKERS, LD_PRELOAD=str(shim)) as runs:
        status, said = runs.run(tmp_path / "first", **under(tmp_path / "first", 0), FAULT_COUNT=str(counted))
        assert status == 0, said
        count = int(counted.read_text())
        print(f"{count} writes")
        all_of(tried, range(FIRST, count + 1, EVERY), "write")


# --- bits ------------------------------------------------------------------------------------------------------------


def _unfinished(folder: Path) -> None:
    """As if it had been stopped in the transport's training."""
    for path in ("checkpoints/closure", "checkpoints/transport/8", "figures"):
        shutil.rmtree(folder / "run" / path)
    for name in ("results.json", "arrays.npz", "report.html"):
        (folder / "run" / name).unlink()


STAGES: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "goes on": (_unfinished, [], "run"),
    "judges again": (lambda folder: None, ["--mode=evaluate"], "run"),
    "begins anew": (lambda folder: None, [], "another"),
    "is done": (lambda folder: None, [], "run"),
}
"""What is done with the folder, options, and the work directory of the command that follows."""


def test_a_bit_is_flipped(whole, tmp_path):
    def tried(number: int) -> None:
        chance = random.Random(number)
        folder = tmp_path / str(number)
        shutil.copytree(whole[0], folder)
        stage = chance.choice(list(STAGES))
        prepare, options, work = STAGES[stage]
        prepare(folder)
        kinds = [
            [path for path in folder.rglob(pattern) if path.is_file() and path.stat().st_size]
            for pattern in ("data/*.h5", "data/autoencoders/**/*", "run/checkpoints/**/*", "run/*.json", "run/*.jsonl")
        ]
        path = chance.choice(chance.choice([kind for kind in kinds if kind]))
        content = bytearray(path.read_bytes())
        bit = chance.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        where = f"{stage}, bit {bit} of {path.relative_to(folder)}"
        status, said = runs.run(folder, *options, work=work)
        try:
            if status:
                job.assert_refused(status, said)
            else:
                assert job.numbers(folder, work) == whole[1], "other numbers"
        except AssertionError as error:
            raise AssertionError(f"{where}: {str(error)[:500]}") from None
        shutil.rmtree(folder)

    with forks.runs(tmp_path, WORKERS) as runs:
        all_of(tried, range(FLIPS), "flip")


# --- ends ------------------------------------------------------------------------------------------------------------


KINDS = ("fm_ga", "cs_ga_online", "two processes", "sweep")


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """(exit status, stderr) of each, whose output is read at once: a full pipe would hold one that another waits for."""
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(job.end, processes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_run_is_ended(name, kind, tmp_path):
    """SIGKILL ends all processes, as where a machine is taken away; SIGTERM asks one of them."""
    begun = time.monotonic()
    assert all(status == 0 for status, _ in ends(job.start_kind(tmp_path / "whole", kind)))
    takes, expected = time.monotonic() - begun, job.numbers_of_all(tmp_path / "whole")
    assert len(expected) == (2 if kind == "sweep" else 1)

    def tried(number: int) -> None:
        chance, folder = random.Random(f"{name} {number}"), tmp_path / str(number)
        processes = job.start_kind(folder, kind)
        time.sleep(chance.uniform(0, takes))
        if name == "SIGTERM":
            chance.choice(processes).send_signal(signal.SIGTERM)
        elif kind == "sweep":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(processes[0].pid, signal.SIGKILL)
        else:
            for process in processes:
                process.kill()
        asked = time.monotonic()
        for status, said in ends(processes):
            assert "Traceback" not in said, said[-2000:]
            if name == "SIGTERM":
                assert status in (0, 143, -15), f"{status}: {said}"
        assert time.monotonic() - asked < 30, "did not end within 30 s"
        for status, said in ends(job.start_kind(folder, kind)):
            assert status == 0, said
        assert job.numbers_of_all(folder) == expected, "other numbers"
        shutil.rmtree(folder)

    all_of(tried, range(ENDS), f"{name} of {kind}")


# --- configurations --------------------------------------------------------------------------------------------------


def test_any_override_is_refused_or_counted(tmp_path):
    """1,000 of them, by hypothesis, each at most 10 s; in processes of 100, each within its memory."""
    for number in range(10):
        command = [sys.executable, str(Path(__file__).parent / "overrides.py"), "100", str(number)]
        done = subprocess.run(command, cwd=tmp_path, env=job.environment(tmp_path), capture_output=True, text=True)
        print(done.stdout[-300:], flush=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
