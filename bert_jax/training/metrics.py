"""metrics.jsonl, which is the record, and TensorBoard events, which are a view of it."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from bert_jax.errors import UserError, one_line
from bert_jax.store import Folder
from bert_jax.training.events import Events
from bert_jax.training.flops import peak_flops
from bert_jax.training.record import FILE, open_record, read_lines


class MetricsWriter:
    """One JSON object a logged step, steps strictly increasing.

    Opened at step s it first cuts away what was logged beyond s, a torn last line too: those
    steps will be run again. TensorBoard's files cannot be cut, so they are written anew.
    """

    def __init__(self, workdir: Folder, step: int):
        self._path = workdir / FILE
        kept = [record for record in read_metrics(workdir) if record["step"] <= step]
        self._record = open_record(workdir, "".join(json.dumps(record) + "\n" for record in kept))
        self._events = Events(workdir)
        for record in kept:
            self._events.add(record)

    def write(self, record: dict[str, float | int | None]) -> None:
        """`record` has its `step`. A None is null in JSON and nothing in TensorBoard."""
        try:
            self._record.append(json.dumps(record) + "\n", int(record["step"] or 0))
        except OSError as error:
            raise self._unwritten(error) from error
        self._events.add(record)

    def sync(self) -> None:
        """Return when all that was written is on disk, or in the store: before a checkpoint
        becomes visible."""
        try:
            self._record.sync()
        except OSError as error:
            raise self._unwritten(error) from error
        self._events.sync()

    def close(self) -> None:
        self.sync()
        self._record.close()
        self._events.close()

    def _unwritten(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path}: cannot be written ({error.strerror or one_line(error, 200)}); make "
            f"room and start the same command again: it goes on from the last checkpoint"
        )


def read_metrics(workdir: Folder) -> list[dict]:
    """The records of metrics.jsonl, and of the segments of a store; none where there is neither.
    A torn last line is left out.

    Raises UserError for any other line that is no record: nothing but a kill should have cut it.
    """
    path = workdir / FILE
    records: dict[int, dict] = {}
    lines = read_lines(workdir)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = record["step"] + 0
            if not line.endswith(b"\n"):
                raise ValueError("torn")
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}: line {number} is not a record; bring back a copy, or delete that line"
            ) from error
        records[step] = record
    return list(records.values())


class LaggedMetrics:
    """Holds a step's numbers as they are on the device until the next step has been sent off:
    reading them at once would make the host wait, and then the device for the host."""

    def __init__(self, writer: MetricsWriter, shown: Callable[[int, dict], None]):
        self._writer, self._shown = writer, shown
        self._held: dict[str, Any] = {}

    def hold(self, step: int, *numbers: dict[str, Any]) -> None:
        """Numbers of one step, added to what is held of it already."""
        for part in ({"step": step}, *numbers):
            self._held |= part

    def write(self) -> None:
        """Write what is held, if anything is."""
        if not self._held:
            return
        host = jax.device_get(self._held)
        record = {"step": host.pop("step")} | {
            name: float(value) if isinstance(value, np.ndarray | np.generic) else value
            for name, value in host.items()
        }
        self._writer.write(record)
        if not math.isfinite(record.get("loss", 0.0)):
            raise UserError(
                f"step {record['step']}: the loss is {record['loss']}; the checkpoints before it "
                f"are kept. Lower optimizer.learning_rate or lengthen optimizer.warmup_steps, in "
                f"another --workdir"
            )
        self._shown(record["step"], record)
        self._held = {}


class Rates:
    """Speed between two moments; what is not a step is left out by starting again after it."""

    def __init__(self):
        self._peak = peak_flops()
        self.restart()

    def restart(self) -> None:
        self._begin, self._steps, self._flops = time.monotonic(), 0, 0
        self._tokens: Any = 0.0

    def add(self, real_tokens: Float[Array, ""], flops: int) -> None:
        """A step of so many tokens and so much arithmetic."""
        self._steps, self._flops = self._steps + 1, self._flops + flops
        self._tokens = self._tokens + real_tokens  # on the device: nothing waits for it

    def take(self, waited: float) -> dict[str, Any]:
        """tokens_per_second (padding not counted), mfu (`model` convention of flops.py; None on
        a device of unknown peak), loader_wait (share of the time). None after no step at all."""
        seconds = time.monotonic() - self._begin
        steps, tokens, flops = self._steps, self._tokens, self._flops
        self.restart()
        if not steps:
            return {"tokens_per_second": None, "mfu": None, "loader_wait": None}
        mfu = self._peak and flops / seconds / self._peak
        return {
            "tokens_per_second": tokens / seconds,
            "mfu": mfu,
            "loader_wait": min(waited / seconds, 1.0),
        }
