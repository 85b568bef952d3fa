"""`./launch.sh check`: lint, format and types of the repository. Nothing is changed."""

import os
import subprocess
import sys
from collections.abc import Sequence

from closure_jax import commands
from closure_jax.commands import cli
from closure_jax.errors import UserError

CHECKS = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("pyright", "--pythonpath", sys.executable),
}
"""What each check runs; pyproject.toml configures them."""


def _command(arguments: Sequence[str]) -> int:
    cli.Parser("check", "Look at lint, format and types of the repository; nothing is changed.").options(arguments)
    home = commands.home()
    if not (home / "pyproject.toml").is_file():
        raise UserError(f"'{home.resolve()}' has no pyproject.toml: expected to be started by launch.sh")
    cli.require("ruff", "pyright")
    environment = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"} | os.environ  # else pyright asks the network for a newer one
    failed: list[str] = []
    for name, command in CHECKS.items():
        print(f"check: {name}", flush=True)
        if subprocess.run([sys.executable, "-m", *command], cwd=home, env=environment, check=False).returncode:
            failed.append(name)
    print(f"check: failed: {', '.join(failed)}" if failed else "check: all well", flush=True)
    return bool(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `./launch.sh check`; returns the exit status, 1 where a check failed."""
    return cli.run(lambda: _command(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
