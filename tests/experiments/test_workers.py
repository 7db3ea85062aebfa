"""The processes that a study starts, and how it knows those that outlived it."""

import os
import sys
import time
from pathlib import Path

import pytest

from experiments import workers
from experiments.plan import Arm
from experiments.runs import Run, last_words

ARM = Arm("15%", "15%", "15pc", ("steps",), "configs/bert.py:tiny", {}, 10, 1e9)
SLEEPER = [sys.executable, "-c", "import time; print('there', flush=True); time.sleep(600)"]


@pytest.fixture
def started(tmp_path):
    processes = []

    def start(words, slot=0, jobs=1):
        log = (tmp_path / "log").open("ab")
        processes.append(workers.start(words, log, os.environ, slot, jobs))
        return processes[-1]

    yield start
    workers.stop(processes)


def test_jobs_have_cores_of_their_own():
    cores = os.sched_getaffinity(0)
    for jobs in range(1, len(cores) + 1):
        parts = [workers.cores_of(slot, jobs) for slot in range(jobs)]
        assert all(parts) and len(set().union(*parts)) == sum(map(len, parts))
    assert workers.cores_of(0, len(cores) + 1) == set()


def test_a_process_has_the_cores_of_its_slot(started, tmp_path):
    jobs = len(os.sched_getaffinity(0))
    words = "import os, time; time.sleep(0.3); print(sorted(os.sched_getaffinity(0)))"
    assert started([sys.executable, "-c", words], jobs - 1, jobs).wait() == 0
    assert (tmp_path / "log").read_text() == f"{sorted(workers.cores_of(jobs - 1, jobs))}\n"


def test_what_is_stopped_has_ended(started):
    process = started(SLEEPER)
    assert process.poll() is None
    workers.stop([process])
    assert process.returncode < 0


def test_a_run_is_busy_while_its_process_lives(started, tmp_path):
    """Of whichever stage: the process is noted. Another one of the same number is none of it."""
    run = Run(ARM, 0, tmp_path)
    assert not run.is_busy()
    run.workdir.parent.mkdir(parents=True)
    process = started(SLEEPER)
    run.at_work(process.pid)
    assert run.is_busy()
    noted = run.workdir.with_name("seed-0.process")
    noted.write_text(noted.read_text().replace(workers.began(process.pid), "1"))
    assert not run.is_busy()
    run.at_work(process.pid)
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert not run.is_busy(), "it has ended, though nobody has waited for it"
    run.at_work(0)
    assert not noted.exists()


def test_last_words_are_those_of_the_last_program(tmp_path):
    log = tmp_path / "log"
    log.write_text("$ first\nerror: old\n$ second\nstep 1\nerror: new\nand more\n$ third\nfine\n")
    assert last_words(log) == "fine"
    log.write_text("$ first\nerror: old\n$ second\nstep 1\nerror: new\nand more\n")
    assert last_words(log) == "error: new"
