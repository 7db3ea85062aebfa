"""Processes that encode chunks. One that is left alone, its parent being dead, ends by itself.

Not multiprocessing's own: its children import the main program again (and jax with it), and
those of a parent that was killed wait for it for ever.
"""

import itertools
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bert_jax.data.parts import Chunk, Encoding, encode
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.errors import UserError

_WORKERS_A_CORE = 4  # more only take memory: a worker is busy, or waits for what it needs


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(option: str, workers: int) -> None:
    """Raises UserError for more processes than are of use here. Said where they are started, and
    not of a config, which may be another machine's."""
    if workers > (most := max(8, _WORKERS_A_CORE * cores())):
        raise UserError(
            f"{option}={workers}: this machine has {cores()} processors for this program; set "
            f"{most} at most, the result is the same with any number"
        )


def encode_all(
    chunks: Iterable[Chunk], encoding: Encoding, folder: Path, workers: int, lock: int
) -> Iterator[Chunk]:
    """Write the part file of each chunk, in `workers` processes, or here where one would do.
    They hold `lock`, a file descriptor, too: one that outlives its parent may write a part yet,
    and until then nobody else may begin.

    Gives back each chunk that is done, in any order. A chunk a worker is in memory, and one more.
    Raises UserError where a part cannot be written.
    """
    chunks = iter(chunks)
    first = list(itertools.islice(chunks, 2))
    chunks = itertools.chain(first, chunks)
    if workers == 1 or len(first) < 2:
        tokenizer = load_tokenizer(encoding.tokenizer)
        for chunk in chunks:
            encode(chunk, tokenizer, encoding).save(part_file(folder, chunk.number))
            yield chunk
        return
    idle: list[Connection] = []
    busy: dict[Connection, Chunk] = {}
    processes: list[subprocess.Popen] = []
    try:
        for chunk in chunks:
            if not idle and len(processes) < workers:
                process, connection = _start(encoding, folder, lock)
                processes.append(process)
                idle.append(connection)
            if not idle:
                yield from _finished(busy, idle)
            connection = idle.pop()
            _send(connection, chunk)
            busy[connection] = chunk
        while busy:
            yield from _finished(busy, idle)
    finally:
        for connection in [*idle, *busy]:
            connection.close()
        for process in processes:
            process.kill()
            process.wait()


def part_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _start(encoding: Encoding, folder: Path, lock: int) -> tuple[subprocess.Popen, Connection]:
    mine, theirs = Pipe()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "TOKENIZERS_PARALLELISM": "false",  # a worker is a core
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bert_jax.data.workers", str(theirs.fileno())],
        pass_fds=[theirs.fileno(), lock], env=environment, stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the parent alone, who ends its workers
    )  # fmt: skip
    theirs.close()
    _send(mine, (encoding, folder))
    return process, mine


def _send(connection: Connection, message: object) -> None:
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise _died() from None


def _finished(busy: dict[Connection, Chunk], idle: list[Connection]) -> Iterator[Chunk]:
    """Those whose answers are there; waits for one."""
    for connection in wait(list(busy)):
        assert isinstance(connection, Connection)
        try:
            kind, message = connection.recv()
        except (EOFError, ConnectionResetError):
            raise _died() from None
        if kind == "error":
            raise UserError(message)
        if kind == "defect":
            raise RuntimeError(f"a worker failed:\n{message}")
        chunk = busy.pop(connection)
        idle.append(connection)
        yield chunk


def _died() -> UserError:
    return UserError(
        "a worker process was killed, as happens where memory is short; start the same command "
        "again, it goes on from there, with fewer --workers"
    )


def serve(connection: Connection) -> None:
    """What a worker does until nobody asks it any more."""
    try:
        encoding, folder = _asked(connection)
        tokenizer = load_tokenizer(encoding.tokenizer)
        while True:
            chunk = _asked(connection)
            path = part_file(folder, chunk.number)
            try:
                encode(chunk, tokenizer, encoding).save(path)
                answer = ("done", "")
            except OSError as error:
                answer = ("error", f"{path}: {error.strerror or error}; make room and start again")
            except UserError as error:
                answer = ("error", str(error))
            except Exception:
                answer = ("defect", traceback.format_exc())
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        pass


def _asked(connection: Connection) -> Any:
    """The next message; EOFError where the parent died, between two or in the middle of one."""
    try:
        return connection.recv()
    except OSError:
        raise EOFError from None


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
