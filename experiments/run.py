"""Run a study: every cell under every seed, fairly, as far as it is not yet done.

  python -m experiments.run masking_rate --scale=smoke
  python -m experiments.run masking_rate --scale=cpu --jobs=2
  python -m experiments.report masking_rate

Runs stand in WORKDIR/STUDY/SCALE/CELL/seed-K, each a workdir of bert_jax.pretrain. The same command
again goes on where the last one stopped, however it ended, and to the same numbers; what is done is
never run again, and a cell that fails or diverges does not stop the rest: it is recorded as such.

  --scale=smoke|cpu|gpu|paper   seconds; hours on two cores; an hour on one GPU; the paper's
  --seeds=5                     more of them can be added later
  --jobs=2                      runs at a time
  --workdir=runs/experiments    where studies and their corpora are kept
  --config.FIELD=VALUE          for all cells: --config.corpus.source=my-text.txt, or a prepared
                                folder as --config.corpus.prepared; train.steps is the baseline's
  --task='configs/tasks/glue.py:sst2 --data=DIR'     fine-tune every run on it; several --task
  --launch='python -m launch.slurm --name=study --'  put before every pretraining; a run whose
                                launcher is back before it is done is looked for at the next start
  --dry-run                     print what would be started
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO

from bert_jax import cli
from bert_jax.errors import Preempted, UserError
from bert_jax.files import lock
from experiments import plan as plans, probe, study as studies
from experiments.calibrate import calibrate
from experiments.corpus import corpus_of, prepare_command
from experiments.plan import Plan
from experiments.progress import Told
from experiments.runs import Run, Task, all_runs, last_words
from experiments.study import Study

ROOT = Path(__file__).resolve().parent.parent
PREEMPTED = 143
DIVERGED = "no finite loss in the end"
_POLL = 0.2  # seconds


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def main(words: Sequence[str]) -> None:
    options, fields = parse(words)
    study = studies.find(options.study)
    scale = studies.scale_of(study, options.scale)
    given = plans.overrides(fields, plans.preset(study, scale))
    folder = Path(options.workdir).resolve() / study.name / options.scale
    tasks = [Task.of(text) for text in options.task]
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("--task: two tasks have the same name; give one of them in another study")
    launch = shlex.split(options.launch)

    found = plans.load(folder)
    seeds = options.seeds or (found.seeds if found else scale.seeds)
    first = plans.build(study, options.scale, given, seeds, found.calibration if found else {})
    corpus = corpus_of(first, given, folder.parent.parent)
    texts = folder / probe.TEXTS if _probed(study) else None
    if options.dry_run:
        show(first, study, folder, corpus, texts, tasks, launch)
        return
    if found:
        plans.check_same(found, first, folder)
    folder.mkdir(parents=True, exist_ok=True)
    locked = lock(folder)
    environment = surroundings(options.jobs)
    if not scale.proxy:
        preflight(first, scale.topology, environment)
    if "corpus.prepared" not in given:
        prepare(first, corpus, folder, environment)
    if texts:
        probe.write_texts(Path(corpus), texts)
    if found:
        plan = replace(found, seeds=seeds)
    else:
        rates = calibrate(study, first, folder, corpus, environment, ROOT)
        plan = plans.build(study, options.scale, given, seeds, rates)
    plans.save(plan, folder)
    run_all(plan, folder, corpus, texts, tasks, launch, options.jobs, environment)
    locked.close()


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the --config words."""
    if {"--help", "-h"} & set(words) or not words:
        print(f"{(__doc__ or '').strip()}\n\nStudies: {', '.join(studies.names())}")
        sys.exit(0 if words else 2)
    parser = Parser(prog="python -m experiments.run", allow_abbrev=False)
    parser.add_argument("study")
    parser.add_argument("--scale", choices=studies.SCALES, required=True)
    parser.add_argument("--seeds", type=_count)
    parser.add_argument("--jobs", type=_count, default=1)
    parser.add_argument("--workdir", default=str(ROOT / "runs" / "experiments"))
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--launch", default="")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_known_args(list(words))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)


def _probed(study: Study) -> bool:
    return any(metric.name.startswith("probe_") for metric in study.metrics)


def surroundings(jobs: int) -> dict[str, str]:
    """The environment of what is started: compiled programs are kept between runs, and of a GPU's
    memory each job has its part."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"), "PYTHONUNBUFFERED": "1"}
    if jobs > 1:
        kept["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / jobs:.3f}"
    return kept | os.environ


def prepare(plan: Plan, corpus: str, folder: Path, environment: Mapping[str, str]) -> None:
    """The corpus of all cells, once."""
    if (Path(corpus) / "manifest.json").exists():
        return
    print(f"preparing the corpus of all cells in {corpus}", flush=True)
    done = subprocess.run(
        prepare_command(plan, corpus), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise UserError("the corpus was not prepared, for the reason given above")


def preflight(plan: Plan, topology: str, environment: Mapping[str, str]) -> None:
    """Device-hours of each cell, printed before anything starts."""
    for arm in plan.arms:
        print(f"{arm.name}: what it needs on {topology}", flush=True)
        words = [
            sys.executable, "-m", "launch.preflight", f"--config={arm.config}", "--no-search",
            f"--topology={topology}", *(f"--config.{n}={v}" for n, v in arm.settings.items()),
        ]  # fmt: skip
        if subprocess.run(words, cwd=ROOT, env=environment).returncode not in (0, 3):
            print(f"{arm.name}: not known, for the reason given above", flush=True)


def show(
    plan: Plan, study: Study, folder: Path, corpus: str, texts: Path | None,
    tasks: Sequence[Task], launch: Sequence[str],
) -> None:  # fmt: skip
    """The commands, as they can be pasted into a shell."""
    print(shlex.join(prepare_command(plan, corpus)))
    if plans.needs_calibration(study) and not plan.calibration:
        print("# steps of the cells with equal tokens or time follow from a calibration")
    for run in all_runs(plan, folder):
        for stage, command in run.stages(corpus, texts, tasks).items():
            print(shlex.join([*(launch if stage == "pretrain" else ()), *command]))


@dataclass
class Job:
    """A run that is being worked on: the stages that are left, and the process of the first."""

    run: Run
    done: list[str]
    left: dict[str, list[str]]
    process: "subprocess.Popen[bytes] | None" = None
    log: IO[bytes] | None = None


def run_all(
    plan: Plan, folder: Path, corpus: str, texts: Path | None, tasks: Sequence[Task],
    launch: Sequence[str], jobs: int, environment: Mapping[str, str],
) -> None:  # fmt: skip
    """Work until every run has an outcome. Raises Preempted where it was told to stop: what runs
    has then saved."""
    runs = all_runs(plan, folder)
    queue = deque(begun(run, run.stages(corpus, texts, tasks)) for run in runs)
    told_to_stop: list[int] = []
    working: list[Job] = []

    def stop(number: int, _: FrameType | None) -> None:
        told_to_stop.append(number)
        for job in working:
            if job.process and job.process.poll() is None:
                job.process.send_signal(signal.SIGTERM)

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Told(runs) as told:
            while (queue and not told_to_stop) or working:
                for job in [job for job in working if job.process and job.process.poll() is None]:
                    told.at(job.run)
                for job in [
                    job for job in working if job.process and job.process.poll() is not None
                ]:
                    if not ended(job, bool(launch), told_to_stop):
                        start(job, launch, environment)
                    else:
                        working.remove(job)
                        told.ended(job.run)
                for _ in range(len(queue)):
                    if len(working) >= jobs or told_to_stop:
                        break
                    job = queue.popleft()
                    if not job.left:
                        told.ended(job.run, again=True)
                    elif job.run.is_busy():
                        queue.append(job)
                    else:
                        start(job, launch, environment)
                        working.append(job)
                time.sleep(_POLL)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(summary(runs))
    if told_to_stop or any(not run.outcome()["status"] for run in runs):
        raise Preempted("stopped; the same command goes on")
    failed = sum(run.outcome()["status"] == "failed" for run in runs)
    if failed:
        raise UserError(
            f"{failed} of {len(runs)} runs failed, for the reasons above; the report shows them as "
            f"failed, and the same command tries them again"
        )
    print(f"python -m experiments.report {plan.study} --scale={plan.scale}")


def begun(run: Run, stages: Mapping[str, list[str]]) -> Job:
    """What is left to do of a run."""
    outcome = run.outcome()
    done, status = list(outcome["stages"]), outcome["status"]
    if status == "submitted" and run.has_diverged():
        run.record("diverged", done, DIVERGED)
    elif status == "submitted" and run.is_complete():
        done, status = ["pretrain"], ""
    if status in ("diverged", "submitted"):
        return Job(run, done, {})
    return Job(run, done, {name: words for name, words in stages.items() if name not in done})


def start(job: Job, launch: Sequence[str], environment: Mapping[str, str]) -> None:
    """The next stage."""
    stage, command = next(iter(job.left.items()))
    words = [*(launch if stage == "pretrain" else ()), *command]
    job.run.workdir.parent.mkdir(parents=True, exist_ok=True)
    job.log = job.run.log.open("ab")
    job.log.write(f"$ {shlex.join(words)}\n".encode())
    job.log.flush()
    try:
        job.process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=job.log,
            stderr=subprocess.STDOUT, process_group=0,  # a signal comes to it through us alone
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{words[0]}: cannot be started ({error.strerror})") from error


def ended(job: Job, launched: bool, told_to_stop: Sequence[int]) -> bool:
    """Record how the stage ended; whether the run is at its end, too."""
    assert job.process is not None and job.log is not None
    job.log.close()
    status, run, stage = job.process.returncode, job.run, next(iter(job.left))
    if stage == "pretrain" and run.has_diverged():
        run.record("diverged", job.done, DIVERGED)
        return True
    if status == PREEMPTED or (told_to_stop and status):
        return True
    if status == 0 and stage == "pretrain" and not run.is_complete():
        if launched:
            run.record("submitted", job.done, "handed to the launcher")
        else:
            run.record("failed", job.done, "ended well before its last step")
        return True
    if status:
        run.record("failed", job.done, f"{stage}: {last_words(run.log)} (status {status})")
        return True
    job.left.pop(stage)
    job.done.append(stage)
    run.record("" if job.left else "done", job.done)
    return not job.left or bool(told_to_stop)


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


if __name__ == "__main__":
    with cli.guarded():
        main(sys.argv[1:])
