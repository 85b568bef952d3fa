"""The files of a run: the folder and its lock, records, checkpoints."""

from closure_jax.workdir.checkpoints import Checkpoints
from closure_jax.workdir.folder import FREE_FIELDS, JUDGED_FIELDS, WorkDir
from closure_jax.workdir.records import write_json

__all__ = ["FREE_FIELDS", "JUDGED_FIELDS", "Checkpoints", "WorkDir", "write_json"]
