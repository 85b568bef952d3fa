"""A disk that is full: one line, status 2, what was whole stays, and the same command goes on when there is room."""

import contextlib
import errno
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_data import simulation
from test_training import assert_goes_on_as_unbroken, initial_state, quadratic_phase

from closure_jax import files
from closure_jax.commands import cli
from closure_jax.data import generate, hdf5, simulate
from closure_jax.training import loop
from closure_jax.workdir import WorkDir

pytestmark = pytest.mark.slow


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path, kilobytes: int):
        self.path = path
        self._mount("size", kilobytes)

    def _mount(self, options: str, kilobytes: int) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"{options}={kilobytes}k", "tmpfs", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"can't mount a small disk here: {done.stderr.strip()}")

    def grow(self, kilobytes: int) -> None:
        self._mount("remount,size", kilobytes)

    def fill(self) -> None:
        """Takes all the room that is left."""
        with open(self.path / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Gives it back."""
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    yield lambda kilobytes: Disk(path, kilobytes)
    subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


HDF5 = """
import pathlib, sys
import numpy as np
from closure_jax import files
from closure_jax.commands import cli
from closure_jax.data import hdf5

def work():
    with hdf5.writing(pathlib.Path(sys.argv[1]) / "data.h5", int(sys.argv[2])) as file:
        fields = file.create_dataset("fields", (40, 64, 64), np.float32, chunks=(1, 64, 64))
        for number in range(40):
            fields[number] = number

sys.exit(cli.run(work))
"""


@pytest.mark.parametrize("asked", [40 * 64 * 64 * 4, 0], ids=["before", "meanwhile"])
def test_data_that_do_not_fit_are_refused_and_the_library_does_not_crash(disk, asked):
    small = disk(300)
    command = [sys.executable, "-c", HDF5, str(small.path), str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no space left on the disk" in line and "expected room" in line
    assert list(small.path.iterdir()) == []
    small.grow(2000)
    assert subprocess.run(command, check=False).returncode == 0
    assert [path.name for path in small.path.iterdir()] == ["data.h5"]


def test_a_partial_file_with_holes_has_no_room_for_what_it_lacks(disk):
    small, size = disk(300), 10**6
    path = small.path / "data.h5"
    with h5py.File(files.partial_name(path), "w") as file:
        hdf5.room(file, "fields", (size // 4,))
    assert files.partial_name(path).stat().st_size > size
    with (
        pytest.raises(OSError, match="No space left"),
        hdf5.writing(path, size, begun=True, resumable=lambda: True),
    ):
        pytest.fail("hours of work would have begun")
    small.grow(2000)
    with hdf5.writing(path, size, begun=True) as file:  # all of its room is taken now
        small.fill()
        file["fields"][:] = 1.0
    with h5py.File(path) as file:
        assert (file["fields"][:] == 1).all()


def test_a_simulation_goes_on_where_the_disk_was_full(disk, tmp_path, monkeypatch, capsys):
    small, run, snapshot = disk(800), [], simulate.Snapshots.next

    def counted(self):
        run.append(1)
        if len(run) == 15:
            small.fill()
        return snapshot(self)

    monkeypatch.setattr(files.Kept, "SECONDS", 0.0)
    monkeypatch.setattr(files.Kept, "SHARE", 1e9)
    generate.write(simulation(), tmp_path / "whole.h5")
    monkeypatch.setattr(simulate.Snapshots, "next", counted)
    capsys.readouterr()
    assert cli.run(lambda: generate.write(simulation(), small.path / "fields.h5")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no space left on the disk" in line and "expected room" in line
    small.empty()
    run.clear()
    generate.write(simulation(), small.path / "fields.h5")
    assert len(run) == 22 - 14
    assert (small.path / "fields.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_an_error_is_named_after_its_file_and_one_without_a_number_keeps_its_text(tmp_path, capsys):
    def copied() -> None:
        with files.aside(tmp_path / "copy"):
            raise shutil.Error([("/a", "/b", "[Errno 28] No space left on device: '/b'")])

    def written() -> None:
        with files.named(tmp_path / "metrics.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")

    for command in (copied, written):
        assert cli.run(command) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "no space left on the disk '/b': expected room" in first
    assert f"no space left on the disk '{tmp_path / 'metrics.jsonl'}'" in second


def test_a_checkpoint_that_does_not_fit_ends_training_which_goes_on_when_there_is_room(disk, tmp_path, capsys):
    small = disk(400)
    work = WorkDir(small.path / "run")
    work.path.mkdir()

    def filled_at_six(step):
        if step == 6:
            while not (work.path / "checkpoints" / "transport" / "4").is_dir():  # saved in the background
                time.sleep(0.01)
            small.fill()
        return quadratic_phase(12).batch_at(step)

    phase = quadratic_phase(12, batch_at=filled_at_six)
    capsys.readouterr()
    assert cli.run(lambda: loop.run(phase, initial_state(), work, log_every=2, checkpoint_every=4) and None) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no space left" in line and "expected room" in line
    assert work.checkpoints("transport").latest() == 4
    small.empty()
    assert_goes_on_as_unbroken(work, tmp_path / "whole")


def test_a_folder_that_can_not_be_copied_is_told_in_one_line(capsys, tmp_path, disk):
    small = disk(100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(np.zeros(10**6, np.uint8).tobytes())
    assert cli.run(lambda: shutil.copytree(tmp_path / "folder", small.path / "copy")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no space left on the disk" in line


def test_output_that_nobody_reads_ends_a_command_quietly():
    code = "import sys, time\nfrom closure_jax.commands import cli\n"
    code += "def work():\n    while True: print('a line', flush=True)\nsys.exit(cli.run(work))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141 and said == "closure_jax: nobody reads the output: stopped\n"
