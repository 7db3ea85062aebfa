"""Start a run of many processes on this machine: the test bed for pods.

  python -m launch.local --processes=4 --devices=2 -- \\
      python -m bert_jax.pretrain --config=configs/bert.py:tiny --workdir=runs/tiny

Each process sees --devices CPU devices, and they talk to each other as the hosts of a pod do.
--coordinator, --processes and --process are put behind the command. Every line of output begins
with the number of its process: "[2] ...". SIGTERM and Ctrl-C go to all processes; a second one
kills them. When one fails, the others get --grace seconds to end, then SIGTERM, and after as long
again SIGKILL; the status is that of the one that failed first: its signal + 128 where it was
killed. When all end with 143 (they were told to stop, and have saved), they are started again,
--retries times.
"""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from launch.command import LOST, PREEMPTED, Mistake, Parser, at_least, show, start

_LOCALHOST = "127.0.0.1"


def main(words: list[str]) -> int:
    options, command = _parse(words)
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(options.devices),
        # Two programs in flight, taken from the compilation cache, wait for each other in gloo.
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONUNBUFFERED": "1",
    }
    if options.dry_run:
        variables = [f"{name}={value}" for name, value in environment.items()]
        for one in commands(command, options.processes, f"{_LOCALHOST}:PORT"):
            show(["env", *variables, *one])
        return 0
    for attempt in range(options.retries + 1):
        with socket.socket() as reserved:
            # Bound, and not listening: no other program gets this port, and process 0 may use it,
            # as it sets SO_REUSEADDR too.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((_LOCALHOST, 0))
            coordinator = f"{_LOCALHOST}:{reserved.getsockname()[1]}"
            run = Run(commands(command, options.processes, coordinator), environment)
            ends, stopped = run.wait(options.grace)
        status, words_of_it = verdict(ends)
        if status:
            print(f"launch.local: {words_of_it}", file=sys.stderr, flush=True)
        if status != PREEMPTED or stopped or attempt == options.retries:
            return status
        print(f"launch.local: again, {attempt + 1} of {options.retries}", file=sys.stderr)
    raise AssertionError("the last attempt returns")


def commands(command: Sequence[str], processes: int, coordinator: str) -> list[list[str]]:
    """The command of each process."""
    return [
        [*command, f"--coordinator={coordinator}", f"--processes={processes}", f"--process={i}"]
        for i in range(processes)
    ]


@dataclass(frozen=True)
class End:
    """How a process ended: a status, or minus the number of the signal that killed it."""

    process: int
    status: int


def verdict(ends: Sequence[End]) -> tuple[int, str]:
    """The status of the run and why, from the ends of all processes in the order they came."""
    if {end.status for end in ends} == {LOST, PREEMPTED}:
        first = next(end.process for end in ends if end.status == PREEMPTED)
        return PREEMPTED, f"process {first} was told to stop before there was anything to save"
    failed = [end for end in ends if end.status not in (0, PREEMPTED)]
    for end in sorted(failed, key=lambda end: end.status == LOST):  # stable: the first comes first
        if end.status < 0:
            how = f"was killed by {signal.Signals(-end.status).name}"
            return 128 - end.status, f"process {end.process} {how}, and with it the run ended"
        return end.status, f"process {end.process} failed first, with status {end.status}"
    stopped = [end.process for end in ends if end.status == PREEMPTED]
    if not stopped:
        return 0, ""
    if len(stopped) == len(ends):
        return PREEMPTED, f"all processes were told to stop and have saved (status {PREEMPTED})"
    return 1, f"of {len(ends)} processes some ended their work and {stopped} with {PREEMPTED}"


class Run:
    """Processes whose output is passed on, line by line."""

    def __init__(self, words: Sequence[Sequence[str]], environment: dict[str, str]) -> None:
        self._ends: queue.Queue[End] = queue.Queue()
        self._printing = threading.Lock()
        self._signals = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        for number, one in enumerate(words):
            try:
                process = subprocess.Popen(
                    one, env=os.environ | environment, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                    process_group=0,  # Ctrl-C comes to this one alone, which passes it on
                )  # fmt: skip
            except OSError as error:
                self._signal_all(signal.SIGKILL)
                raise Mistake(
                    f"{one[0]}: cannot be started ({error.strerror}); name a program behind --"
                ) from None
            self.processes.append(process)
            assert process.stdout is not None
            reader = threading.Thread(target=self._read, args=(number, process.stdout), daemon=True)
            self._readers.append(reader)
            reader.start()
            threading.Thread(target=self._await, args=(number, process), daemon=True).start()

    def wait(self, grace: float) -> tuple[list[End], bool]:
        """The ends of all processes in the order they came, and whether a signal was passed on.
        After the first that is no success, the rest get `grace` seconds to end of themselves,
        then SIGTERM, and after as many again SIGKILL."""
        before = {
            number: signal.signal(number, self._pass_on)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        ends: list[End] = []
        deadlines: list[tuple[float, signal.Signals]] = []
        try:
            while len(ends) < len(self.processes):
                try:
                    left = max(0, deadlines[0][0] - time.monotonic()) if deadlines else None
                    end = self._ends.get(timeout=left)
                except queue.Empty:
                    self._signal_all(deadlines.pop(0)[1])
                    continue
                ends.append(end)
                if end.status and not any(one.status for one in ends[:-1]):
                    now = time.monotonic()
                    deadlines = [
                        (now + grace, signal.SIGTERM),
                        (now + 2 * grace, signal.SIGKILL),
                    ]
        finally:
            self._signal_all(signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
        for reader in self._readers:
            reader.join(5)  # a process of a process may hold the pipe open
        return ends, self._signals > 0

    def _pass_on(self, number: int, _: object) -> None:
        self._signals += 1
        self._signal_all(signal.Signals(number) if self._signals == 1 else signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def _await(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        self._ends.put(End(number, process.wait()))

    def _read(self, number: int, output: IO[bytes]) -> None:
        rest = b""
        while data := output.read(65536):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            self._print(number, [line for line in lines if line])
        self._print(number, [rest] if rest else [])

    def _print(self, number: int, lines: Sequence[bytes]) -> None:
        with self._printing:
            for line in lines:
                sys.stdout.buffer.write(b"[%d] %b\n" % (number, line))
            sys.stdout.buffer.flush()


def _parse(words: list[str]) -> tuple:
    parser = Parser(__doc__ or "", "launch.local")
    parser.add_argument("--processes", type=at_least(1), default=2, help="how many (2)")
    parser.add_argument("--devices", type=at_least(1), default=1, help="CPU devices of each (1)")
    parser.add_argument("--retries", type=at_least(0), default=0, help="after status 143 (0)")
    parser.add_argument("--grace", type=at_least(1), default=30, help="seconds (30)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    return parser.split(words, needed=True)


if __name__ == "__main__":
    start(main)
