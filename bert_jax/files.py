"""Files that are there whole or not at all, and folders that one process has at a time."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from bert_jax.errors import UserError
from bert_jax.store import Claim, Folder


@runtime_checkable
class Lock(Protocol):
    def check(self) -> None:
        """Raises UserError where the folder is another process's by now."""

    def close(self) -> None: ...


def write_whole(path: Folder, content: bytes | str) -> None:
    """Write beside and rename: whenever the process dies, the old content or the new is there.
    An object of a store is so by itself."""
    data = content.encode() if isinstance(content, str) else content
    if not isinstance(path, Path):
        path.write_bytes(data)
        return
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def append_line(path: Folder, line: str) -> None:
    """A line more at the end of a small file; where it is in a store, the whole written anew."""
    if isinstance(path, Path):
        with path.open("ab+") as file:
            if file.tell():  # a line that a kill or a full disk cut off stays apart
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write((line + "\n").encode())
    else:
        before = path.read_text() if path.exists() else ""
        write_whole(path, before + line + "\n")


def lock(folder: Folder) -> Lock:
    """Keep the folder to this process until it dies, or closes what is returned. In a store a
    later process can take it; `check` tells."""
    return _Flock(folder) if isinstance(folder, Path) else Claim(folder)


class _Flock:
    def __init__(self, folder: Path):
        self._file = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another process works here; wait for it, or name another --workdir"
            ) from error

    def check(self) -> None:
        """Nobody else can have it while the file is open."""

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def alone(work: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Waits until no other process works in the folder, which is there then; `waiting` is called
    where that takes time. Gives the lock's file descriptor: the folder stays locked while any
    process that inherited it lives."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        with (work / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever was here before may have deleted the folder, and with it this lock.
            own = work / ".lock"
            if own.exists() and own.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield file.fileno()
                return
