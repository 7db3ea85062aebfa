"""A trace of some steps, which xprof shows (Chrome's tracing too)."""

import re
import tempfile
from pathlib import Path
from typing import Any

import jax

from bert_jax.errors import UserError
from bert_jax.store import Folder
from bert_jax.training.hosts import is_first

FOLDER = "profile"


def traced_steps(text: str) -> tuple[int, int]:
    """'10:20' to the first and the last step of a trace; '' to (0, 0), none. Raises UserError."""
    if not text:
        return 0, 0
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise UserError(
            f"--profile={text}: is FIRST:LAST, two steps from 1 on, as in --profile=10:20"
        )
    return int(found[1]), int(found[2])


class Trace:
    """What the first process's devices and threads do from the beginning of the first of `steps`
    to the end of the last, written below `profile/` of the workdir."""

    def __init__(self, steps: tuple[int, int], workdir: Folder):
        self._steps, self._target = steps if is_first() else (0, 0), workdir / FOLDER
        self._scratch: tempfile.TemporaryDirectory | None = None

    def before(self, step: int, state: Any) -> None:
        """`state`: what the steps before give, which is waited for."""
        if step == self._steps[0]:
            jax.block_until_ready(state)
            self._scratch = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self._scratch.name)

    def after(self, step: int, state: Any) -> None:
        """`state`: what the step gives, which is waited for at the last."""
        if step == self._steps[1] and self._scratch:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that is going on; the profiler writes to local files alone."""
        if not self._scratch:
            return
        jax.profiler.stop_trace()
        written = Path(self._scratch.name)
        for path in written.rglob("*"):
            if path.is_file():
                target = self._target / str(path.relative_to(written))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        self._scratch.cleanup()
        self._scratch = None
