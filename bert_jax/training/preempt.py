"""SIGTERM, the notice that a machine is about to be taken away, and the step at which all stop."""

import os
import signal
import socket
import sys
import threading
import time

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

from bert_jax.training.distributed import fail
from bert_jax.training.hosts import is_first

STATUS = 143  # 128 + SIGTERM: what launchers start again, and nothing else


class Preemption:
    """Until `begin` a SIGTERM ends the process at once, whatever it is doing: there is nothing to
    save. From then on `reached` says when to save and stop, at one step on all hosts, whichever
    of them had the notice.

    To be made by the main thread, after `jax.distributed.initialize` with JAX's own preemption
    service off: its handler, in C++, would only take a note. `seconds` after `begin`, if given,
    the first process has such a notice anyway.
    """

    def __init__(self, seconds: float | None = None):
        self._asked, self._begun, self._calls = threading.Event(), False, 0
        self._seconds, self._since = seconds, time.monotonic()
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        # A Python handler waits for the main thread, which may be compiling for minutes. The
        # byte that is written for each signal does not, and another thread reads it.
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self) -> None:
        """A step is done that a restart would have to do again. All hosts call this together."""
        self._begun, self._since = True, time.monotonic()
        if jax.process_count() > 1:
            # What jax.distributed.initialize does by default; there is no public way to do it
            # later. It takes SIGTERM over, tells the other hosts, and they agree on a call.
            jax.config.update("jax_enable_preemption_service", True)
            distributed.global_state.initialize_preemption_sync_manager()
            if self._asked.is_set():  # just before its handler was there
                os.kill(os.getpid(), signal.SIGTERM)
        if self._seconds is not None and is_first():
            notice = threading.Timer(self._seconds, os.kill, (os.getpid(), signal.SIGTERM))
            notice.daemon = True
            notice.start()

    @property
    def over(self) -> bool:
        """Whether the `seconds` have passed."""
        return self._seconds is not None and time.monotonic() - self._since >= self._seconds

    def reached(self) -> bool:
        """Whether to stop here. All hosts call it equally often, at the same places."""
        if not self._begun:
            return False
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked.is_set()

    def _watch(self) -> None:
        while True:
            if signal.SIGTERM not in self._signals.recv(64):
                continue  # Ctrl-C, which the main thread is told of
            if self._begun:
                self._asked.set()
                continue
            print("stopped before the first step; nothing was lost", file=sys.stderr, flush=True)
            fail()
            os._exit(STATUS)
