"""Files that are there whole or not at all, and folders that one process has at a time."""

import fcntl
import os
from pathlib import Path
from typing import IO

from bert_jax.errors import UserError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write beside and rename: whenever the process dies, the old content or the new is there."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def lock(folder: Path) -> IO[str]:
    """Keep the folder to this process until the file that is returned is closed, or it dies."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{folder}: another process is training here; wait for it, or name another --workdir"
        ) from error
    return file
