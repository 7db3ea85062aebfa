"""What runs on each host of a pod: launch.tpu copies this file there and calls it by ssh.

  python3 remote.py install [--extra=tpu]    a Python of its own, with the requirements
  python3 remote.py start -- COMMAND...      start the run; it goes on when ssh ends
  python3 remote.py follow [--last=N]        its output, until it ends; then its status
  python3 remote.py stop                     SIGTERM
  python3 remote.py state                    running, ended with a status, or none

A line begins with --label and the host: "[pod-0/w-3] ...". Everything is kept below ~/bert_jax_run.
Runs on the host's own Python, 3.8 or newer, and nothing but it.
"""

import argparse
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]
HOME = Path.home() / "bert_jax_run"
PYTHON = HOME / "python"  # a virtual environment
LOG, STATUS, PID = HOME / "log", HOME / "status", HOME / "pid"
POLL_SECONDS = 0.2


def main() -> int:
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["install", "start", "keep", "follow", "stop", "state"])
    parser.add_argument("--label", default="")
    parser.add_argument("--extra", default="tpu")
    parser.add_argument("--last", type=int, default=-1)
    options, command = parser.parse_args(words[:at]), words[at + 1 :]
    worker = re.search(r"-(w-\d+)$", socket.gethostname())
    host = worker.group(1) if worker else socket.gethostname()
    label = f"{options.label}/{host}" if options.label else host
    HOME.mkdir(exist_ok=True)

    def say(text: str) -> None:
        print(f"[{label}] {text}", flush=True)

    if options.verb == "install":
        say(install(options.extra))
    elif options.verb == "start":
        if running():
            say("a run goes on here already; stop it first")
            return 1
        begin(command)
        say("started")
    elif options.verb == "keep":
        keep(command)
    elif options.verb == "follow":
        status = follow(say, options.last)
        say(f"ended with {status}")
        return status
    elif options.verb == "stop" and running():
        os.kill(int(PID.read_text()), signal.SIGTERM)
        say("told to stop")
    else:
        say(state())
    return 0


def install(extra: str) -> str:
    """Python 3.12 and requirements.txt; once for each content of it."""
    requirements = (CODE / "requirements.txt").read_text()
    mark, wanted = PYTHON / "installed", hashlib.sha256((requirements + extra).encode()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return "installed before"
    uv = str(HOME / "uv" / "bin" / "uv")  # it brings a Python where the host's is too old
    jax = re.search(r"^jax==(\S+)", requirements, re.MULTILINE)
    wheels = [f"jax[{extra}]=={jax.group(1)}"] if jax and extra else []
    for words in (
        [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade",
         f"--target={HOME / 'uv'}", "uv"],
        [uv, "venv", "--quiet", "--clear", "--python=3.12", str(PYTHON)],
        [uv, "pip", "install", "--quiet", f"--python={PYTHON}/bin/python",
         f"--requirement={CODE}/requirements.txt", *wheels],
    ):  # fmt: skip
        subprocess.run(words, check=True)
    mark.write_text(wanted)
    return "installed"


def begin(command: list) -> None:
    """The run, held by a process that no ssh session owns."""
    for file in (LOG, STATUS, PID):
        file.unlink(missing_ok=True)
    LOG.touch()
    subprocess.Popen(
        [sys.executable, __file__, "keep", "--", *command],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (PID.exists() or STATUS.exists()):
        time.sleep(POLL_SECONDS)


def keep(command: list) -> None:
    """Run the command, in the folder of the code, and keep its output and status."""
    path = f"{PYTHON}/bin:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": path}
    # A machine that is shut down sends it to all: the run is to end first, and its status be kept.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with LOG.open("ab") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=CODE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            log.write(f"error: {command[:1]}: {error.strerror}\n".encode())
            whole(STATUS, "127")
            return
        whole(PID, str(process.pid))
        status = process.wait()
    whole(STATUS, str(128 - status if status < 0 else status))


def follow(say, last: int) -> int:
    """Pass on the log from its `last` lines, or all; its status at the end. 1: no run is known."""
    if not LOG.exists():
        return 1
    lines = LOG.read_bytes().count(b"\n") - last if last >= 0 else 0
    with LOG.open("rb") as log:
        rest = b""
        while True:
            over = not running()  # asked before reading: what it wrote is all there
            data = log.read()
            *whole_lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            if over and rest:
                whole_lines, rest = [*whole_lines, rest], b""
            for line in whole_lines:
                lines -= 1
                if lines < 0 and line:
                    say(line.decode(errors="replace"))
            if over:
                return int(STATUS.read_text()) if STATUS.exists() else 1
            time.sleep(POLL_SECONDS)


def running() -> bool:
    """A run was begun that has not ended, since this machine was started."""
    if STATUS.exists() or not PID.exists():
        return False
    try:
        os.kill(int(PID.read_text()), 0)
    except OSError:
        time.sleep(POLL_SECONDS)  # it may have ended just now
        return False
    return True


def state() -> str:
    if running():
        return "running"
    return f"ended with {STATUS.read_text()}" if STATUS.exists() else "no run"


def whole(file: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


if __name__ == "__main__":
    sys.exit(main())
