"""metrics.jsonl, which is the record, and TensorBoard events, which are a view of it."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.errors import UserError, one_line
from bert_jax.store import Folder
from bert_jax.training.events import Events
from bert_jax.training.record import FILE, open_record, read_lines


class MetricsWriter:
    """One JSON object a logged step, steps strictly increasing.

    Opened with the records that stay, all others go: those steps will be run again. TensorBoard's
    files cannot be cut, so they are written anew.
    """

    def __init__(self, workdir: Folder, kept: Sequence[dict]):
        self._path = workdir / FILE
        self._record = open_record(workdir, "".join(map(_line, kept)))
        self._events = Events(workdir)
        for record in kept:
            self._events.add(record)

    def write(self, record: dict[str, float | int | None]) -> None:
        """`record` has its `step`. A None is null in JSON and nothing in TensorBoard."""
        try:
            self._record.append(_line(record), int(record["step"] or 0))
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


def _line(record: dict[str, float | int | None]) -> str:
    return json.dumps({"step": record["step"]} | dict(sorted(record.items()))) + "\n"


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
