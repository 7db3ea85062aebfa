"""Run a study: every cell under every seed, fairly, as far as it is not yet done.

  python -m experiments.run masking_rate --scale=smoke
  python -m experiments.run masking_rate --scale=cpu --jobs=2
  python -m experiments.report masking_rate

Runs stand in WORKDIR/STUDY/SCALE/CELL/seed-K, each a workdir of bert_jax.pretrain. The same command
again goes on where the last one stopped, however it ended, and to the same numbers; what is done is
never run again, and a cell that fails or diverges does not stop the rest: it is recorded as such.

  --scale=smoke|cpu|gpu|paper   seconds; hours on two cores; an hour on one GPU; the paper's
  --seeds=5                     more of them can be added later
  --jobs=2                      runs at a time, each on its own cores
  --workdir=runs/experiments    where studies are kept
  --config.FIELD=VALUE          for all cells: --config.corpus.source=my-text.txt, or a prepared
                                folder as --config.corpus.prepared; train.steps is the baseline's
  --task='configs/tasks/glue.py:sst2 --data=DIR'     fine-tune every run on it; several --task
  --launch='python -m launch.slurm --name={run} --'  put before every pretraining, {run} being its
                                name; a run whose launcher is back before it is done is looked for
                                at the next start
  --resubmit                    hand to the launcher again what was submitted, is not done and has
                                logged no step for a quarter of an hour
  --dry-run                     print what would be started
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bert_jax import cli
from bert_jax.errors import UserError
from bert_jax.files import lock
from experiments import plan as plans, questions, recipes, study as studies
from experiments.calibrate import calibrate, minutes
from experiments.corpus import corpus_of
from experiments.plan import Plan
from experiments.runs import Run, Task, all_runs, launched, words_of
from experiments.study import Scale, Study
from experiments.work import Job, begun, left_of, run_all, standing
from experiments.workers import ROOT, surroundings

WORKDIR = str(ROOT / "runs" / "experiments")


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def main(words: Sequence[str]) -> None:
    options, fields = parse(words)
    study = studies.find(options.study)
    scale = studies.scale_of(study, options.scale)
    given = recipes.overrides(fields, recipes.preset(study, scale))
    folder = folder_of(options.workdir, study) / options.scale
    tasks = [Task.of(text) for text in options.task]
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("--task: two tasks have the same name; give one of them in another study")
    launch = words_of("--launch", options.launch)

    # What is to be run, as far as it is known before any cell is timed.
    found = plans.load(folder)
    if found:
        plans.check_study(found, study, folder)
    seeds = seeds_of(options.seeds, found, scale, folder)
    plan = plans.build(study, options.scale, given, seeds, found.calibration if found else {})
    plan = replace(plan, tasks={task.name: task.words for task in tasks})
    if found and found.jobs != options.jobs:
        print(
            f"this study was begun with --jobs={found.jobs}; on other cores sums are rounded "
            f"otherwise, and runs that were cut short do not go on to the same bits",
            flush=True,
        )
    if found:
        plans.check_same(found, plan, folder)
    texts = folder / questions.TEXTS if _probed(study) else None
    if options.dry_run:
        corpus = found.corpus if found else str(given.get("corpus.prepared", ""))
        show(plan, study, corpus, texts, tasks, launch, folder, options.resubmit)
        return
    environment = surroundings(options.jobs)
    for task in tasks:
        if found is None or task.name not in found.tasks:
            check_task(task, environment)
    folder.mkdir(parents=True, exist_ok=True)
    locked = lock(folder)

    # What all cells have in common: the corpus, and what is asked of the frozen encoders.
    first = study.grid(scale)[0]
    settings = recipes.cell_settings(study, scale, first, given)
    corpus, digest = corpus_of(recipes.config_of(study, scale, first, settings), found)
    print(f"corpus of all cells: {corpus}", flush=True)
    if found is None and not scale.proxy:
        preflight(plan, scale.topology, environment)
    known = {**(found.tasks if found else {}), **plan.tasks}
    common: dict[str, Any] = {
        "corpus": corpus, "corpus_sha256": digest, "tasks": known,
        "jobs": found.jobs if found else options.jobs,
    }  # fmt: skip
    plan = replace(plan, **common)
    plans.save(plan, folder)  # from here on the same command alone goes on in this folder
    if texts:
        questions.write_texts(Path(corpus), texts, recipes.shortest_row(study, scale, given))

    # How fast cells are here, and with that how many steps the budgets allow.
    asked = plans.uncalibrated(study, plan)
    timed = plan.arm(plan.baseline).cell in plan.calibration
    if not (asked or timed or launch) and scale.proxy and options.scale != "smoke":
        asked = [plan.arm(plan.baseline)]  # for the estimate alone
    rates = calibrate(plan, asked, folder, corpus, environment, launch, options.jobs)
    rates = {**plan.calibration, **rates}
    plan = replace(plans.build(study, options.scale, given, seeds, rates), **common)
    plans.save(plan, folder)

    left = {arm.name for arm in plans.unknown(study, plan)}
    queue = [
        job_of(run, corpus, texts, tasks, left, options.resubmit) for run in all_runs(plan, folder)
    ]
    tell_time(plan, queue, options.jobs)
    run_all(queue, launch, options.jobs, environment)
    locked.close()
    print(program("report", study, options.scale, options.workdir))


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
    parser.add_argument("--workdir", default=WORKDIR)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--launch", default="")
    parser.add_argument("--resubmit", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_known_args(list(words))


def folder_of(workdir: str, study: Study) -> Path:
    """The study's, below which its scales are."""
    if "://" in workdir:
        raise UserError(
            f"--workdir={workdir}: a study stands in a folder of this machine or one that all "
            f"hosts mount; give such a one"
        )
    return Path(workdir).expanduser().resolve() / study.name


def program(name: str, study: Study, scale: str, workdir: str) -> str:
    """The command of run or report, to be pasted into a shell."""
    words = ["python", "-m", f"experiments.{name}", study.name, f"--scale={scale}"]
    return shlex.join([*words, *([] if workdir == WORKDIR else [f"--workdir={workdir}"])])


def check_task(task: Task, environment: Mapping[str, str]) -> None:
    """Raises UserError where its data cannot be read: before hours of pretraining, not after."""
    words = [sys.executable, "-m", "bert_jax.finetune", f"--config={task.words[0]}", "--check"]
    done = subprocess.run(
        [*words, *task.words[1:]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1].removeprefix("error: ")
        raise UserError(f"--task={shlex.join(task.words)!r}: {said}")
    print(f"{task.name}: {done.stdout.strip()}", flush=True)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)


def _probed(study: Study) -> bool:
    return any(metric.name.startswith("probe_") for metric in study.metrics)


def seeds_of(asked: int | None, found: Plan | None, scale: Scale, folder: Path) -> int:
    """Those that were asked for, else those of the study so far, else of its scale."""
    if asked and found and asked < found.seeds:
        raise UserError(
            f"--seeds={asked}: {folder} has {found.seeds} already; give as many or more, or "
            f"another --workdir"
        )
    return asked or (found.seeds if found else scale.seeds)


def job_of(
    run: Run, corpus: str, texts: Path | None, tasks: Sequence[Task], unknown: set[str],
    resubmit: bool,
) -> Job:  # fmt: skip
    """What is left to do of a run; nothing where nobody knows how many steps it has."""
    if run.arm.name in unknown:
        run.record("failed", [], "its cell could not be calibrated")
        return Job(run, [], {})
    return begun(run, run.stages(corpus, texts, tasks), resubmit)


def tell_time(plan: Plan, queue: Sequence[Job], jobs: int) -> None:
    """What is left to do and, where the speed of the baseline is known, how long it takes."""
    arms = [job.run.arm for job in queue if "pretrain" in job.left]
    told = f"{len(arms)} of {len(queue)} runs to train, {jobs} at a time"
    if arms and (rate := plan.calibration.get(plan.arm(plan.baseline).cell)):
        told += f": about {minutes(plan, arms, rate, jobs):.0f} minutes, if nothing else works here"
    print(told, flush=True)


def preflight(plan: Plan, topology: str, environment: Mapping[str, str]) -> None:
    """Device-hours of a run of each cell, printed before anything starts."""
    print(f"{len(plan.arms)} cells, each under {plan.seeds} seeds", flush=True)
    for arm in plan.arms:
        print(f"{arm.name}: what it needs on {topology}", flush=True)
        words = [
            sys.executable, "-m", "launch.preflight", f"--config={arm.config}", "--no-search",
            f"--topology={topology}", *(f"--config.{n}={v}" for n, v in arm.settings.items()),
        ]  # fmt: skip
        status = subprocess.run(words, cwd=ROOT, env=environment).returncode
        if status not in (0, 3):
            print(f"{arm.name}: not known, as preflight ended with status {status}", flush=True)


def show(
    plan: Plan, study: Study, corpus: str, texts: Path | None, tasks: Sequence[Task],
    launch: Sequence[str], folder: Path, resubmit: bool,
) -> None:  # fmt: skip
    """The commands, as they can be pasted into a shell."""
    if not corpus:
        print("# the first of these prepares the corpus of all, in the cache")
    if texts and not texts.exists():
        print(f"# the probes read {texts}, which a study that is started writes")
    if plans.unknown(study, plan):
        print("# steps of the cells with equal tokens or time follow from a calibration")
    for run in all_runs(plan, folder):
        left = left_of(*standing(run, resubmit), run.stages(corpus, texts, tasks))
        for stage, command in left.items():
            before = launched(launch, run.workdir) if stage == "pretrain" else []
            print(shlex.join([*before, *command]))


if __name__ == "__main__":
    with cli.guarded():
        main(sys.argv[1:])
