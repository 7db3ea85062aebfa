"""metrics.jsonl, which is the record, and TensorBoard events, which are a view of it."""

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX

from bert_jax.errors import UserError
from bert_jax.files import write_whole

FILE = "metrics.jsonl"
EVENTS = "tensorboard"


class MetricsWriter:
    """One JSON object a logged step, steps strictly increasing.

    Opened with the records that stay, all others go: those steps will be run again. TensorBoard's
    files cannot be cut, so they are written anew.
    """

    def __init__(self, workdir: Path, kept: Sequence[dict]):
        self._path = workdir / FILE
        write_whole(self._path, "".join(map(_line, kept)))
        self._file = self._path.open("a")
        shutil.rmtree(workdir / EVENTS, ignore_errors=True)
        self._events = tensorboardX.SummaryWriter(str(workdir / EVENTS))
        for record in kept:
            self._view(record)

    def write(self, record: dict[str, float | int | None]) -> None:
        """`record` has its `step`. A None is null in JSON and nothing in TensorBoard."""
        try:
            self._file.write(_line(record))
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


def _line(record: dict[str, float | int | None]) -> str:
    return json.dumps({"step": record["step"]} | dict(sorted(record.items()))) + "\n"


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
    reading them at once would make the host wait, and then the device for the host.

    `writer`: None in all processes but one. With more than `max_skipped` steps in a row whose
    loss or gradient was not finite, `write` raises UserError.
    """

    def __init__(
        self,
        writer: MetricsWriter | None,
        shown: Callable[[int, dict], None],
        max_skipped: int,
    ):
        self._writer, self._shown, self._max_skipped = writer, shown, max_skipped
        self._held: dict[str, Any] = {}

    def hold(self, step: int, *numbers: dict[str, Any]) -> None:
        """Numbers of one step, added to what is held of it already."""
        for part in ({"step": step}, *numbers):
            self._held |= part

    def write(self) -> None:
        """Write what is held, if anything is. What is not finite is null in JSON."""
        if not self._held:
            return
        host = jax.device_get(self._held)
        record = {name: _plain(value) for name, value in host.items()}
        self._held = {}
        if self._writer:
            self._writer.write(record)
        self._shown(record["step"], record)
        if record.get("skipped_in_a_row", 0) > self._max_skipped:
            raise UserError(
                f"step {record['step']}: no finite loss and gradient in the last "
                f"{record['skipped_in_a_row']:.0f} steps; the parameters are those before them, "
                f"and so are the checkpoints. Lower optimizer.learning_rate or lengthen "
                f"optimizer.warmup_steps, in another --workdir"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
