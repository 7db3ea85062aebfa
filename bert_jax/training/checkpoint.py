"""Checkpoints: written asynchronously, whole or not at all, and checked when they are read.

The only file that imports orbax.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, UInt32
from orbax.checkpoint import v1 as ocp

from bert_jax.errors import UserError
from bert_jax.training.step import TrainState

FOLDER = "checkpoints"
DAMAGED = "damaged-checkpoints"


class Checkpoints:
    """The checkpoints of a workdir. A checkpoint is visible only when it is complete."""

    def __init__(self, workdir: epath.PathLike, keep: int):
        self.folder = epath.Path(workdir).resolve() / FOLDER  # orbax wants it absolute
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._digest = jax.jit(digest)

    @property
    def steps(self) -> list[int]:
        """The steps that are there, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write; training may go on and donate `state`. What was begun before is waited
        for, so its error, if it had one, is raised here."""
        if step in self.steps:
            return
        facts = {"digest": [int(number) for number in jax.device_get(self._digest(state))]}
        try:
            self._checkpointer.save_async(step, state, force=True, custom_metadata=facts)
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

        Also a note for each one that could not be: those are moved to DAMAGED, never deleted.
        Raises UserError where there are checkpoints and none can be read.
        """
        notes: list[str] = []
        for step in reversed(self.steps):
            try:
                return self._restore(step, like), notes
            except Exception as error:  # orbax raises many kinds for a damaged file
                reason = " ".join(str(error).split())[:160]
                notes.append(f"checkpoint {step} in {self.folder} cannot be read: {reason}")
        if notes:
            raise UserError(
                f"{notes[0]}; nor can any older one. Nothing was changed: bring back a copy, or "
                f"start again in an empty workdir"
            )
        return None, notes

    def set_aside_after(self, step: int) -> list[str]:
        """Move the checkpoints beyond `step`, found unreadable, out of the way of new ones; a
        note for each."""
        moved = []
        for later in [number for number in self.steps if number > step]:
            target = self.folder.parent / DAMAGED / str(later)
            target.parent.mkdir(exist_ok=True)
            while target.exists():
                target = target.with_name(target.name + "-again")
            (self.folder / str(later)).rename(target)
            moved.append(f"moved it to {target}, going on from step {step}")
        if moved:
            self._checkpointer.reload()
        return moved

    def _restore(self, step: int, like: TrainState) -> TrainState:
        # like carries the shardings: what was saved from another mesh is laid out for this one.
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        state = self._checkpointer.load(step, abstract)
        saved = self._checkpointer.metadata(step).custom_metadata["digest"]
        found = [int(number) for number in jax.device_get(self._digest(state))]
        if found != saved:
            raise ValueError("its contents do not match the checksum that was stored with them")
        return state

    def _unwritten(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())
        return UserError(
            f"{self.folder}: a checkpoint could not be written ({reason[:300]}); make room and "
            f"start the same command again: it goes on from step {max(self.steps, default=0)}"
        )


def restore_parameters(workdir: epath.PathLike, like: nnx.State) -> tuple[nnx.State, int]:
    """The parameters alone of the newest checkpoint, and its step.

    Raises UserError where there is no checkpoint, or none that can be read.
    """
    folder = epath.Path(workdir).resolve() / FOLDER
    checkpointer = ocp.training.Checkpointer(folder) if folder.exists() else None
    if checkpointer is None or checkpointer.latest is None:
        raise UserError(
            f"{workdir}: no checkpoint here; train one with python -m bert_jax.pretrain"
        )
    step = checkpointer.latest.step
    abstract = {
        "parameters": jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
    }
    with ocp.Context(pytree_options=_PARTIAL):
        try:
            return checkpointer.load(step, abstract)["parameters"], step
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}/{step}: cannot be read ({reason})") from error


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
