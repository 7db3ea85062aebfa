"""The processes that a study starts: where they work, with which cores, and how they are ended."""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from bert_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def surroundings(jobs: int) -> dict[str, str]:
    """The environment of what is started: compiled programs are kept between runs, and of a GPU's
    memory each job has its part."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"), "PYTHONUNBUFFERED": "1"}
    if jobs > 1:
        kept["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / jobs:.3f}"
    return kept | os.environ


def cores_of(slot: int, jobs: int) -> set[int]:
    """The cores of one of so many jobs; {} where they cannot be kept apart. Two programs that each
    use all cores wait for each other in every operation."""
    if not hasattr(os, "sched_setaffinity"):
        return set()
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // jobs
    return set(cores[slot * each : (slot + 1) * each])


def start(
    words: Sequence[str], log: IO[bytes], environment: Mapping[str, str], slot: int, jobs: int
) -> "subprocess.Popen[bytes]":
    """Raises UserError where there is no such program."""
    try:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, process_group=0,  # a signal comes to it through us alone
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{words[0]}: cannot be started ({error.strerror})") from error
    if cores := cores_of(slot, jobs):
        try:  # before it has threads, which all inherit it
            os.sched_setaffinity(process.pid, cores)
        except ProcessLookupError:
            pass  # it has ended
    return process


def stop(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """End those that still work, which save first, and wait for them."""
    left = [process for process in processes if process.poll() is None]
    for process in left:
        process.send_signal(signal.SIGTERM)
    for process in left:
        process.wait()


def began(pid: int) -> str:
    """When a process began, in words that no other process of that number has; '' where there is
    none, or where it cannot be told."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else rest[18]
