"""The processes of a run find each other, and notice when one is gone.

JAX's own service does both, but tells it badly: a start that lacks a process aborts with a C++
trace, and the death of one is known to the others when heartbeats have failed for long enough.
So every process first connects to process 0, at the address where JAX's service is to listen
afterwards: who is missing is known by number. The connection stays. The kernel closes it at the
very moment a process dies, of whatever, and finds out by keep-alive probes that a machine is gone.
Only a process that hangs is left to JAX's heartbeats.

Messages are lines of JSON, one object each.
"""

import json
import os
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from bert_jax.errors import UserError

# What a process ends with that stops because another is gone. It tells nothing of the cause: the
# other's own status does, and launchers go by that (EX_TEMPFAIL of sysexits.h).
LOST_STATUS = 75
# Seconds: a machine that stays silent is probed after _IDLE, then every _INTERVAL, _PROBES times.
_IDLE, _INTERVAL, _PROBES = 10, 5, 3
_RETRY_SECONDS = 0.3
_LONGEST_LINE = 4096  # bytes
_HELLO = "bert_jax"


@dataclass
class Link:
    """A connection to one process."""

    connection: socket.socket
    name: str  # as in "process 3 (host h, pid 77)"
    read: bytearray = field(default_factory=bytearray)

    def send(self, **message: object) -> None:
        with suppress(OSError):  # that it is gone shows where it is read from
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict] | None:
        """What has come, at once if something has; None: the other side is gone."""
        try:
            data = self.connection.recv(_LONGEST_LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.read += data
        *lines, rest = bytes(self.read).split(b"\n")
        self.read = bytearray(rest)
        if not (data or lines) or len(rest) > _LONGEST_LINE:
            return None
        with suppress(ValueError):
            messages = [json.loads(line) for line in lines]
            if all(isinstance(message, dict) for message in messages):
                return messages
        return None


def meet(host: str, port: int, processes: int, process: int, timeout_seconds: float) -> "Watch":
    """Wait until all processes are there. Raises UserError where one did not come in time, two
    have the same number, or they do not agree on how many they are; in all processes alike."""
    if process == 0:
        return Watch(_gather(host, port, processes, timeout_seconds), root=True)
    return Watch({0: _join(host, port, processes, process, timeout_seconds)}, root=False)


class Watch:
    """Ends this process, with one line, when another is gone that has not taken leave."""

    def __init__(self, links: dict[int, Link], root: bool) -> None:
        self._links, self._root = links, root
        self._leaving = False
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def take_leave(self) -> None:
        """This process is about to end, and all is well: none is to stop on its account."""
        self._leaving = True
        for link in self._links.values():
            link.send(bye=True)

    def fail(self) -> None:
        """This process is about to end, and the others are to stop. Process 0 tells them before
        JAX's service dies with it, at which JAX would abort them; the end of another is seen."""
        self._leaving = True
        if self._root:
            for link in self._links.values():
                link.send(lost=f"process 0 (host {socket.gethostname()}, pid {os.getpid()})")
            time.sleep(1)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for link in self._links.values():
                selector.register(link.connection, selectors.EVENT_READ, link)
            while selector.get_map():
                for key, _ in selector.select():
                    if self._has_left(key.data):
                        selector.unregister(key.fileobj)

    def _has_left(self, link: Link) -> bool:
        messages = link.receive()
        for message in messages or ():
            if "bye" in message:
                return True
            if "lost" in message:
                self._end(str(message["lost"]))
        if messages is None:
            self._end(link.name)
            return True
        return False

    def _end(self, name: str) -> None:
        if self._leaving:
            return
        for link in self._links.values() if self._root else ():
            link.send(lost=name)
        tell(
            f"{name} has ended before its work was done, so this one stops too; "
            "the output of the one that is gone says why"
        )
        if self._root:  # JAX's service dies with this process, and its clients abort at that
            time.sleep(1)
        os._exit(LOST_STATUS)


def tell(message: str) -> None:
    """One line on stderr, from any thread, whatever the others are stuck in."""
    with suppress(OSError):
        os.write(2, f"error: {message}\n".encode())
    flush = threading.Thread(target=sys.stdout.flush, daemon=True)  # may wait for another thread
    flush.start()
    flush.join(0.5)


def _gather(host: str, port: int, processes: int, timeout_seconds: float) -> dict[int, Link]:
    """Process 0: the others, by number."""
    deadline = time.monotonic() + timeout_seconds
    links: dict[int, Link] = {}
    try:
        with _listen(host, port) as listener, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while len(links) < processes - 1:
                if (left := deadline - time.monotonic()) <= 0:
                    raise UserError(_missing(processes, links, timeout_seconds))
                for key, _ in selector.select(left):
                    if key.data is None:
                        with suppress(ConnectionError):  # it may be gone already
                            stranger = Link(_probed(listener.accept()[0]), "")
                            stranger.connection.setblocking(False)
                            selector.register(stranger.connection, selectors.EVENT_READ, stranger)
                    elif not _stays(key.data, processes, links):
                        selector.unregister(key.fileobj)
                        key.data.connection.close()
    except UserError as error:
        for link in links.values():
            link.send(error=str(error))
        raise
    for link in links.values():
        link.connection.setblocking(True)
        link.send(go=True)
    return links


def _stays(link: Link, processes: int, links: dict[int, Link]) -> bool:
    """Read what has come from one that connected. One that introduces itself is put into `links`,
    and taken out when it goes again. False: it is gone, or no process of a run."""
    messages = link.receive()
    if messages is None:
        for number in [number for number, one in links.items() if one is link]:
            del links[number]
        return False
    for hello in messages:
        process, count = hello.get("process"), hello.get("processes")
        if not (hello.get("hello") == _HELLO and isinstance(process, int)):
            return False
        link.name = f"process {process} (host {hello.get('host')}, pid {hello.get('pid')})"
        wrong = ""
        if count != processes:
            wrong = (
                f"{link.name} counts {count} processes and process 0 counts {processes}; "
                "give all of them the same --processes"
            )
        elif process in links or not 0 < process < processes:
            other = links[process].name if process in links else "process 0"
            wrong = (
                f"two processes have number {process}: {other} and {link.name}; "
                f"give each a --process of its own, 0 to {processes - 1}"
            )
        if wrong:
            link.send(error=wrong)
            raise UserError(wrong)
        links[process] = link
    return True


def _join(host: str, port: int, processes: int, process: int, timeout_seconds: float) -> Link:
    """Any other process: its link to process 0."""
    link = Link(_connect(host, port, timeout_seconds), f"process 0 ({host}:{port})")
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    link.send(hello=_HELLO, process=process, processes=processes, **me)
    # Process 0 may have begun to wait just now, and tells how it ended.
    link.connection.settimeout(timeout_seconds + 10)
    while (messages := link.receive()) is not None:
        for number, message in enumerate(messages, 1):
            if "error" in message:
                raise UserError(str(message["error"]))
            if "go" in message:
                link.connection.settimeout(None)
                # Process 0 may have ended already, and said so.
                early = [f"{json.dumps(message)}\n".encode() for message in messages[number:]]
                link.read = bytearray(b"".join(early) + link.read)
                return link
    raise UserError(
        f"{host}:{port} answers, but does not wait for process {process}: process 0 has ended, its "
        "run has begun without this one, or another program has the port; stop what is left of an "
        "earlier run, and start all processes anew"
    )


def _listen(host: str, port: int) -> socket.socket:
    """Listens at all addresses of this machine. Connections do not keep the port from JAX, whose
    socket has SO_REUSEADDR as well."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"--coordinator={host}:{port}: process 0 cannot listen there "
            f"({os.strerror(error.errno or 0)}); "
            "choose another port, or stop the program that has it"
        ) from None


def _connect(host: str, port: int, timeout_seconds: float) -> socket.socket:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=10)
            break
        except OSError as error:
            if time.monotonic() + _RETRY_SECONDS > deadline:
                raise UserError(
                    f"process 0, the coordinator, was not found at {host}:{port} within "
                    f"{timeout_seconds:g} s ({error}); see that it runs, that {host} is its "
                    "machine, and that no firewall closes the port"
                ) from None
        time.sleep(_RETRY_SECONDS)
    return _probed(connection)


def _probed(connection: socket.socket) -> socket.socket:
    """The kernel finds out when the machine at the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    return connection


def _missing(processes: int, links: dict[int, Link], timeout_seconds: float) -> str:
    missing = [number for number in range(1, processes) if number not in links]
    shown = [str(number) for number in missing[:20]]
    shown += [f"{len(missing) - 20} more"] if len(missing) > 20 else []
    names = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    came = ", ".join(link.name for link in list(links.values())[:8]) or "none but process 0"
    return (
        f"process {names} of {processes} did not come within {timeout_seconds:g} s: they were "
        "not started, ended early, or do not reach process 0; their own output says more. There: "
        f"{came}"
    )
