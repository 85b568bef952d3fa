"""Provenance of a run: revision of the code, versions of packages, device, data."""

import importlib.metadata
import pathlib
import subprocess
import sys
from typing import Any

import closure_jax
from closure_jax.parallel import devices


def revision() -> str:
    """Git revision of the code, with '+' where it was changed; 'unknown' outside a repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(pathlib.Path(closure_jax.__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def provenance(data_path: pathlib.Path, data_checksum: str) -> dict[str, Any]:
    """Revision, device, versions of Python and packages, file and checksum of the data.

    `trained_revision` is that of the code that trained; a later evaluation keeps it and writes its own `revision`.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jax-cfd", "numpy")
    versions = {"closure_jax": closure_jax.__version__} | {name: importlib.metadata.version(name) for name in packages}
    return {
        "revision": revision(),
        "trained_revision": revision(),
        "device": devices.describe(),
        "python": sys.version.split()[0],
        "versions": versions,
        "data_path": str(data_path),
        "data_checksum": data_checksum,
    }
