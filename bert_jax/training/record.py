"""Where the lines of metrics.jsonl are kept: in a file that grows or, in a store, in segments.

A store has no append. There metrics.jsonl has the lines up to the start of the process, and
metrics/0000000012.jsonl those that were added up to step 12: each is one object, there whole or
not at all. A run that ends puts all of them into metrics.jsonl.
"""

import os
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from etils import epath

from bert_jax.files import write_whole
from bert_jax.store import Folder

FILE = "metrics.jsonl"
SEGMENTS = "metrics"


@runtime_checkable
class Record(Protocol):
    def append(self, line: str, step: int) -> None: ...

    def sync(self) -> None:
        """Return when all lines are where a kill does not reach them."""

    def close(self) -> None: ...


def open_record(workdir: Folder, kept: str) -> Record:
    """To add lines after those that are `kept`; all others are gone."""
    return Grown(workdir, kept) if isinstance(workdir, Path) else Segmented(workdir, kept)


def read_lines(workdir: Folder) -> list[bytes]:
    """With their ends. In a store a line can be there twice: killed at the wrong moment, a start
    or an end leaves segments of which metrics.jsonl has the lines already."""
    path = workdir / FILE
    content = path.read_bytes() if path.exists() else b""
    if not isinstance(workdir, Path):
        content += b"".join(segment.read_bytes() for segment in _segments(workdir))
    return content.splitlines(keepends=True)


class Grown:
    """One file."""

    def __init__(self, workdir: Path, kept: str):
        write_whole(workdir / FILE, kept)
        self._file: IO[str] = (workdir / FILE).open("a")

    def append(self, line: str, step: int) -> None:
        self._file.write(line)
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


class Segmented:
    """metrics.jsonl, and what came after it. Nothing is added before all that is not `kept` is
    gone, and that goes from its end: whatever is there between is a beginning of the record."""

    def __init__(self, workdir: epath.Path, kept: str):
        self._workdir, self._before = workdir, kept
        self._lines: list[str] = []
        self._step = 0
        write_whole(workdir / FILE, kept)
        self._clear()

    def append(self, line: str, step: int) -> None:
        self._lines.append(line)
        self._step = step

    def sync(self) -> None:
        if self._lines:
            content = "".join(self._lines)
            write_whole(self._workdir / SEGMENTS / f"{self._step:010d}.jsonl", content)
            self._before += content
            self._lines = []

    def close(self) -> None:
        self.sync()
        write_whole(self._workdir / FILE, self._before)
        self._clear()

    def _clear(self) -> None:
        for segment in reversed(_segments(self._workdir)):
            segment.unlink()


def _segments(workdir: epath.Path) -> list[epath.Path]:
    """In the order of their steps."""
    folder = workdir / SEGMENTS
    return sorted(folder.iterdir()) if folder.is_dir() else []
