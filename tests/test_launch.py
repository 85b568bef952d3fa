"""launch.sh, without network or installation: a script that says what it was asked to do stands in for Python."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH = REPOSITORY / "launch.sh"

# Every question (`-c`) is answered with yes, but for the lock, which real Python takes. `pip install` leaves a line in
# pip.log beside this script, takes PIP_SECONDS and ends with PIP_STATUS. A start prints its arguments and variables.
STUB = """#!/usr/bin/env bash
case "$*" in
  *fcntl*) exec "{python}" "$@" ;;
  *"-m venv"*)
    for folder; do :; done
    rm -rf "$folder" && mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" && : >"$folder/pyvenv.cfg"
    ;;
  *"-m pip install"*)
    echo "$*" >>"{log}"
    sleep "${{PIP_SECONDS:-0}}"
    [ "${{PIP_STATUS:-0}}" = 0 ] || echo "ERROR: no such package" >&2
    exit "${{PIP_STATUS:-0}}"
    ;;
  *"-m closure_jax"* | *"-m pytest"*)
    printf '%s\\n' "$@"
    printf '%s\\n' "folder=$PWD" "home=$CLOSURE_JAX_HOME" "path=${{PYTHONPATH:-}}"
    ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what steers launch.sh, and with `changes`."""
    steering = ("CLOSURE_JAX_", "PYTHONPATH", "TPU_NAME")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)} | changes


def launch(*arguments: str, script: Path = LAUNCH, folder: Path | None = None, **variables: str):
    command = ["bash", str(script), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def assert_refused(result: subprocess.CompletedProcess, *words: str) -> None:
    """The house's answer to bad input: status 2, nothing on stdout, and one line that says what is wrong."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("launch.sh: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A stand-in for Python, on a folder of its own so that it can be first on PATH as `python3`."""
    text = STUB.format(python=sys.executable, log=tmp_path / "pip.log")
    return executable(tmp_path / "stub" / "python3", text)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with nothing installed, in a folder with a space in its name."""
    folder = tmp_path / "a copy"
    (folder / "experiments").mkdir(parents=True)
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in ("fm_ga", "fm_mp", "dm_physical", "si_empirical_joint", "__init__"):
        (folder / "experiments" / f"{name}.py").touch()
    return folder


@pytest.fixture
def first_start(copy: Path, stub: Path):
    """Starts `copy` with the stub as the machine's Python, so that it "installs"; for CPU unless `variables` differ."""

    def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "CLOSURE_JAX_ACCELERATOR": "cpu"} | variables
        return launch(*arguments, script=copy / "launch.sh", **variables)

    return start


def installs(stub: Path) -> list[str]:
    log = stub.parent.parent / "pip.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag):
    result = launch(flag)
    assert result.returncode == 0 and result.stderr == ""
    for word in ("usage: ./launch.sh", "--require_accelerator", "test ", "CLOSURE_JAX_PYTHON"):
        assert word in result.stdout


def test_no_arguments_gives_the_usage_as_an_error():
    result = launch()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")


@pytest.mark.parametrize("command", ["trian", "--workdir=runs/a", "fm_ga"])
def test_unknown_command(command):
    assert_refused(launch(command), command, "--help")


@pytest.mark.parametrize("typed", ["experiments/fm_gaa.py", "fm_ga.py:smoke", "/nowhere/FM_ga.py"])
def test_missing_experiment_names_the_near_ones(copy, typed):
    result = launch(typed, script=copy / "launch.sh")
    assert_refused(result, typed.split(":")[0], "near: experiments/fm_ga.py, experiments/fm_mp.py")
    assert "__init__" not in result.stderr


def test_arguments_reach_python(copy, stub):
    arguments = ["--workdir=my runs/1", "--config.seed=3", "--config.note=a 'b' $c", "--dry_run"]
    result = launch(
        "experiments/fm_ga.py:smoke", *arguments, script=copy / "launch.sh", folder=copy, CLOSURE_JAX_PYTHON=str(stub)
    )
    assert (result.returncode, result.stderr) == (0, "")
    config = f"--config={copy}/experiments/fm_ga.py:smoke"
    assert result.stdout.splitlines() == [
        *("-P", "-m", "closure_jax", config, *arguments),
        *(f"folder={copy}", f"home={copy}", f"path={copy}"),
    ]


def test_experiment_of_the_current_folder_comes_before_that_of_the_repository(copy, stub, tmp_path):
    folder = tmp_path / "my study"
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "fm_ga.py").touch()
    for name, home in (("experiments/fm_ga.py", folder), ("experiments/fm_mp.py", copy)):
        result = launch(name, script=copy / "launch.sh", folder=folder, CLOSURE_JAX_PYTHON=str(stub))
        assert f"--config={home}/{name}\n" in result.stdout
        assert f"folder={folder}\n" in result.stdout


def test_start_through_a_symbolic_link(copy, stub, tmp_path):
    link = tmp_path / "bin" / "closure"
    link.parent.mkdir()
    link.symlink_to(Path("..") / "a copy" / "launch.sh")
    result = launch("experiments/fm_ga.py", script=link, folder=tmp_path, CLOSURE_JAX_PYTHON=str(stub))
    assert f"home={copy}\n" in result.stdout and result.returncode == 0


def test_the_tests_run_in_the_repository(copy, stub, tmp_path):
    result = launch("test", "-k", "a or b", script=copy / "launch.sh", folder=tmp_path, CLOSURE_JAX_PYTHON=str(stub))
    assert result.stdout.splitlines()[:5] == ["-m", "pytest", "-k", "a or b", f"folder={copy}"]


def test_status_of_python_is_the_status_of_the_start(copy, tmp_path):
    python = executable(tmp_path / "python", '#!/bin/sh\n[ "$1" = -c ] || exit 7\n')
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", CLOSURE_JAX_PYTHON=str(python))
    assert result.returncode == 7


def test_this_environment_has_what_is_needed(copy):
    """The check of CLOSURE_JAX_PYTHON passes on the environment of these tests, whatever Python then says."""
    result = launch("test", "--version", script=copy / "launch.sh", CLOSURE_JAX_PYTHON=sys.executable)
    assert result.returncode == 0 and "pytest" in result.stdout + result.stderr


def test_missing_packages_are_named_with_the_remedy(copy, tmp_path):
    bare = executable(tmp_path / "bare python", f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", folder=tmp_path, CLOSURE_JAX_PYTHON=str(bare))
    assert_refused(result, "lacks jax, jaxlib, flax,", f'"{bare}" -m pip install -e "{copy}"')


def test_too_old_a_package_is_named(copy):
    project = copy / "pyproject.toml"
    project.write_text(re.sub("jax>=[0-9.]+", "jax>=999.1", project.read_text(), count=1))
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", CLOSURE_JAX_PYTHON=sys.executable)
    assert_refused(result, "jax>=999.1 (it has ")


def test_python_that_is_not_there(copy):
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", CLOSURE_JAX_PYTHON="/nowhere/python")
    assert_refused(result, "/nowhere/python")


def test_unknown_accelerator(first_start):
    assert_refused(first_start("test", CLOSURE_JAX_ACCELERATOR="cuda11"), "cuda11", "cuda13")


def test_first_start_installs_and_later_ones_do_not(copy, stub, first_start):
    first = first_start("experiments/fm_ga.py")
    assert first.returncode == 0 and first.stdout.startswith("-P\n-m\nclosure_jax\n")
    assert first.stderr.count("\n") == 1 and "installing" in first.stderr
    assert "-c constraints.txt -e ." in installs(stub)[0]
    later = first_start("experiments/fm_ga.py")
    assert (later.stdout, later.stderr) == (first.stdout, "")
    assert len(installs(stub)) == 1


def test_change_of_pins_or_accelerator_installs_again(copy, stub, first_start):
    first_start("test")
    with (copy / "constraints.txt").open("a") as file:
        file.write("another==1\n")
    first_start("test")
    assert len(installs(stub)) == 2
    first_start("test", CLOSURE_JAX_ACCELERATOR="cuda12")
    assert installs(stub)[2].endswith("-e .[cuda12]")
    first_start("test", CLOSURE_JAX_ACCELERATOR="")
    assert len(installs(stub)) == 3, "an accelerator's build serves where nobody asks for another"


def test_moved_repository_installs_again(copy, stub, first_start):
    first_start("test")
    moved = copy.rename(copy.parent / "moved")
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    result = launch("test", script=moved / "launch.sh", PATH=path, CLOSURE_JAX_ACCELERATOR="cpu")
    assert result.returncode == 0
    assert len(installs(stub)) == 2, "an editable installation points to the old folder"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GPU builds are for Linux")
@pytest.mark.parametrize(
    "gpus, kind",
    [
        ("580.65.06, 9.0", "cuda13"),
        ("580.65.06, 9.0\n580.65.06, 7.0", "cuda12"),  # CUDA 13 has left Volta
        ("535.104.05, 8.0", "cuda12"),
        ("470.1, 8.0", "cpu"),
    ],
)
def test_build_follows_the_driver_and_the_oldest_gpu(stub, first_start, gpus, kind):
    if Path("/dev/accel0").exists():
        pytest.skip("a TPU comes first")
    executable(stub.parent / "nvidia-smi", f"#!/bin/sh\nprintf '%s\\n' '{gpus}'\n")
    assert first_start("test", CLOSURE_JAX_ACCELERATOR="").returncode == 0
    assert installs(stub)[0].endswith("-e ." if kind == "cpu" else f"-e .[{kind}]")


def test_failed_installation_shows_why_and_leaves_nothing(copy, stub, first_start):
    result = first_start("test", PIP_STATUS="1")
    assert result.returncode == 1 and result.stdout == ""
    assert "ERROR: no such package" in result.stderr
    assert not (copy / ".venv").exists()
    assert first_start("test").returncode == 0


def test_folder_that_is_no_environment_is_left_alone(copy, first_start):
    (copy / ".venv").mkdir()
    (copy / ".venv" / "thesis.txt").touch()
    result = first_start("test")
    assert result.returncode == 2 and "no Python environment" in result.stderr
    assert (copy / ".venv" / "thesis.txt").exists()


def begin_install(copy: Path, stub: Path, seconds: float, accelerator: str = "cpu") -> subprocess.Popen:
    """Starts `copy` with a pip that takes `seconds`, and returns once pip runs."""
    before = len(installs(stub))
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    # Where these tests run in the background, SIGINT may be ignored, which the script would inherit.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        ["bash", str(copy / "launch.sh"), "test"],
        env=environment(PATH=path, CLOSURE_JAX_ACCELERATOR=accelerator, PIP_SECONDS=str(seconds)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, handler)
    deadline = time.monotonic() + 20
    while len(installs(stub)) == before:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def test_second_start_waits_for_the_first(copy, stub, first_start):
    first = begin_install(copy, stub, seconds=1)
    second = first_start("test")
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "waiting" in second.stderr
    assert len(installs(stub)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_installation_leaves_nothing(copy, stub, number):
    process = begin_install(copy, stub, seconds=30)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert "interrupted" in errors
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("installed_before", [False, True])
def test_killed_installation_is_made_afresh(copy, stub, first_start, installed_before):
    if installed_before:
        first_start("test")
    process = begin_install(copy, stub, seconds=30, accelerator="cuda12")
    half_written = copy / ".venv" / "half written"
    half_written.touch()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    before = len(installs(stub))
    result = first_start("test")
    assert result.returncode == 0 and "waiting" not in result.stderr
    assert len(installs(stub)) == before + 1
    assert not half_written.exists()
    assert first_start("test").stderr == ""
