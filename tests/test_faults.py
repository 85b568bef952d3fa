"""Faults at every place where something is kept: a write that fails, a bit that flips, a field that is anything.

The short form: in whole runs, `./launch.sh test --faults`.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import hypothesis
import pytest
from faults import overrides
from helpers import refusal

from closure_jax import config, files
from closure_jax.errors import UserError
from closure_jax.workdir import records

FAULTS = Path(__file__).resolve().parent / "faults"

WRITES = """
    import ctypes, os, pathlib
    import numpy as np
    from closure_jax import files
    from closure_jax.commands import cli
    from closure_jax.data import hdf5
    from closure_jax.workdir import WorkDir
    import h5py

    arm = ctypes.CDLL(None).fault_arm

    def write_json(folder, value):
        files.write_json(folder / "a.json", {"value": value}, vouches=True)

    def read_json(folder):
        return files.read_json(folder / "a.json", "")["value"]

    def write_data(folder, value):
        with hdf5.writing(folder / "a.h5", 80_000) as file:
            file["array"] = np.full((2, 10_000), value, np.float32)
            file.attrs["value"] = value

    def read_data(folder):
        with h5py.File(folder / "a.h5") as file:
            assert (file["array"][:] == file.attrs["value"]).all()
            return int(file.attrs["value"])

    def write_checkpoint(folder, value):
        checkpoints = WorkDir(folder).checkpoints("a")
        checkpoints.save(value, {"array": np.full(1000, value, np.float32)})
        checkpoints.close()

    def read_checkpoint(folder):
        checkpoints = WorkDir(folder).checkpoints("a")
        tree = checkpoints.restore({"array": np.zeros(1000, np.float32)})
        checkpoints.close()
        return int(tree["array"][0])

    def write_records(folder, value):
        log = WorkDir(folder).metrics("a", value - 1)
        log.write(value, {"loss": float(value)})
        log.close()

    def read_records(folder):
        found = WorkDir(folder).records("a")
        assert [record["step"] for record in found] == list(range(1, len(found) + 1))
        return len(found)

    home = pathlib.Path(os.environ["FAULT_UNDER"])
    for kind in ("json", "data", "checkpoint", "records"):
        write, read = globals()[f"write_{kind}"], globals()[f"read_{kind}"]
        number, failed = 0, 0
        while True:  # until there are no more writes to fail
            number += 1
            folder = home / f"{kind}{number}"
            folder.mkdir()
            write(folder, 1)
            arm(number, number % 2)
            status = cli.run(lambda: write(folder, 2))
            made = arm(0, 0)
            assert status in (0, 2), (kind, number, status)
            failed += status == 2
            found = read(folder)
            assert found in ((2,) if status == 0 else (1, 2)), (kind, number, status, found)
            write(folder, 2)
            assert read(folder) == 2, (kind, number)
            if made < number:
                break
        print(kind, number - 1, failed)
    cli.leave(2)  # soon, though some write left threads that wait for minutes
"""


@pytest.mark.slow
def test_any_write_of_what_a_run_keeps_may_fail(tmp_path):
    """Odd ones and all after them, even ones alone: one line, what was there is there still, and writing again is well."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path / "shim.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(FAULTS / "shim.c"), "-ldl"], check=True
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITES)],
        env=os.environ | {"LD_PRELOAD": str(library), "FAULT_UNDER": str(home), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 2, done.stdout + done.stderr[-3000:]
    said = done.stderr.splitlines()
    assert all(line.startswith("closure_jax: error: ") for line in said), done.stderr[-3000:]
    counts = {
        kind: (int(writes), int(failed)) for kind, writes, failed in map(str.split, done.stdout.splitlines()[-4:])
    }
    assert all(0 < failed <= writes for writes, failed in counts.values()), counts
    assert sum(failed for _, failed in counts.values()) == len(said)


def flips(content: bytes):
    """The content with each of its bits flipped in turn."""
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_a_flipped_bit_of_a_json_file_changes_no_number(tmp_path):
    file, content = tmp_path / "a.json", {"loss": 0.125, "steps": [1, 20], "name": "a", "none": None}
    files.write_json(file, content, vouches=True)
    refused = 0
    for flipped in flips(file.read_bytes()):
        file.write_bytes(flipped)
        try:
            assert files.read_json(file, "restore it") == content
        except UserError as error:
            assert str(error) == f"'{file}' is damaged: expected it as it was written; restore it"
            refused += 1
    assert refused == 8 * len(flipped)


def test_a_flipped_bit_of_the_records_changes_none(tmp_path):
    log = records.MetricsLog(tmp_path, "transport", 0)
    log.write(5, {"loss": 0.5})
    log.write(10, {"loss": 0.25})
    log.close()
    file = tmp_path / "metrics.jsonl"
    for flipped in flips(file.read_bytes()):
        file.write_bytes(flipped)
        if flipped.endswith(b"\n"):
            assert "metrics.jsonl', line " in refusal(records.read, file)
        else:  # as if the run had been killed in its last line, which it writes anew
            assert [record for _, record in records.read(file)] == [{"phase": "transport", "step": 5, "loss": 0.5}]


def events(folder: Path) -> list:
    """What the newest file for TensorBoard holds: records of a length, its checksum, that many bytes and theirs."""
    from tensorboardX.proto.event_pb2 import Event

    (file,), found = folder.iterdir(), []
    content = file.read_bytes()
    while content:
        size = int.from_bytes(content[:8], "little")
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    file.unlink()
    return found


def test_tensorboard_has_the_points_and_hides_those_behind_a_restart(tmp_path):
    log = records.MetricsLog(tmp_path, "transport", 0)
    log.write(5, {"loss": 0.5, "rate": 2.0})
    log.write(10, {"loss": 0.25})
    log.close()
    curves = [
        (one.step, value.tag, value.simple_value)
        for one in events(tmp_path / "tensorboard" / "transport")
        for value in one.summary.value
    ]
    assert curves == [(5, "loss", 0.5), (5, "rate", 2.0), (10, "loss", 0.25)]
    records.MetricsLog(tmp_path, "transport", 5).close()
    version, first, start = events(tmp_path / "tensorboard" / "transport")
    assert version.file_version == first.file_version == "brain.Event:2"
    assert start.step == 5 and start.session_log.status == start.session_log.START


def test_what_nobody_vouches_for_is_taken_and_from_then_on_vouched_for(tmp_path):
    """As it is in a folder of release 0.1."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text('{"a": 1}')
    (tmp_path / "metrics.jsonl").write_text('{"phase": "a", "step": 1}\n')
    assert files.read_json(old, "") == {"a": 1}
    files.write_json(new, {"b": 2}, vouches=True)
    assert (files.read_json(old, ""), files.read_json(new, "")) == ({"a": 1}, {"b": 2})
    assert records.read(tmp_path / "metrics.jsonl")[0][1] == {"phase": "a", "step": 1}
    old.write_text('{"a": 3}')
    assert "is damaged" in refusal(files.read_json, old, "restore it")


@hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
@hypothesis.given(overrides.overrides())
def test_any_override_is_refused_in_one_line_or_builds(example):
    experiment, options = example
    c = config.load(overrides.file(experiment))
    try:
        config.override(c, [text.removeprefix("--config.") for text in options])
        config.build(c)
    except UserError as error:
        assert str(error) and len(str(error).splitlines()) == 1


@pytest.mark.slow
@hypothesis.settings(max_examples=5, deadline=None, database=None, derandomize=True)
@hypothesis.given(overrides.overrides())
def test_a_dry_run_of_any_override_is_refused_or_counted(example):
    overrides.tried(*example)
