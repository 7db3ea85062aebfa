"""Checkpoints: written asynchronously, whole or not at all, and checked when they are read.

The only file that imports orbax.
"""

import json
import math
import sys
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, UInt32
from orbax.checkpoint import v1 as ocp

from bert_jax.errors import UserError, one_line
from bert_jax.store import Folder, absolute, move, on_store
from bert_jax.training.hosts import all_say, barrier, is_first
from bert_jax.training.metrics import read_metrics
from bert_jax.training.step import TrainState

FOLDER = "checkpoints"
DAMAGED = "damaged-checkpoints"


def has_begun(workdir: Folder) -> bool:
    """Whether a run has left anything in the workdir that another must not go on with."""
    return last_saved(workdir) > 0 or bool(read_metrics(workdir))


def last_saved(workdir: Folder) -> int:
    """The newest checkpoint's step; 0 where there is none."""
    folder = workdir / FOLDER
    entries = folder.iterdir() if folder.is_dir() else ()
    return max((int(entry.name) for entry in entries if entry.name.isdigit()), default=0)


class Checkpoints:
    """The checkpoints of a workdir. A checkpoint is visible only when it is complete.

    Kept are the `keep` newest, the `keep_best` with the lowest loss of those that were saved with
    one, and those whose step is a multiple of `keep_every` (0: none). All processes of a run call
    the same methods together.
    """

    def __init__(self, workdir: epath.PathLike, keep: int, keep_best: int = 0, keep_every: int = 0):
        self.folder = absolute(workdir) / FOLDER  # orbax wants it so
        self.notes = self._set_aside_unreadable()
        kinds = ocp.training.preservation_policies
        policies = [kinds.LatestN(keep)]
        if keep_best:
            policies.append(
                kinds.BestN(
                    get_metric_fn=lambda metrics: metrics["eval_loss"], reverse=True, n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )  # fmt: skip
        if keep_every:
            policies.append(kinds.EveryNSteps(keep_every))
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            preservation_policy=kinds.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )
        self._digest = jax.jit(digest)

    def _set_aside_unreadable(self) -> list[str]:
        """Move checkpoints whose loss is not JSON out of Orbax's way, which reads them all before
        it does anything; a note for each."""
        notes = []
        for path in sorted(self.folder.glob("*/metrics/metrics")):
            try:
                json.loads(path.read_text())
            except ValueError:
                step = path.parent.parent.name
                notes.append(f"checkpoint {step} in {self.folder} cannot be read: its metrics")
                notes.append(f"moved it to {self._move_aside(step)}")
        barrier("checkpoints were looked at")
        return notes

    def _move_aside(self, step: str) -> epath.Path:
        """To where it is in nobody's way; all processes call it together."""
        target = self.folder.parent / DAMAGED / step
        while target.exists():
            target = target.with_name(target.name + "-again")
        barrier("damaged checkpoint found")
        if is_first() and on_store(target):
            move(self.folder / step, target)
        elif is_first():
            target.parent.mkdir(exist_ok=True)
            (self.folder / step).rename(target)
        return target

    @property
    def steps(self) -> list[int]:
        """The steps that are there, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def save(self, step: int, state: TrainState, eval_loss: float | None = None) -> None:
        """Begin to write; training may go on and donate `state`. What was begun before is waited
        for, so its error, if it had one, is raised here. `eval_loss`: of these parameters, where
        it is known, or any number that is lower for better ones."""
        facts = {"digest": [int(number) for number in jax.device_get(self._digest(state))]}
        metrics = None if eval_loss is None else {"eval_loss": eval_loss}
        try:
            self._checkpointer.save_async(
                step, state, force=True, metrics=metrics, custom_metadata=facts
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        try:
            self._checkpointer.wait()
        except Exception as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        self.wait()
        self._checkpointer.close()

    def restore_newest(self, like: TrainState) -> tuple[TrainState | None, list[str]]:
        """The newest checkpoint that can be read, placed as `like` is; None if there is none.

        Also a note for each newer one that could not be; `set_aside_after` moves those away.
        Raises UserError where there are checkpoints and none can be read.
        """
        notes, self.notes = self.notes, []
        for step in reversed(self.steps):
            state, saved, reason = None, [], "another process cannot read its part"
            try:
                with ocp.Context(multiprocessing_options=by_itself()):
                    state = self._checkpointer.load(step, _abstract(like))
                saved = self._checkpointer.metadata(step).custom_metadata["digest"]
            except Exception as error:  # orbax raises many kinds for a damaged file
                state, reason = None, one_line(error, 160)
            if all_say(state is not None):
                if _equal(self._digest(state), saved):
                    return state, notes
                reason = "its contents do not match the checksum that was stored with them"
            notes.append(f"checkpoint {step} in {self.folder} cannot be read: {reason}")
        if notes:
            raise UserError(
                f"{notes[0]}; nor can any older one. Nothing was deleted: bring back a copy, or "
                f"start again in an empty workdir"
            )
        return None, notes

    def set_aside_after(self, step: int) -> list[str]:
        """Move the checkpoints beyond `step`, found unreadable, out of the way of new ones; a
        note for each."""
        moved = []
        for later in [number for number in self.steps if number > step]:
            target = self._move_aside(str(later))
            moved.append(f"moved it to {target}, going on from step {step}")
        if moved:
            barrier("damaged checkpoints moved")
            self._checkpointer.reload()
        return moved

    def _unwritten(self, error: Exception) -> UserError:
        return UserError(
            f"{self.folder}: a checkpoint could not be written ({one_line(error, 300)}); make room "
            f"and start the same command again: it goes on from step {max(self.steps, default=0)}"
        )


def restore_parameters(
    workdir: epath.PathLike, like: nnx.State, step: int | None = None
) -> tuple[nnx.State, int]:
    """The parameters alone of the newest checkpoint, or of that after `step`, and its step.

    Raises UserError where there is no checkpoint, or none that can be read.
    """
    found, step = _restore(workdir, {"parameters": like}, step)
    return found["parameters"], step


def restore_state(
    workdir: epath.PathLike, like: TrainState, step: int | None = None
) -> tuple[TrainState, int]:
    """As `restore_parameters`, with the optimiser's state; the rest is as in `like`."""
    parts = {"parameters": like.parameters, "optimizer": like.optimizer}
    found, step = _restore(workdir, parts, step)
    return replace(like, **found), step


def _restore(
    workdir: epath.PathLike, like: dict[str, Any], step: int | None
) -> tuple[dict[str, Any], int]:
    """Parts of a TrainState, in the order of its fields, the parameters first."""
    folder = absolute(workdir) / FOLDER
    try:
        checkpointer = ocp.training.Checkpointer(folder) if folder.exists() else None
    except ValueError as error:  # of JSON
        raise UserError(
            f"{folder}: the metrics of a checkpoint cannot be read ({one_line(error, 160)}); start "
            f"the run again, which moves it out of the way"
        ) from error
    if checkpointer is None or checkpointer.latest is None:
        raise UserError(
            f"{workdir}: no checkpoint here; train one with python -m bert_jax.pretrain"
        )
    abstract = _abstract(like)
    count = len(jax.tree.leaves(like))
    with ocp.Context(pytree_options=_PARTIAL):
        for checkpoint in reversed(list(checkpointer.checkpoints)):
            if step not in (None, checkpoint.step):
                continue
            try:
                found = checkpointer.load(checkpoint.step, abstract)
                saved = checkpointer.metadata(checkpoint.step).custom_metadata["digest"]
                # In the order of a TrainState's leaves: the step, the parameters, the optimiser.
                parts = [found[name] for name in like]
                if _equal(jax.jit(digest)(parts), saved[1 : 1 + count]):
                    return found, checkpoint.step
                reason = "its contents do not match their checksum"
            except Exception as error:  # as in restore_newest
                reason = one_line(error, 160)
            print(f"{folder}/{checkpoint.step}: cannot be read ({reason})", file=sys.stderr)
    raise UserError(f"{folder}: no checkpoint here can be read; bring back a copy")


def _abstract(like: Any) -> Any:
    """What to load, where to: the shardings are those of `like`, whatever mesh it was saved on."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
    )


def _equal(found: Array, saved: list[int]) -> bool:
    return [int(number) for number in jax.device_get(found)] == saved


def by_itself() -> Any:
    """Orbax's options for a process that reads what its devices need and waits for no other: one
    that fails is then no reason for the others to wait."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


_PARTIAL: Any = ocp.options.PyTreeOptions(
    loading=ocp.options.PyTreeOptions.Loading(partial_load=True)
)


def digest(state: Any) -> UInt32[Array, "leaves"]:
    """A checksum of each leaf: Σ bits · (2 · place + 1), modulo 2³².

    Whole numbers add up to the same in any order, so the mesh does not matter. Orbax alone
    reads flipped bits without a word.
    """
    return jnp.stack([_digest_leaf(leaf) for leaf in jax.tree.leaves(state)])


def _digest_leaf(leaf: Array) -> UInt32[Array, ""]:
    width = leaf.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{width}").astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        stride = math.prod(leaf.shape[axis + 1 :]) % 2**32
        along = jnp.arange(size, dtype=jnp.uint32) * jnp.uint32(stride)
        place += along.reshape((1,) * axis + (size,) + (1,) * (leaf.ndim - axis - 1))
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
