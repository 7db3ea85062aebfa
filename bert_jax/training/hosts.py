"""What the processes of one run do together. Of one process alone all of it is nothing."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.errors import UserError


def is_first() -> bool:
    """True for the process that writes what is written once: metrics, config, the curve."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes have come here. They all have to come, in the same order."""
    multihost_utils.sync_global_devices(name)


def together(function: Callable[..., Any]) -> Callable[..., Any]:
    """The jitted function, which no process runs for new shapes of its last argument before all
    have compiled it: a collective waits for who is late, but not for long (30 s with gloo)."""
    if jax.process_count() == 1:
        return function
    compiled: dict[tuple, Any] = {}

    def call(*arguments: Any) -> Any:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(arguments[-1]))
        if shapes not in compiled:
            compiled[shapes] = function.lower(*arguments).compile()  # type: ignore[attr-defined]
            barrier("compiled")
        return compiled[shapes](*arguments)

    return call


def all_say(yes: bool) -> bool:
    """Whether all processes do."""
    return yes if jax.process_count() == 1 else bool(all(_gathered(yes)))


def _gathered(yes: bool) -> np.ndarray:
    return np.ravel(multihost_utils.process_allgather(np.array(yes)))


def check_same(what: str, facts: Any) -> None:
    """Raises UserError, in all processes, where `facts` (JSON) differ between them."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero(np.any(digests != digests[0], axis=1))
    if len(others):
        raise UserError(
            f"{what} is not the same on all hosts: process {', '.join(map(str, others))} has "
            f"another one than process 0; give all of them the same"
        )


def check_shared(seen: bool, folder: object) -> None:
    """Raises UserError, in all processes, where `seen` is not true in all: whether they see in
    the folder what the first process has written."""
    if jax.process_count() == 1:
        return
    blind = np.flatnonzero(~_gathered(seen))
    if len(blind):
        raise UserError(
            f"--workdir={folder}: process {', '.join(map(str, blind))} does not see what process "
            f"0 writes there; name a folder that all hosts share"
        )
