"""launch.tpu from asking for a pod to deleting it: its own commands, executed by a stand-in for
gcloud alone (gcloud.py); the archive, the shell of the hosts and what runs on them are real."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.cases import ROOT

# The run: adds a letter to a file that outlives the pod, and then what the letters say.
PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with open(sys.argv[1], "a") as file:
    file.write("x")
starts = len(open(sys.argv[1]).read())
print("start", starts, sys.argv[2:], flush=True)
"""


@pytest.fixture
def cloud(tmp_path):
    """A checkout with one commit, a gcloud, and how to call launch.tpu with them."""
    code = tmp_path / "code"
    (code / "launch").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "remote.py", code / "launch")
    (code / "requirements.txt").write_text("")
    git = ["git", "-C", str(code), "-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "bin").mkdir()
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/launch/gcloud.py "$@"\n')
    gcloud.chmod(0o755)
    environment = os.environ | {
        "FAKE_TPU": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    class Cloud:
        folder = tmp_path
        queued = tmp_path / "queued" / "pod"

        def program(self, text):
            (code / "program.py").write_text(PROGRAM + text)
            subprocess.run([*git, "init", "--quiet"], check=True)
            subprocess.run([*git, "add", "."], check=True)
            subprocess.run([*git, "commit", "--quiet", "-m", "m"], check=True)

        def words(self, verb, *options, run=()):
            command = ["--", "python3", "program.py", str(tmp_path / "starts"), *run] if run else []
            return [
                sys.executable, "-m", "launch.tpu", verb, "pod", "--zone=us-west4-a", "--poll=0",
                *([f"--code={code}"] if run else []), *options, *command,
            ]  # fmt: skip

        def launch(self, *words, **kwargs):
            return subprocess.run(
                self.words(*words, **kwargs),
                capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path,
            )  # fmt: skip

        def begin(self, *words, **kwargs):
            return subprocess.Popen(
                self.words(*words, **kwargs), env=environment, cwd=tmp_path, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

        def verbs(self):
            calls = map(json.loads, (tmp_path / "calls").read_text().splitlines())
            verbs = [[word for word in words if word[0] != "-"][3] for words in calls]
            return [verb for verb in verbs if verb in ("create", "delete", "scp")]

    yield Cloud()
    for pid in tmp_path.glob("nodes/*/w-*/bert_jax_run/pid"):
        try:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_up_to_the_end(cloud):
    cloud.program("")
    done = cloud.launch("up", "--slices=2", run=["two words", "; rm -rf ~", "$(id)"])
    assert done.returncode == 0, done.stderr
    arguments = "['two words', '; rm -rf ~', '$(id)', '--cluster=auto']"
    starts = sorted(line.split("] ")[1] for line in done.stdout.splitlines() if "start" in line)
    assert starts == [f"start 1 {arguments}", f"start 2 {arguments}"]
    hosts = {line[1:].split("]")[0] for line in done.stdout.splitlines() if "ended with 0" in line}
    assert {host.split("/")[0] for host in hosts} == {"pod-0", "pod-1"}
    assert cloud.verbs() == ["create", "scp", "scp", "delete"]
    assert not cloud.queued.exists()


def test_a_failure_is_the_end_and_its_status_that_of_the_launcher(cloud):
    cloud.program("sys.exit(9)")
    done = cloud.launch("up", "--keep", run=["x"])
    assert done.returncode == 9 and "failed with status 9" in done.stderr
    assert cloud.verbs() == ["create", "scp"] and cloud.queued.read_text() == "ACTIVE"


def test_143_is_tried_again_on_the_same_pod(cloud):
    cloud.program("sys.exit(143 if starts < 3 else 0)")
    done = cloud.launch("up", "--retries=5", run=["x"])
    assert done.returncode == 0, done.stderr
    assert (cloud.folder / "starts").read_text() == "xxx"
    assert cloud.verbs() == ["create", *["scp"] * 3, "delete"]


def test_143_is_the_status_when_tries_are_used_up(cloud):
    cloud.program("sys.exit(143)")
    assert cloud.launch("up", "--retries=1", run=["x"]).returncode == 143
    assert (cloud.folder / "starts").read_text() == "xx"


def test_a_pod_that_is_taken_away_is_asked_for_again(cloud):
    cloud.program("time.sleep(60 if starts == 1 else 0)")
    run = cloud.begin("up", run=["x"])
    assert "start 1" in run.stdout.readline()
    cloud.queued.write_text("SUSPENDING")
    (node,) = (cloud.folder / "nodes").iterdir()
    pid = int(next(node.glob("w-*/bert_jax_run/pid")).read_text())
    shutil.rmtree(node)
    os.kill(pid, signal.SIGKILL)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert "was taken away" in errors and "asking for another" in errors
    assert "start 2" in output and "start 1" not in output
    assert cloud.verbs() == ["create", "scp", "delete", "create", "scp", "delete"]


def test_ctrl_c_leaves_the_run_which_can_be_shown_and_stopped(cloud):
    cloud.program("time.sleep(60)")
    run = cloud.begin("up", run=["x"])
    assert "start 1" in run.stdout.readline()
    run.send_signal(signal.SIGINT)
    assert "goes on" in run.communicate(timeout=30)[1] and run.returncode == 130
    assert "] running" in cloud.launch("status").stdout
    logs = cloud.begin("logs")
    assert "start 1" in logs.stdout.readline()
    assert "told to stop" in cloud.launch("stop").stdout
    assert "ended with 143" in logs.communicate(timeout=30)[0] and logs.returncode == 143
    assert "] ended with 143" in cloud.launch("status").stdout
    assert cloud.launch("delete").returncode == 0
    assert "there is none" in cloud.launch("status").stdout


def test_the_steps_by_themselves(cloud):
    cloud.program("")
    assert cloud.launch("create").returncode == 0
    again = cloud.launch("create")
    assert again.returncode == 2 and "is there already (ACTIVE)" in again.stderr
    none = cloud.launch("logs")
    assert none.returncode == 2 and len(none.stderr.splitlines()) == 1
    assert cloud.launch("run", run=["x"]).returncode == 0
    active = cloud.launch("recover", run=["x"])
    assert active.returncode == 2 and "is ACTIVE" in active.stderr
    cloud.queued.write_text("SUSPENDED")
    assert cloud.launch("recover", run=["x"]).returncode == 0
    assert (cloud.folder / "starts").read_text() == "xx"


def test_one_that_is_refused_is_told(cloud):
    cloud.program("")
    (cloud.folder / "refused").touch()
    done = cloud.launch("create")
    assert done.returncode == 2 and "FAILED before it was ACTIVE; see quota" in done.stderr


def test_what_cannot_be_started_leaves_no_tpu(cloud):
    cloud.program("")
    none = cloud.launch("up")
    assert none.returncode == 2 and "command to start is missing" in none.stderr
    (cloud.folder / "code" / "launch" / "remote.py").write_text("import sys; sys.exit('broken')")
    cloud.program("")
    done = cloud.launch("up", run=["x"])
    assert done.returncode == 2 and "broken" in done.stderr and "is deleted" in done.stderr
    assert not cloud.queued.exists()


def test_without_code_no_tpu_is_asked_for(cloud):
    (cloud.folder / "code").rename(cloud.folder / "elsewhere")
    done = cloud.launch("up", run=["x"])
    assert done.returncode == 2 and not (cloud.folder / "queued").exists()


def test_what_is_not_committed_stays(cloud):
    cloud.program("")
    (cloud.folder / "code" / "secret").write_text("s")
    done = cloud.launch("up", "--keep", run=["x"])
    assert done.returncode == 0 and "not committed; they stay here" in done.stderr
    (home,) = (cloud.folder / "nodes").glob("*/w-0")
    assert sorted(path.name for path in (home / "bert_jax_code").iterdir()) == [
        "launch", "program.py", "requirements.txt",
    ]  # fmt: skip


def test_a_second_run_on_the_same_hosts_is_refused(cloud):
    cloud.program("time.sleep(60)")
    run = cloud.begin("up", run=["x"])
    assert "start 1" in run.stdout.readline()
    again = cloud.launch("run", run=["x"])
    assert again.returncode == 2 and "failed with 1" in again.stderr
    assert Path(cloud.folder / "starts").read_text() == "x"
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
