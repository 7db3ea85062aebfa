"""metrics.jsonl, which is the record, and TensorBoard events, which are a view of it."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX
from jaxtyping import Array, Float

from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.training.flops import peak_flops

FILE = "metrics.jsonl"
EVENTS = "tensorboard"


class MetricsWriter:
    """One JSON object a logged step, steps strictly increasing.

    Opened at step s it first cuts away what was logged beyond s, a torn last line too: those
    steps will be run again. TensorBoard's files cannot be cut, so they are written anew.
    """

    def __init__(self, workdir: Path, step: int):
        self._path = workdir / FILE
        kept = [record for record in read_metrics(workdir) if record["step"] <= step]
        write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a")
        shutil.rmtree(workdir / EVENTS, ignore_errors=True)
        self._events = tensorboardX.SummaryWriter(str(workdir / EVENTS))
        for record in kept:
            self._view(record)

    def write(self, record: dict[str, float | int | None]) -> None:
        """`record` has its `step`. A None is null in JSON and nothing in TensorBoard."""
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from error
        self._view(record)

    def sync(self) -> None:
        """Return when all that was written is on disk: before a checkpoint becomes visible."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        self.sync()
        self._file.close()
        self._events.close()

    def _view(self, record: dict[str, float | int | None]) -> None:
        for name, value in record.items():
            if name != "step" and value is not None:
                self._events.add_scalar(name, value, record["step"])

    def _unwritten(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path}: cannot be written ({error.strerror}); make room and start the same "
            f"command again: it goes on from the last checkpoint"
        )


def read_metrics(workdir: Path) -> list[dict]:
    """The records of metrics.jsonl; none where there is no file. A torn last line is left out.

    Raises UserError for any other line that is no record: nothing but a kill should have cut it.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    records = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            _ = record["step"] + 0
            if not line.endswith(b"\n"):
                raise ValueError("torn")
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}: line {number} is not a record; bring back a copy, or delete that line"
            ) from error
        records.append(record)
    return records


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
