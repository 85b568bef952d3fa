"""A built wheel, installed outside the repository beside the packages of this environment, is whole and works."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("setuptools", "77", "the build backend, of the extra dev")

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*arguments: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs this Python in a folder, without what would show it the repository."""
    hidden = ("CLOSURE_JAX_HOME", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | variables
    command = [sys.executable, "-P", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing is left in the repository, and without a network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    shutil.copytree(REPOSITORY / "closure_jax", tree / "closure_jax", ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--wheel-dir=dist")
    done = run("-m", "pip", "wheel", *options, ".", folder=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tree / "dist").glob("closure_jax-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", f"--target={folder}")
    done = run("-m", "pip", "install", *options, wheel, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = REPOSITORY / "closure_jax"
    files = {str(file.relative_to(REPOSITORY)) for file in package.rglob("*") if file.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "closure_jax/py.typed" in found and "closure_jax/pretrained/cs_ga_online.npz" in found


def test_help_outside_the_repository(installed, tmp_path):
    done = run("-m", "closure_jax", "--help", folder=tmp_path, PYTHONPATH=str(installed))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: python -m closure_jax ")
    where = run("-c", "import closure_jax; print(closure_jax.__file__)", folder=tmp_path, PYTHONPATH=str(installed))
    assert where.stdout.strip() == str(installed / "closure_jax" / "__init__.py")
    done = run("-m", "closure_jax", "check", folder=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 2 and "has no pyproject.toml" in done.stderr


def test_the_readmes_example_runs_as_printed(installed, tmp_path):
    readme = (REPOSITORY / "README.md").read_text()
    example = re.search(r"^## Use a trained closure\n.*?```python\n(.*?)```", readme, flags=re.S | re.M)
    assert example is not None
    done = run("-c", example.group(1), folder=tmp_path, PYTHONPATH=str(installed), JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_quick(installed, tmp_path):
    """It imports none of the libraries on which it builds; jax alone takes most of a second."""
    program = "import sys, closure_jax; print(*{name.split('.')[0] for name in sys.modules})"
    done = run("-c", program, folder=tmp_path, PYTHONPATH=str(installed))
    assert not {"jax", "flax", "numpy", "ml_collections", "optax"} & set(done.stdout.split())
