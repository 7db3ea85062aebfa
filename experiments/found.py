"""What is there of a study's runs: how each ended, its scores and its curve."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.errors import UserError
from bert_jax.objectives import REPLACED_TERMS
from bert_jax.training.metrics import read_metrics
from experiments.plan import Arm, Plan
from experiments.runs import PROBE, SCORES, TASKS, Run, all_runs


@dataclass(frozen=True)
class Point:
    """A run at one of its evaluations. `seconds`: of its steps, without compiling, evaluating and
    saving."""

    step: int
    tokens: float
    flops: float
    seconds: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """A run and what is known of it. `status` is that of its outcome, "unfinished" or "incomplete";
    '' where it was not begun. `provenance`: of its last start."""

    run: Run
    status: str
    why: str
    scores: Mapping[str, float]
    curve: Sequence[Point]
    provenance: Mapping[str, Any]
    terms: Sequence[str] = ()  # of its objective

    @property
    def held_out(self) -> tuple[float, ...]:
        """By which the tokens that its MLM is scored on are known: how many, and their entropy
        under the counts of the training text. () where it has none."""
        names = ("eval_mlm_weight", "eval_unigram_loss")
        return tuple(self.scores[name] for name in names if name in self.scores)


def of_arm(arm: Arm, found: Sequence[Found]) -> list[Found]:
    """Its runs, a seed each."""
    return [one for one in found if one.run.arm.name == arm.name]


def collect(plan: Plan, folder: Path) -> list[Found]:
    return [_found(run) for run in all_runs(plan, folder)]


def _found(run: Run) -> Found:
    outcome = run.outcome()
    records = read_metrics(run.workdir) if run.workdir.exists() else []
    terms = _terms(run)
    curve = _curve(run, records, terms)
    lost = [stage for stage in outcome["stages"] if not run.wrote(stage)]
    scores: dict[str, float] = {}
    if "pretrain" in outcome["stages"] and "pretrain" not in lost:
        scores |= curve[-1].scores if curve else {}
        scores |= {f"probe_{name}": value for name, value in _read(run.workdir / PROBE).items()}
        for path in sorted((run.workdir / TASKS).glob(f"*/{SCORES}")):
            if path.parent.name in outcome["stages"]:
                name, value = task_score(path)
                scores[f"task_{path.parent.name}_{name}"] = value
    status, why = outcome["status"], outcome["why"]
    if status == "done" and lost:
        status = "incomplete"
        why = f"what {' and '.join(lost)} wrote is gone; start the study again"
    elif not status and records:
        status, why = "unfinished", f"at step {records[-1]['step']} of {run.arm.steps}"
    return Found(run, status, why, scores, curve, _last_start(run), terms)


def _last_start(run: Run) -> Mapping[str, Any]:
    """What is known of it; a line that was torn is passed over."""
    path = run.workdir / "provenance.jsonl"
    for line in reversed(path.read_text().splitlines() if path.exists() else []):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def task_score(path: Path) -> tuple[str, float]:
    """The first score of a fine-tuning; of several seeds of it their median."""
    read = _read(path)
    try:
        each = [one["scores"] for one in read.get("seeds", [read])]
        name = next(iter(each[0]))
        return name, statistics.median(scores[name] for scores in each)
    except (LookupError, TypeError, StopIteration) as error:
        raise UserError(f"{path}: has no scores; delete it and start the study again") from error


def _curve(
    run: Run, records: Sequence[Mapping[str, Any]], terms: Sequence[str]
) -> list[Point]:  # fmt: skip
    """The MLM of a generator is no score of the encoder that the run is about."""
    replaced = bool(set(terms) & set(REPLACED_TERMS))
    each = [
        (r["real_tokens"], r["tokens_per_second"]) for r in records if r.get("tokens_per_second")
    ]
    if not each:
        return []
    usual = statistics.median(tokens / speed for tokens, speed in each)
    points, tokens, seconds, before = [], 0.0, 0.0, 0
    for record in records:
        steps = record["step"] - before
        before = record["step"]
        mine = record.get("real_tokens") or each[0][0]
        speed = record.get("tokens_per_second")
        tokens += steps * mine
        seconds += steps * (mine / speed if speed else usual)
        scores = {
            name: float(value)
            for name, value in record.items()
            if name.startswith("eval_")
            and isinstance(value, int | float)
            and not (replaced and name.startswith("eval_mlm"))
        }
        if scores:
            flops = run.arm.flops * record["step"] / run.arm.steps
            points.append(Point(record["step"], tokens, flops, seconds, scores))
    return points


def _terms(run: Run) -> list[str]:
    objective = _read(run.workdir / "config.json").get("objective", {})
    return [term for term, coefficient in objective.items() if coefficient]


def _read(path: Path) -> dict[str, Any]:
    """Of a JSON object; {} where there is no file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it and start the study again"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object; delete it and start the study again")
    return found
