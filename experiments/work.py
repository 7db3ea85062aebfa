"""The work of a study: its runs one after the other or side by side, until each has an outcome."""

import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from bert_jax.errors import Preempted, UserError
from experiments import workers
from experiments.progress import Told
from experiments.runs import Run, last_words, launched

PREEMPTED = 143
DIVERGED = "no finite loss in the end"
SUBMITTED = "handed to the launcher; the next start looks whether it is done"
_POLL = 0.2  # seconds

Process = subprocess.Popen[bytes]


@dataclass
class Job:
    """A run that is being worked on: the stages that are left, and the process of the first.
    `told`: whether it was told to stop."""

    run: Run
    done: list[str]
    left: dict[str, list[str]]
    slot: int = 0
    process: Process | None = None
    log: IO[bytes] | None = None
    told: bool = False

    @property
    def works(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Crew:
    """Works on `jobs` runs at a time. `launch` stands before every pretraining."""

    def __init__(
        self, queue: Sequence[Job], launch: Sequence[str], jobs: int, environment: Mapping[str, str]
    ):
        self._queue, self._launch, self._environment = deque(queue), launch, environment
        self._free, self._jobs = list(range(jobs)), jobs
        self._working: list[Job] = []
        self._stopping = False

    def work(self, told: Told) -> bool:
        """Until every run is at its end; False where it was told to stop before, and all that
        works has saved."""
        with self._signals():
            try:
                while (self._queue and not self._stopping) or self._working:
                    self._pass(told)
                    time.sleep(_POLL)
            finally:  # whatever happens, nothing is left that works alone
                workers.stop(job.process for job in self._working if job.process)
        return not self._stopping

    def _pass(self, told: Told) -> None:
        for job in list(self._working):
            if job.works:
                told.at(job.run)
                if self._stopping and not job.told and job.process:
                    job.process.send_signal(signal.SIGTERM)
                    job.told = True
            elif not self._ended(job):
                self._start(job)
            else:
                self._working.remove(job)
                self._free.append(job.slot)
                told.ended(job.run)
        for _ in range(len(self._queue)):
            if not self._free or self._stopping:
                return
            job = self._queue.popleft()
            if not job.left:
                told.ended(job.run, again=True)
            elif job.run.is_busy():
                self._queue.append(job)
            else:
                job.slot = self._free.pop(0)
                self._working.append(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        """The next stage."""
        stage, command = next(iter(job.left.items()))
        launch = launched(self._launch, job.run.workdir) if stage == "pretrain" else []
        words = [*launch, *command]
        job.run.workdir.parent.mkdir(parents=True, exist_ok=True)
        job.log = job.run.log.open("ab")
        job.log.write(f"$ {shlex.join(words)}\n".encode())
        job.log.flush()
        job.process = workers.start(words, job.log, self._environment, job.slot, self._jobs)
        job.run.at_work(job.process.pid)

    def _ended(self, job: Job) -> bool:
        """Record how the stage ended; whether the run is at its end, too."""
        assert job.process is not None and job.log is not None
        job.log.close()
        job.run.at_work(0)
        status, run, stage = job.process.returncode, job.run, next(iter(job.left))
        if stage == "pretrain" and run.has_diverged():
            run.record("diverged", job.done, DIVERGED)
            return True
        if status == PREEMPTED or (self._stopping and status):
            return True
        if status == 0 and stage == "pretrain" and not run.wrote(stage):
            if self._launch:
                run.record("submitted", job.done, SUBMITTED)
            else:
                why = "ended well before its last step, or without its files"
                run.record("failed", job.done, why)
            return True
        if status:
            run.record("failed", job.done, f"{stage}: {last_words(run.log)} (status {status})")
            return True
        job.left.pop(stage)
        job.done.append(stage)
        run.record("" if job.left else "done", job.done)
        return not job.left or self._stopping

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C are for the next pass to heed."""

        def heed(number: int, _: FrameType | None) -> None:
            self._stopping = True

        before = {n: signal.signal(n, heed) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def standing(run: Run, resubmit: bool = False) -> tuple[str, list[str]]:
    """Its status as it is now, '' where it is to be gone on with, and which stages are done.
    `resubmit`: what was submitted, is not done and has logged nothing for a while is to be started
    once more."""
    outcome = run.outcome()
    status, done = outcome["status"], [name for name in outcome["stages"] if run.wrote(name)]
    if status == "submitted" and run.has_diverged():
        status = "diverged"
    elif status == "submitted" and run.is_complete():
        status, done = "", ["pretrain"]
    elif status == "submitted" and resubmit and run.is_quiet():
        status = ""
    return status, done


def begun(run: Run, stages: Mapping[str, list[str]], resubmit: bool = False) -> Job:
    """What is left to do of a run, which is recorded."""
    before = run.outcome()["status"]
    status, done = standing(run, resubmit)
    left = left_of(status, done, stages)
    if status == "diverged" and before != status:
        run.record(status, done, DIVERGED)
    elif left and before == "done":
        run.record("", done)
    elif not left and status not in ("diverged", "submitted", "done"):
        run.record("done", done)
    return Job(run, done, left)


def left_of(
    status: str, done: Sequence[str], stages: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """The stages that are still to be started."""
    if status in ("diverged", "submitted"):
        return {}
    return {name: words for name, words in stages.items() if name not in done}


def run_all(
    queue: Sequence[Job], launch: Sequence[str], jobs: int, environment: Mapping[str, str]
) -> None:
    """Raises Preempted where it was told to stop, UserError where runs failed."""
    runs = [job.run for job in queue]
    with Told(runs) as told:
        whole = Crew(queue, launch, jobs, environment).work(told)
    print(summary(runs))
    if not whole or any(not run.outcome()["status"] for run in runs):
        raise Preempted("stopped; the same command goes on")
    failed = sum(run.outcome()["status"] == "failed" for run in runs)
    if failed:
        raise UserError(
            f"{failed} of {len(runs)} runs failed, for the reasons above; the report shows them as "
            f"failed, and the same command tries them again"
        )


def summary(runs: Sequence[Run]) -> str:
    """How many ended how, and why those that did not end well."""
    outcomes = [(run, run.outcome()) for run in runs]
    statuses = [outcome["status"] or "unfinished" for _, outcome in outcomes]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    lines = [f"{len(runs)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items())]
    for run, outcome in outcomes:
        if outcome["status"] not in ("done", ""):
            lines.append(f"  {run.name}: {outcome['status']}, {outcome.get('why')} ({run.log})")
    return "\n".join(lines)
