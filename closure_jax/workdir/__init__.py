"""What a run leaves: the folder and its lock, records, checkpoints, strict files."""

from closure_jax.workdir.checkpoints import Checkpoints
from closure_jax.workdir.folder import FREE_FIELDS, WorkDir
from closure_jax.workdir.strict import write_json

__all__ = ["FREE_FIELDS", "Checkpoints", "WorkDir", "write_json"]
