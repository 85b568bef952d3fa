"""launch.sh and launcher/, without network or installation: a script that says what it was asked to do is the Python."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from closure_jax import commands
from closure_jax.commands import test as test_command

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH = REPOSITORY / "launch.sh"
NEEDED = ("launch.sh", "pyproject.toml", "constraints.txt", "launcher", "closure_jax/__init__.py")
NEEDED += ("closure_jax/errors.py", "closure_jax/commands/__init__.py")

# Every question (`-c`) is answered with yes; the launcher itself is run by real Python. `pip install` leaves a line in
# pip.log beside this script, takes PIP_SECONDS and ends with PIP_STATUS. A start prints its arguments and variables, and
# ends with STATUS.
STUB = """#!/usr/bin/env bash
case "$*" in
  */launcher\\ *) exec "{python}" "$@" ;;
  *"-c print(6 * 7)") echo 42 ;;
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
  *"-m pip uninstall"*) echo "$*" >>"{log}.uninstalled" ;;
  *"-m closure_jax"*)
    printf '%s\\n' "$@"
    printf '%s\\n' "folder=$PWD" "home=$CLOSURE_JAX_HOME" "path=${{PYTHONPATH:-}}"
    exit "${{STATUS:-0}}"
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
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy)(REPOSITORY / name, folder / name)
    (folder / "experiments").mkdir()
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


# --- what the arguments mean ------------------------------------------------------------------------------------------


def test_usage_needs_no_installation(copy, stub, first_start):
    for flag in ("--help", "-h", "help"):
        result = first_start(flag)
        assert result.returncode == 0 and result.stderr == ""
        words = ("usage: ./launch.sh", "--require_accelerator", "CLOSURE_JAX_PYTHON", *commands.COMMANDS)
        assert all(word in result.stdout for word in words)
    result = first_start()
    assert (result.returncode, result.stdout) == (2, "") and result.stderr.startswith("usage: ")
    assert not installs(stub) and not (copy / ".venv").exists()


def test_mistakes_are_refused_before_anything_is_installed(copy, stub, first_start):
    near = "near: experiments/fm_ga.py, experiments/fm_mp.py"
    for arguments, variables, words in [
        (["trian"], {}, ["trian", "sweep, study", "--help"]),
        (["--workdir=runs/a"], {}, ["--workdir=runs/a", "--help"]),
        (["fm_ga"], {}, ["fm_ga", "experiments/NAME.py", "--help"]),
        (["experiments/fm_gaa.py"], {}, ["experiments/fm_gaa.py", near]),
        (["fm_ga.py:smoke"], {}, ["fm_ga.py;", near]),
        (["/nowhere/FM_ga.py"], {}, ["/nowhere/FM_ga.py", near]),
        (["test"], {"CLOSURE_JAX_ACCELERATOR": "cuda11"}, ["cuda11", "cuda13"]),
        (["test"], {"CLOSURE_JAX_PYTHON": "/nowhere/python"}, ["/nowhere/python"]),
    ]:
        result = first_start(*arguments, **variables)
        assert_refused(result, *words)
        assert "__init__" not in result.stderr
    assert not installs(stub) and not (copy / ".venv").exists()


def test_an_experiment_of_the_current_folder_comes_before_that_of_the_repository(copy, tmp_path, monkeypatch):
    folder = tmp_path / "my study"
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "fm_ga.py").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(copy))
    for name, home in (("fm_ga.py", folder), ("fm_ga.py:tiny", folder), ("fm_mp.py", copy), ("fm_mp.py:small", copy)):
        found = ("closure_jax.commands.train", [f"--config={home}/experiments/{name}", "--dry_run"])
        assert commands.resolve([f"experiments/{name}", "--dry_run"]) == found


def test_commands_are_modules_with_an_entry():
    for command in commands.COMMANDS.values():
        file = REPOSITORY / f"{command.module.replace('.', '/')}.py"
        assert "\ndef main(arguments: Sequence[str] | None = None) -> int:" in file.read_text()
    assert commands.resolve(["demo", "--time=2"]) == ("closure_jax.commands.demo", ["--time=2"])
    assert commands.resolve(["--dry_run", "--config=x.py"])[0] == "closure_jax.commands.train"


def test_help_imports_no_array_library(monkeypatch):
    """So that it is quick, and so that launch.sh can ask before anything is installed."""
    monkeypatch.delenv("CLOSURE_JAX_HOME", raising=False)  # as without launch.sh, which may have started the tests
    program = "import sys; from closure_jax import commands; commands.main(['--help']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: python -m closure_jax")
    assert not {"jax", "numpy", "ml_collections", "flax"} & set(result.stdout.splitlines()[-1].split())


def test_a_notebook_does_not_say_how_figures_are_drawn(monkeypatch):
    """matplotlib reads the variable when it is imported, and refuses a backend that its environment lacks."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert commands.main(["--help"]) == 0 and "MPLBACKEND" not in os.environ


VARIABLES = [
    ({"JAX_PLATFORMS": "nosuch"}, ["sweep", "--only=fm_ga"], "JAX_PLATFORMS=nosuch: jax can't start it here"),
    ({"JAX_ENABLE_X64": "maybe"}, ["sweep"], "JAX_ENABLE_X64=maybe: jax does not take it (invalid truth value"),
    (
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=abc"},
        ["sweep"],
        "XLA_FLAGS=--xla_force_host_platform_device_count=abc: expected a whole number",
    ),
]
"""(the variables, the command, what the refusal begins with)."""


@pytest.mark.slow
def test_what_jax_can_not_start_with_is_told_by_the_name_of_the_variable():
    for variables, arguments, said in VARIABLES:
        command = [sys.executable, "-m", "closure_jax", *arguments]
        result = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        assert result.returncode == 2 and result.stdout == ""
        assert result.stderr.startswith(f"closure_jax: error: {said}") and result.stderr.count("\n") == 1, result.stderr


def test_the_tests_run_in_the_repository(monkeypatch, tmp_path):
    started = []
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append((Path.cwd(), arguments[1:])))
    assert test_command.main(["-k", "a or b"]) == 0
    assert test_command.main(["--quick", "-x"]) == 0
    assert started == [
        (REPOSITORY, ["-m", "pytest", "-k", "a or b"]),
        (REPOSITORY, ["-m", "pytest", "-m", "not slow", "-x"]),
    ]
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(tmp_path))
    assert test_command.main([]) == 2


# --- a Python of the user's -------------------------------------------------------------------------------------------


def test_what_is_no_python_is_refused(copy, tmp_path):
    silent = executable(tmp_path / "silent", "#!/bin/sh\n")
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", folder=copy, CLOSURE_JAX_PYTHON=str(silent))
    assert_refused(result, f"CLOSURE_JAX_PYTHON={silent} is no Python")


def test_arguments_and_status_pass_through(copy, stub, tmp_path):
    arguments = ["experiments/fm_ga.py:smoke", "--workdir=my runs/1", "--config.note=a 'b' $c", "--dry_run"]
    link = tmp_path / "bin" / "closure"
    link.parent.mkdir()
    link.symlink_to(Path("..") / "a copy" / "launch.sh")
    for script, folder in ((copy / "launch.sh", copy), (link, tmp_path)):
        result = launch(*arguments, script=script, folder=folder, CLOSURE_JAX_PYTHON=str(stub), STATUS="7")
        assert (result.returncode, result.stderr) == (7, "")
        assert result.stdout.splitlines() == [
            *("-P", "-m", "closure_jax", *arguments),
            *(f"folder={folder}", f"home={copy}", f"path={copy}"),
        ]


def test_a_python_that_lacks_packages_is_refused_with_the_remedy(copy, tmp_path):
    bare = executable(tmp_path / "bare python", f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", folder=tmp_path, CLOSURE_JAX_PYTHON=str(bare))
    assert_refused(result, "lacks jax, jaxlib, flax,", f'"{bare}" -m pip install -e "{copy}"')
    project = copy / "pyproject.toml"
    project.write_text(re.sub("jax>=[0-9.]+", "jax>=999.1", project.read_text(), count=1))
    result = launch("experiments/fm_ga.py", script=copy / "launch.sh", CLOSURE_JAX_PYTHON=sys.executable)
    assert_refused(result, "jax>=999.1 (it has ")


@pytest.mark.slow
def test_this_environment_has_what_is_needed(tmp_path):
    """The check of CLOSURE_JAX_PYTHON passes on the environment of these tests; the refusal is the package's."""
    result = launch("demo", "--members=0", folder=tmp_path, CLOSURE_JAX_PYTHON=sys.executable)
    assert result.returncode == 2 and result.stderr.startswith("closure_jax: error: --members=0")


# --- the installation -------------------------------------------------------------------------------------------------


def test_first_start_installs_and_later_ones_only_after_a_change(copy, stub, first_start):
    first = first_start("experiments/fm_ga.py")
    assert first.returncode == 0 and first.stdout.startswith("-P\n-m\nclosure_jax\nexperiments/fm_ga.py\n")
    assert first.stderr.count("\n") == 1 and "installing" in first.stderr
    assert installs(stub)[0].endswith("-c constraints.txt -e .[dev]")
    later = first_start("experiments/fm_ga.py")
    assert (later.stdout, later.stderr) == (first.stdout, "")
    assert len(installs(stub)) == 1
    with (copy / "constraints.txt").open("a") as file:
        file.write("another==1\n")
    first_start("test")
    assert len(installs(stub)) == 2
    first_start("test", CLOSURE_JAX_ACCELERATOR="cuda12")
    assert installs(stub)[2].endswith("-e .[dev,cuda12]")
    dropped = (stub.parent.parent / "pip.log.uninstalled").read_text().splitlines()[-1]
    assert "jax-cuda13-plugin jax-cuda13-pjrt libtpu" in dropped and "cuda12" not in dropped
    first_start("test", CLOSURE_JAX_ACCELERATOR="")
    assert len(installs(stub)) == 3, "an accelerator's build serves where nobody asks for another"
    moved = copy.rename(copy.parent / "moved")
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    result = launch("test", script=moved / "launch.sh", PATH=path, CLOSURE_JAX_ACCELERATOR="cpu")
    assert result.returncode == 0
    assert len(installs(stub)) == 4, "an editable installation points to the old folder"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GPU builds are for Linux")
@pytest.mark.skipif(Path("/dev/accel0").exists(), reason="a TPU comes first")
def test_build_follows_the_driver_and_the_oldest_gpu(copy, stub, first_start):
    for gpus, build in [
        ("580.65.06, 9.0", "cuda13"),
        ("580.65.06, 9.0\n580.65.06, 7.0", "cuda12"),  # CUDA 13 has left Volta
        ("535.104.05, 8.0", "cuda12"),
        ("470.1, 8.0", "cpu"),
    ]:
        shutil.rmtree(copy / ".venv", ignore_errors=True)
        executable(stub.parent / "nvidia-smi", f"#!/bin/sh\nprintf '%s\\n' '{gpus}'\n")
        assert first_start("test", CLOSURE_JAX_ACCELERATOR="").returncode == 0
        assert installs(stub)[-1].endswith("-e .[dev]" if build == "cpu" else f"-e .[dev,{build}]"), gpus
    assert first_start("test", CLOSURE_JAX_ACCELERATOR="tpu").returncode == 0
    assert installs(stub)[-1].endswith("-e .[dev,tpu]")


def test_failed_installation_shows_why_and_leaves_nothing(copy, stub, first_start):
    result = first_start("test", PIP_STATUS="1")
    assert result.returncode == 1 and result.stdout == ""
    assert "ERROR: no such package" in result.stderr
    assert not (copy / ".venv").exists()
    assert first_start("test").returncode == 0
    assert first_start("test", PIP_STATUS="1", CLOSURE_JAX_ACCELERATOR="tpu").returncode == 1
    result = first_start("test")
    assert (result.returncode, result.stderr) == (0, ""), "what was there before is as good as before"


def test_folder_that_is_no_environment_is_left_alone(copy, first_start):
    (copy / ".venv").mkdir()
    (copy / ".venv" / "thesis.txt").touch()
    assert_refused(first_start("test"), "no Python environment")
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


@pytest.mark.slow
def test_second_start_waits_for_the_first(copy, stub, first_start):
    first = begin_install(copy, stub, seconds=1)
    second = first_start("test")
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "waiting" in second.stderr
    assert len(installs(stub)) == 1


def test_interrupted_installation_leaves_nothing(copy, stub):
    """Whether the whole group gets the signal, as from a terminal, or launch.sh alone, as from `kill`."""
    for number, kill in ((signal.SIGINT, os.killpg), (signal.SIGTERM, os.killpg), (signal.SIGTERM, os.kill)):
        process = begin_install(copy, stub, seconds=5)
        kill(process.pid, number)
        process.wait(timeout=4)
        assert process.returncode == 128 + number
        assert "interrupted" in process.stderr.readline() + process.stderr.readline()
        assert not (copy / ".venv").exists()


@pytest.mark.slow
def test_killed_installation_is_made_afresh(copy, stub, first_start):
    for accelerator in ("cpu", "cuda12"):  # at first there is no environment, then there is one
        process = begin_install(copy, stub, seconds=30, accelerator=accelerator)
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
