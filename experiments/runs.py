"""A run: a cell's arm under one seed, in a workdir of its own; what it takes and how it ended.

Below the study's folder ARM/seed-0/ is the workdir, ARM/seed-0.log what its programs said, and
ARM/seed-0.json its outcome: which stages are done (pretrain, probe, each task), and `status`:

  done       all stages that were asked for
  diverged   no finite loss in the end; a fact, so it is not tried again
  failed     a program ended with an error, which `why` has; tried again at the next start
  submitted  handed to a cluster; its metrics will say when it is done

A stage counts as done while what it wrote is there.
"""

import fcntl
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.config import FILE as CONFIG, TrainConfig
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.training.metrics import read_metrics
from experiments.plan import Arm, Plan
from experiments.workers import began

PROBE = "probe.json"
TASKS, SCORES = "tasks", "scores.json"
QUIET = 900  # seconds without a logged step after which a submitted run may be handed in again


@dataclass(frozen=True)
class Task:
    """A task that every run is fine-tuned on: bert_jax.finetune's own words, the config first."""

    words: tuple[str, ...]

    @staticmethod
    def of(text: str) -> "Task":
        words = words_of("--task", text)
        if not words or words[0].startswith("-"):
            raise UserError(
                f"--task={text!r}: name a config first, and then what finetune is to be told, as "
                f"--task='configs/tasks/glue.py:sst2 --data=DIR'"
            )
        task = Task(tuple(words))
        if task.name in ("", "pretrain", "probe"):
            raise UserError(f"--task={text!r}: a task cannot be called {task.name!r} here")
        return task

    @property
    def name(self) -> str:
        path, _, preset = self.words[0].partition(":")
        return preset or Path(path).stem


@dataclass(frozen=True)
class Run:
    """`folder`: the study's."""

    arm: Arm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.arm.name} seed {self.seed}"

    @property
    def workdir(self) -> Path:
        return self.folder / self.arm.folder / f"seed-{self.seed}"

    @property
    def log(self) -> Path:
        return self._beside("log")

    def _beside(self, kind: str) -> Path:
        return self.workdir.with_name(f"{self.workdir.name}.{kind}")

    def outcome(self) -> dict[str, Any]:
        path = self._beside("json")
        try:
            found = json.loads(path.read_text())
            return {"status": str(found["status"]), "stages": list(found["stages"]),
                    "why": str(found.get("why", ""))}  # fmt: skip
        except FileNotFoundError:
            return {"status": "", "stages": [], "why": ""}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__} {error}); delete it, and start "
                f"the study again: what the run has is kept"
            ) from error

    def record(self, status: str, stages: Sequence[str], why: str = "") -> None:
        found = {"status": status, "stages": list(stages), "why": why}
        self.workdir.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._beside("json"), json.dumps(found) + "\n")

    def at_work(self, pid: int) -> None:
        """Note which process works on it, until it is told that none does (0)."""
        path = self._beside("process")
        if pid:
            write_whole(path, json.dumps({"pid": pid, "began": began(pid)}) + "\n")
        else:
            path.unlink(missing_ok=True)

    def stages(self, corpus: str, texts: Path | None, tasks: Sequence[Task]) -> dict[str, list]:
        """The command of each stage, by its name, in their order."""
        found = {"pretrain": pretrain(self.arm, self.workdir, self.seed, corpus)}
        if texts:
            found["probe"] = [
                sys.executable, "-m", "experiments.probe", f"--model={self.workdir}",
                f"--texts={texts}", f"--output={self.workdir / PROBE}",
            ]  # fmt: skip
        for task in tasks:
            found[task.name] = [
                sys.executable, "-m", "bert_jax.finetune", f"--config={task.words[0]}",
                f"--init={self.workdir}", f"--workdir={self.workdir / TASKS / task.name}",
                f"--config.seed={self.seed}", *task.words[1:],
            ]  # fmt: skip
        return found

    def wrote(self, stage: str) -> bool:
        """Whether what a stage leaves is there."""
        if stage == "pretrain":
            return self.is_complete() and (self.workdir / CONFIG).exists()
        if stage == "probe":
            return (self.workdir / PROBE).exists()
        return (self.workdir / TASKS / stage / SCORES).exists()

    def is_complete(self) -> bool:
        """Whether it was trained to its last step and scored there."""
        last = self._last()
        return last.get("step") == self.arm.steps and "eval_loss" in last

    def has_diverged(self) -> bool:
        """Whether it ended without a finite loss: in a row of steps that could not be taken, or
        in its last evaluation."""
        last = self._last()
        most = self.arm.settings.get("train.max_skipped", TrainConfig.max_skipped)
        given_up = last.get("skipped_in_a_row", 0) > most
        lost = "eval_loss" in last and not _finite(last["eval_loss"])
        return given_up or (lost and last["step"] == self.arm.steps)

    def is_busy(self) -> bool:
        """Whether a process works on it that outlived the study that started it: as it was noted
        or, where that cannot be told, by the lock of what trains in the workdir."""
        try:
            noted = json.loads(self._beside("process").read_text())
            if noted["began"] and began(noted["pid"]) == noted["began"]:
                return True
        except (OSError, ValueError, KeyError):
            pass
        return is_locked(self.workdir)

    def is_quiet(self) -> bool:
        """Whether nothing works on it, as far as can be told of another machine: no step was
        logged for QUIET seconds, or none yet."""
        path = self.workdir / "metrics.jsonl"
        logged = path.exists() and time.time() - path.stat().st_mtime < QUIET
        return not logged and not self.is_busy()

    def steps_done(self) -> int:
        return int(self._last().get("step", 0))

    def _last(self) -> dict[str, Any]:
        records = read_metrics(self.workdir) if self.workdir.exists() else []
        return records[-1] if records else {}


def is_locked(workdir: Path) -> bool:
    """Whether a process of this machine trains in it."""
    path = workdir / ".lock"
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def words_of(option: str, text: str) -> list[str]:
    """As a shell would part it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}={text!r}: {str(error).lower()}") from error


def pretrain(arm: Arm, workdir: Path, seed: int, corpus: str, **more: object) -> list[str]:
    fields = dict(arm.settings) | {"corpus.prepared": corpus, "seed": seed} | more
    if corpus:  # the folder has it; a file's name would be looked up again
        fields.pop("corpus.source", None)
    else:
        del fields["corpus.prepared"]
    return [
        sys.executable, "-m", "bert_jax.pretrain", f"--config={arm.config}",
        f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items()),
    ]  # fmt: skip


def launched(launch: Sequence[str], workdir: Path) -> list[str]:
    """The launcher's words, {run} in them the name of this run: 15pc-seed-0."""
    return [word.replace("{run}", f"{workdir.parent.name}-{workdir.name}") for word in launch]


def all_runs(plan: Plan, folder: Path) -> list[Run]:
    """Seed by seed, so that a study that is stopped has whole seeds of all cells."""
    return [Run(arm, seed, folder) for seed in range(plan.seeds) for arm in plan.arms]


def last_words(log: Path) -> str:
    """The last line that says something, of what the last program said; an error's, where there is
    one."""
    try:
        lines = [line for line in log.read_text(errors="replace").split("\n") if line.strip()]
    except OSError:
        return ""
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    lines = lines[starts[-1] + 1 :] if starts else lines
    told = [line for line in lines[-30:] if line.startswith("error: ")]
    return (told or lines or [""])[-1].strip()[:500]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
