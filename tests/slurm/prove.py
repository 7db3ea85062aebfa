"""launch.slurm against a real Slurm, on this machine alone. Outside CI; needs root and

  apt-get install slurm-wlm munge
  python tests/slurm/prove.py [--keep] -- COMMAND...

Controller, node and munge get a folder, ports and a key of their own, and are stopped at the end.
The COMMAND is started as a job of two tasks (without one: tests.training.ring, which sums over
both). It is to go on until it gets SIGTERM, and then to end with 143. What is shown: both tasks
meet by --cluster=auto; after scancel --signal=TERM the job is in the queue again, starts anew in
the same log, and after a second SIGTERM, its one retry used, it ends with 143.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RING = [sys.executable, "-m", "tests.training.ring", "--stoppable=true"]

CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def main() -> None:
    words = sys.argv[1:]
    command = words[words.index("--") + 1 :] if "--" in words else RING
    if missing := [one for one in ("munged", "slurmctld", "slurmd") if not shutil.which(one)]:
        sys.exit(f"{missing}: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    daemons: list[subprocess.Popen] = []
    try:
        environment = set_up(folder, daemons)
        prove(folder, environment, command)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        if "--keep" not in words:
            shutil.rmtree(folder, ignore_errors=True)


def set_up(folder: Path, daemons: list[subprocess.Popen]) -> dict[str, str]:
    """A cluster of one node, and the environment that its commands need."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    files = [f"--{one}-file={folder}/munge.{one}" for one in ("key", "pid", "log", "seed")]
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    host, ports = socket.gethostname().partition(".")[0], free_ports(2)
    socket.getaddrinfo(host, None)  # the tasks find process 0 by this name
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(host=host, folder=folder, ports=ports, cpus=os.cpu_count()).lstrip()
    )
    environment = os.environ | {"SLURM_CONF": str(config), "PYTHONPATH": str(ROOT)}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    for words in (munged, ["slurmctld", "-D", "-f", config], ["slurmd", "-D", "-f", config]):
        log = (folder / f"{words[0]}.out").open("w")
        daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=folder))
        time.sleep(2)
        if daemons[-1].poll() is not None:
            sys.exit(f"{words[0]}: {(folder / f'{words[0]}.out').read_text()}")
    wait_for("the node", lambda: "idle" in ask(environment, "sinfo", "--noheader", "-o", "%t"))
    print(ask(environment, "sinfo"))
    return environment


def prove(folder: Path, environment: dict[str, str], command: list[str]) -> None:
    log = folder / "job.log"
    submit = [
        sys.executable, "-m", "launch.slurm", "--name=proof", "--tasks-per-node=2", "--time=10",
        "--retries=1", f"--log={log}", "--", *command,
    ]  # fmt: skip
    said = subprocess.run(
        submit, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    print(said)
    job = said.split()[1].rstrip(":")

    def state() -> str:
        return ask(environment, "scontrol", "show", "job", job)

    for start in (0, 1):
        wait_for("its start", lambda n=start: f"Restarts={n} " in state() and "=RUNNING" in state())
        seen = log.read_text() if log.exists() else ""
        wait_for("output of both", lambda seen=seen: works(log, seen))
        ask(environment, "scancel", "--signal=TERM", job)
        print(f"start {start}: SIGTERM sent")
        if not start:
            wait_for("the queue again", lambda: "Restarts=1 " in state())
            print([line.strip() for line in state().splitlines()[:5]][-2:])
    wait_for("its end", lambda: "JobState=FAILED" in state())
    end = next(word for word in state().split() if word.startswith("ExitCode="))
    print(log.read_text())
    assert end == "ExitCode=143:0", end
    print(f"proven: requeued once after 143, then ended with {end}")
    failing = [*submit[: submit.index("--") + 1], *RING, "--fail=1:20"]
    said = subprocess.run(
        failing, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    job = said.split()[1].rstrip(":")
    wait_for("its failure", lambda: "JobState=FAILED" in state())
    assert "Restarts=0 " in state()
    print("proven: a job of which one task fails is not requeued")


def works(log: Path, seen: str) -> bool:
    """Both tasks have said something more."""
    lines = log.read_text()[len(seen) :].splitlines() if log.exists() else []
    return all(
        any(line.startswith(f"{task}: ") and "[Gloo]" not in line for line in lines)
        for task in (0, 1)
    )


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def ask(environment: dict[str, str], *words: str) -> str:
    return subprocess.run(
        words, env=environment, check=True, capture_output=True, text=True
    ).stdout.rstrip()


def wait_for(what: str, holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within 120 s")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
