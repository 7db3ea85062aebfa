"""Start a run on Cloud TPUs, from a laptop, and see it through.

  python -m launch.tpu up bert-base --zone=us-west4-a --type=v5litepod-16 --spot -- \\
      python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=gs://BUCKET/base

`up` asks for the TPU (a queued resource named bert-base), waits for it, copies what is committed
here, installs it, starts the command on all hosts with --cluster=auto behind it, and shows their
output, each line with its host. If the TPU is taken away, or all hosts end with 143, it does so
again, --retries times, and the run goes on from its checkpoint: name a workdir that all hosts and
the next TPU see. Any other end is the end: the TPU is deleted (--keep: it stays, and costs) and the
status is that of the host that failed. Ctrl-C leaves the run alone.

The steps by themselves:

  create    ask for the TPU                     logs      show the output again
  run       copy, install, start, show          stop      SIGTERM: save and end with 143
  status    of the TPU and of each host         recover   if it was taken away: anew, and run
  delete    the TPU and all on it

--dry-run prints what would be executed, word by word. --slices=N: N slices of the --type, one run.
gcloud must be installed and signed in; for several hosts it wants the key in an agent:
ssh-add ~/.ssh/google_compute_engine.
"""

import argparse
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from launch.command import LOST, PREEMPTED, Mistake, Parser, at_least, call, show, start
from launch.pod import Pod, archive, checked_pod

_GONE = {"SUSPENDING", "SUSPENDED", "FAILED", "DELETING"}
_VERBS = ("up", "create", "run", "logs", "status", "stop", "recover", "delete")
_STARTS = ("up", "run", "recover")  # these take a command


def main(words: list[str]) -> int:
    options, command = _parse(words)
    pod = checked_pod(options)
    if command:
        command = [*command, "--cluster=auto"]
    if options.dry_run:
        for one, note in plan(pod, options, command):
            show(one, note)
        return 0
    try:
        return _VERB[options.verb](Launch(pod, options, command))
    except KeyboardInterrupt:
        print(
            f"\nwhat runs on {pod.name} goes on. Its output: launch.tpu logs; end it: launch.tpu "
            "stop; end the costs: launch.tpu delete",
            file=sys.stderr,
        )
        return 130


def plan(pod: Pod, options: argparse.Namespace, command: list[str]) -> list[tuple[list[str], str]]:
    """What a verb executes, with a note to each."""
    create = [(pod.create(), ""), (pod.state(), "until it says ACTIVE")]
    delete = [(pod.delete(), "")]
    path, pack = archive(options.code, pod.name)
    run = [(pack, "")]
    for node in pod.nodes:
        run += [(one, "") for one in deploy(pod, node, path)]
    run += [(pod.remote(node, "start", "--", *command), "") for node in pod.nodes]
    logs = [(pod.remote(node, "follow"), "") for node in pod.nodes]
    again = [(one, f"if it was taken away: {note}".strip(": ")) for one, note in delete + create]
    steps = {
        "create": create,
        "run": run + logs,
        "logs": logs,
        "status": [(pod.state(), ""), *((pod.remote(node, "state"), "") for node in pod.nodes)],
        "stop": [(pod.remote(node, "stop"), "") for node in pod.nodes],
        "recover": [(pod.state(), "goes on if it is not ACTIVE"), *delete, *create, *run, *logs],
        "delete": delete,
    }
    steps["up"] = [*create, *run, *logs, *again, *([] if options.keep else delete)]
    return steps[options.verb]


def deploy(pod: Pod, node: str, path: str) -> list[list[str]]:
    """The code onto the hosts of a slice."""
    return [pod.copy(path, node), pod.unpack(node), pod.remote(node, "install")]


class Unstarted(Mistake):
    """Nothing runs on the TPU."""


class Launch:
    """A pod, and what is to be done with it."""

    def __init__(self, pod: Pod, options: argparse.Namespace, command: list[str]) -> None:
        self.pod, self.options, self.command = pod, options, command
        self.hosts: set[str] = set()  # as they name themselves, once the run is started

    def up(self) -> int:
        path = self.pack()  # a mistake in it costs nothing yet
        for attempt in range(self.options.retries + 1):
            self.ready()
            try:
                status = self.begin(path) or self.logs()
            except Unstarted:
                if not self.options.keep:
                    self.delete()
                raise
            if status != PREEMPTED:
                break
            if attempt < self.options.retries:
                _say(f"again, {attempt + 1} of {self.options.retries}")
        if not self.options.keep:
            self.delete()
        return status

    def create(self) -> int:
        if state := self.state():
            raise Mistake(f"{self.pod.name}: is there already ({state}); launch.tpu delete, or up")
        call(self.pod.create())
        return self.await_active()

    def ready(self) -> None:
        """There is a TPU, and it is ours."""
        if (state := self.state()) in _GONE:
            _say(f"{self.pod.name} is {state}: asking for another")
            while state in ("SUSPENDING", "DELETING"):
                time.sleep(self.options.poll)
                state = self.state()
        if state in _GONE:
            call(self.pod.delete())
            state = ""
        if not state:
            call(self.pod.create())
        self.await_active()

    def await_active(self) -> int:
        shown = ""
        while (state := self.state()) != "ACTIVE":
            if state in _GONE:
                raise Mistake(
                    f"{self.pod.name}: {state} before it was ACTIVE; see quota and zone: gcloud "
                    f"compute tpus queued-resources describe {self.pod.name} "
                    f"--zone={self.pod.zone}"
                )
            if state != shown:
                _say(f"{self.pod.name} is {state or 'asked for'}")
                shown = state
            time.sleep(self.options.poll)
        _say(f"{self.pod.name} is ACTIVE")
        return 0

    def run(self) -> int:
        """Copy, install, start, show. 143 as well where the TPU is gone before the end."""
        return self.begin(self.pack()) or self.logs()

    def pack(self) -> str:
        """What is committed, as an archive on this machine."""
        path, pack = archive(self.options.code, self.pod.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if call(["git", "-C", self.options.code, "status", "--porcelain"]):
            _say(f"{self.options.code} has changes that are not committed; they stay here")
        call(pack)
        return path

    def begin(self, path: str) -> int:
        """Copy, install, start; 143 where the TPU is gone by then. Raises Unstarted."""
        try:
            for node in self.pod.nodes:
                _say(f"copying to {node}, and installing")
                for one in deploy(self.pod, node, path):
                    call(one)
            self.hosts.clear()
            for node in self.pod.nodes:
                said = call(self.pod.remote(node, "start", "--", *self.command))
                self.hosts.update(re.findall(r"^\[(.*)\] started$", said, re.MULTILINE))
        except Mistake as mistake:
            if self.state() in _GONE:
                return PREEMPTED
            raise Unstarted(str(mistake)) from mistake
        return 0

    def logs(self) -> int:
        """Show the output until all hosts have ended; come back where ssh broke."""
        ends: dict[str, int] = {}
        last: tuple[str, ...] = ()
        if not self.hosts:
            said = "".join(call(self.pod.remote(node, "state")) for node in self.pod.nodes)
            self.hosts = set(re.findall(r"^\[(.*)\] (?:running|ended)", said, re.MULTILINE))
        if not self.hosts:
            raise Mistake(f"{self.pod.name}: no host tells of a run; launch.tpu run")
        while True:
            ends |= self.follow(*last)
            if set(ends) >= self.hosts:
                return verdict(ends)
            if (state := self.state()) != "ACTIVE":
                _say(f"{self.pod.name} was taken away: {state or 'it is no more'}")
                return PREEMPTED
            _say("the connection to a host is lost; once more")
            last = ("--last=5",)
            time.sleep(self.options.poll)

    def follow(self, *words: str) -> dict[str, int]:
        """Show the output of all hosts as it comes; the statuses of those that tell one."""
        lines: queue.Queue[str | None] = queue.Queue()
        nodes = [
            subprocess.Popen(
                self.pod.remote(node, "follow", *words), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, text=True, errors="replace",
            )
            for node in self.pod.nodes
        ]  # fmt: skip

        def pass_on(node: "subprocess.Popen[str]") -> None:
            assert node.stdout is not None
            for line in node.stdout:
                lines.put(line)
            node.wait()
            lines.put(None)

        for node in nodes:
            threading.Thread(target=pass_on, args=(node,), daemon=True).start()
        ends: dict[str, int] = {}
        open_nodes = len(nodes)
        try:
            while open_nodes:
                if (line := lines.get()) is None:
                    open_nodes -= 1
                    continue
                print(line, end="", flush=True)
                if end := re.fullmatch(r"\[(.*?)\] ended with (\d+)\n", line):
                    ends[end.group(1)] = int(end.group(2))
        finally:
            for node in nodes:
                node.terminate()
        return ends

    def status(self) -> int:
        state = self.state()
        print(f"{self.pod.name}: {state or 'there is none'}")
        for node in self.pod.nodes if state == "ACTIVE" else ():
            print(call(self.pod.remote(node, "state")), end="")
        return 0

    def stop(self) -> int:
        for node in self.pod.nodes:
            print(call(self.pod.remote(node, "stop")), end="")
        return 0

    def recover(self) -> int:
        if (state := self.state()) == "ACTIVE":
            raise Mistake(f"{self.pod.name}: is ACTIVE; launch.tpu logs or run")
        _say(f"{self.pod.name}: {state or 'there is none'}")
        self.ready()
        return self.run()

    def delete(self) -> int:
        call(self.pod.delete())
        _say(f"{self.pod.name} is deleted")
        return 0

    def state(self) -> str:
        return call(self.pod.state()).strip()


_VERB: dict[str, Callable[[Launch], int]] = {verb: getattr(Launch, verb) for verb in _VERBS}


def verdict(ends: dict[str, int]) -> int:
    """The status of a run, of those of its hosts. One that only says that another is gone counts
    where none says why."""
    if set(ends.values()) == {LOST, PREEMPTED}:
        _say(f"told to stop before there was anything to save (status {PREEMPTED})")
        return PREEMPTED
    failed = [(status == LOST, host) for host, status in ends.items() if status]
    failed = [(lost, host) for lost, host in failed if ends[host] != PREEMPTED]
    if failed:
        host = min(failed)[1]
        _say(f"{host} failed with status {ends[host]}")
        return ends[host]
    if not any(ends.values()):
        return 0
    _say(f"told to stop, and saved (status {PREEMPTED})")
    return PREEMPTED if all(ends.values()) else 1


def _say(text: str) -> None:
    print(f"launch.tpu: {text}", file=sys.stderr, flush=True)


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(__doc__ or "", "launch.tpu")
    parser.add_argument("verb", choices=_VERBS, metavar="VERB", help=", ".join(_VERBS))
    parser.add_argument("name", metavar="NAME", help="of the TPU")
    parser.add_argument("--zone", help="as us-west4-a")
    parser.add_argument("--project", help="(gcloud's own)")
    parser.add_argument("--type", default="v5litepod-16", help="of a slice (v5litepod-16)")
    parser.add_argument("--slices", type=at_least(1), default=1, help="how many (1)")
    parser.add_argument("--runtime", help="the software of the hosts (by the type)")
    parser.add_argument("--spot", action="store_true", help="cheaper; may be taken away")
    parser.add_argument("--reserved", action="store_true", help="of your reservation")
    parser.add_argument("--internal-ip", action="store_true", help="no address outside the VPC")
    parser.add_argument("--code", default=".", help="a git checkout of bert_jax (.)")
    parser.add_argument("--retries", type=at_least(0), default=100, help="see above (100)")
    parser.add_argument("--keep", action="store_true", help="do not delete the TPU at the end")
    parser.add_argument("--poll", type=at_least(0), default=30, help="seconds (30)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    options, command = parser.split(words, needed=False)
    if not command and options.verb in _STARTS:
        parser.error(f"{options.verb}: the command to start is missing: give it behind --")
    if command and options.verb not in _STARTS:
        raise Mistake(f"{options.verb} takes no command behind --")
    return options, command


if __name__ == "__main__":
    start(main)
