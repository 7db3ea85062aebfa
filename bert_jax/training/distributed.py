"""Many processes become one run, before any backend is touched.

`jax.distributed.initialize` is called after the processes have met (rendezvous.py): whoever is
missing, or there twice, is named in one line, where JAX would abort. Its heartbeats stay, for a
process that hangs. What JAX offers no public way to (0.11, 0.12): to be told of a missed heartbeat
instead of being aborted (the callback of its client cannot be a Python function), and to know what
it detects of a cluster before it connects; the latter is read from `jax._src.clusters`.
"""

import atexit
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from types import TracebackType

import jax
from jax._src import clusters

from bert_jax.errors import UserError, one_line
from bert_jax.training.rendezvous import Watch, meet

# A process that hangs is noticed by JAX after this time, and all others are aborted: within 60 s.
HEARTBEAT_SECONDS = 40
# At the end processes wait for each other as long as one may save more than another.
SHUTDOWN_SECONDS = 300
# The death of a process shows in others as an error of a collective too. The watch tells it better.
VERDICT_SECONDS = 2

_watch: Watch | None = None  # of this process, in a run of many

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def initialize(
    cluster: str, coordinator: str, processes: int, process: int, timeout_seconds: int
) -> None:
    """Join the run that this process belongs to.

    cluster: "none", or "auto" for what JAX detects (TPU metadata, Slurm, MPI, Kubernetes).
    coordinator, processes, process: "HOST:PORT" of process 0, how many there are, which this one
    is. All or none ("", 0, -1); they come before `cluster`. With neither, nothing is done, and
    this one process is the run. timeout_seconds: how long to wait for the others.
    Raises UserError where a process is missing, is there twice or was told otherwise than others.
    """
    given = [coordinator != "", processes != 0, process != -1]
    if cluster not in ("none", "auto"):
        raise UserError(f"--cluster={cluster}: is none or auto")
    if timeout_seconds < 1:
        raise UserError(f"--startup_timeout={timeout_seconds}: is 1 s or more")
    if any(given) and not all(given):
        raise UserError(
            "--coordinator=HOST:PORT, --processes=N and --process=I go together; give all three"
        )
    local_device_ids: Sequence[int] | None = None
    if not any(given):
        if cluster == "none":
            return
        coordinator, processes, process, local_device_ids = _detect(timeout_seconds)
    host, port = _checked(coordinator, processes, process)
    global _watch
    _watch = watch = meet(host, port, processes, process, timeout_seconds)
    # Begun by preempt.py, when there is something to save.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator, processes, process, local_device_ids,
            cluster_detection_method="deactivate",  # all that it could find out is given
            initialization_timeout=timeout_seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )  # fmt: skip
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--coordinator={coordinator}: {one_line(error, 300)}") from error
    _end_together(watch)


def fail() -> None:
    """Where this process is about to end without its work done: lets the others stop, in order."""
    if _watch:
        _watch.fail()


def _end_together(watch: Watch) -> None:
    """An end in order (a status by sys.exit) is told to the others before JAX's own clean-up,
    which waits for all. After an exception it would wait for processes that wait for this one."""

    def failed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        time.sleep(VERDICT_SECONDS)  # the watch may end this process meanwhile
        fail()
        traceback.print_exception(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    sys.excepthook = failed
    atexit.register(watch.take_leave)


def _detect(timeout_seconds: int) -> tuple[str, int, int, Sequence[int] | None]:
    """Coordinator, count, number and devices of this process, as JAX finds them."""
    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, timeout_seconds
        )
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--cluster=auto: {type(error).__name__}: {one_line(error, 300)}"
        ) from error
    coordinator, processes, process, local_device_ids = found
    if coordinator is None or processes is None or process is None:
        raise UserError(
            "--cluster=auto: no TPU metadata, Slurm step, MPI or Kubernetes job is found here; "
            "give --coordinator=HOST:PORT, --processes=N and --process=I, or leave --cluster away "
            "for one process"
        )
    return coordinator, processes, process, local_device_ids


def _checked(coordinator: str, processes: int, process: int) -> tuple[str, int]:
    """Host and port of the coordinator."""
    if processes < 1 or not 0 <= process < processes:
        raise UserError(
            f"--process={process} --processes={processes}: numbers go from 0 to one less than "
            "--processes"
        )
    address = _ADDRESS.fullmatch(coordinator)
    if not address or not 0 < int(address["port"]) < 2**16:
        raise UserError(
            f"--coordinator={coordinator}: give HOST:PORT, as --coordinator=node-0:8476"
        )
    return address["host"].strip("[]"), int(address["port"])
