"""Checkpoints of one phase of training, by Orbax, which no other module imports."""

import collections
import contextlib
import errno
import functools
import hashlib
import json
import logging
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from closure_jax.errors import UserError
from closure_jax.parallel import processes


@functools.cache
def drop_late_complaints() -> None:
    """Drops tracebacks of what has been raised before: threads of Orbax's storage library report a failed read, at any later
    time, to an event loop that has ended; and TensorBoard's writer closes its file once more on a disk that is full."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if "Event loop is closed" not in str(error) and not full:
            before(unraisable)

    sys.unraisablehook = hook
    for name in ("asyncio", "absl"):  # the latter is Orbax's, whose errors are raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # what a save that failed had still to do
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


_DIGEST = "sha256"
_CANT_WRITE = {
    "No space left": "no space left",
    "Disk quota exceeded": "disk quota exceeded",
    "File too large": "file too large",
    "Read-only file system": "read-only file system",
    "Permission denied": "permission denied",
    "Input/output error": "input or output error",
}
"""What Orbax and its storage library say where a file can't be written, and what we do."""


def _digest(tree: Any, identity: dict[str, Any]) -> str:
    """SHA-256 of what a checkpoint says of itself, where it does, and of the numbers of its tree, leaf by leaf."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode() if identity else b"")
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _misfit(there: Any, asked: Any) -> str:
    """In what the shapes of a tree's arrays are not those that are asked for; empty where they are."""
    have, want = (collections.Counter(np.shape(leaf) for leaf in jax.tree.leaves(tree)) for tree in (there, asked))
    other, missing = (next(iter(one), None) for one in (have - want, want - have))
    return "" if have == want else f"an array has shape {other}, expected {missing}"


class Checkpoints:
    """Orbax checkpoints of one phase, saved in the background; the newest two are kept.

    Trees are whole and on the host, so process 0 alone saves, and each process restores by itself: Orbax is told of no
    other process.

    Args:
      folder: of the phase, which has its name.
      of_run: name of the run, kept in its checkpoints; those of another are refused. "": they may be taken over.
    """

    def __init__(self, folder: pathlib.Path, of_run: str = ""):
        self._checkpoints, self._run, self._of_run = folder.absolute(), folder.parent.parent, of_run
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            drop_late_complaints()
            own = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=jax.process_count() == 1,
                enable_async_checkpointing=True,
                lightweight_initialize=True,  # what is noted of a step is read with it, so that a damaged one is in nobody's way
                read_only=not processes.is_main(),
                multiprocessing_options=alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions(),
            )
            handler = ocp.StandardCheckpointHandler()
            self._manager = ocp.CheckpointManager(self._checkpoints, options=options, item_handlers=handler)
        return self._manager

    def latest(self) -> int | None:
        """Newest finished step, or None."""
        return self._open().latest_step() if self._checkpoints.is_dir() else None

    def require(self) -> int:
        """Newest finished step.

        Raises:
          UserError: there is none.
        """
        step = self.latest()
        if step is None:
            raise UserError(
                f"'{self._checkpoints.name}' has no checkpoint in '{self._run}': expected a run that has ended; train it"
            )
        return step

    def misfit(self, template: Any) -> str:
        """In what the newest tree's shapes are not those of `template`, of arrays or `jax.ShapeDtypeStruct`s; nothing is read.

        Empty where they are, where there is no tree, and where it doesn't say.
        """
        newest = self.latest()
        with contextlib.suppress(Exception):  # of a damaged one `restore` says what became of it
            arrays = None if newest is None else self._open().metadata(newest).item_metadata.tree
            return _misfit(arrays, template) if arrays else ""
        return ""

    def save(self, step: int, tree: Any) -> None:
        """Copies the tree to the host and writes it in the background, with a digest; on process 0, others do nothing.

        Checkpoints of this step and of later ones go: training has gone on from an earlier one.
        """
        if not processes.is_main():
            return
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        manager, host = self._open(), jax.device_get(tree)
        with self._writing(manager):
            for later in [other for other in manager.all_steps() if other >= step]:
                manager.delete(later)
            identity = self._identity(step)
            noted = identity | {_DIGEST: _digest(host, identity)}
            manager.save(step, args=ocp.args.StandardSave(host), custom_metadata=noted)

    def _identity(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {"phase": self._checkpoints.name, "step": step} | ({"run": self._of_run} if self._of_run else {})

    def restore(self, template: Any) -> Any:
        """The newest tree that is whole, as numpy arrays in the structure of `template`, whatever devices saved it.

        Says so where that is not the newest of all.

        Raises:
          UserError: there is none, or its structure is another.
        """
        newest = self.require()
        like = jax.device_get(template)
        found = f"'{self._checkpoints.name}' in '{self._run}'"
        damaged: dict[int, str] = {}
        for step in sorted(self._open().all_steps(), reverse=True):
            try:
                tree = self._read(step, like)
            except (
                Exception
            ) as error:  # whatever Orbax and its storage library make of files that are not what they wrote
                damaged[step] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                continue
            for other, reason in damaged.items():
                print(f"checkpoint {other} of {found} can't be read ({reason}): goes on from checkpoint {step}")
            return tree
        raise UserError(
            f"checkpoint {newest} of {found} can't be read ({damaged[newest]}), nor an earlier one: expected what this"
            " configuration saved; delete that phase's folder in checkpoints to train it again"
        )

    def _read(self, step: int, like: Any) -> Any:
        manager = self._open()
        of_step = manager.metadata(step)
        arrays = getattr(of_step.item_metadata, "tree", None)
        if of_step.commit_timestamp_nsecs is None or not arrays:
            raise ValueError("what was noted of it is gone")
        if misfit := _misfit(arrays, like):  # before anything is read: a checkpoint of anybody's may say any size
            raise ValueError(misfit)
        noted = of_step.custom_metadata or {}
        asked_for = self._identity(step)
        identity = {name: noted[name] for name in ("phase", "step", "run") if name in noted}  # older ones have less
        for name, value in identity.items():
            if value != asked_for.get(name, value):
                raise ValueError(f"it is of {name} {value!r}, expected {asked_for[name]!r}")
        tree = manager.restore(step, args=ocp.args.StandardRestore(like))
        if not identity and _DIGEST not in noted:
            found = f"checkpoint {step} of '{self._checkpoints.name}' in '{self._run}'"
            print(f"{found} has no digest, which release 0.1 left out: it is not checked")
        elif noted.get(_DIGEST) != _digest(tree, identity):
            raise ValueError("its numbers are not those that were saved")
        return tree

    def close(self) -> None:
        """Waits for writes in the background."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with self._writing(manager):
                manager.wait_until_finished()
                manager.close()

    @contextlib.contextmanager
    def _writing(self, manager: ocp.CheckpointManager) -> Iterator[None]:
        """Raises UserError where Orbax can't write, now or in the background before; its errors have no type of their own."""
        try:
            yield
        except Exception as error:
            said = str(error)
            reason = next((why for word, why in _CANT_WRITE.items() if word in said), None)
            if reason is None:
                raise
            self._manager = None
            with contextlib.suppress(Exception):  # the same error once more
                manager.close()  # its threads still take away what they had begun
            raise UserError(
                f"a checkpoint can't be written to '{self._checkpoints}' ({reason}): expected room in a folder of yours; make"
                " some, and the same command goes on from the checkpoint before"
            ) from None
