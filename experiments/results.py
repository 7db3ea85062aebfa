"""What came out of a study: scores and curves of its runs, and every cell against the baseline."""

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
from experiments.statistics import Judged, Row, judge
from experiments.study import Metric, Study


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


@dataclass(frozen=True)
class Line:
    """An arm in a comparison; `row` is None where `said` tells why there is no number."""

    arm: Arm
    said: str
    row: Row | None
    values: Mapping[int, float]


@dataclass(frozen=True)
class Comparison:
    """All arms of a budget by one metric, the baseline first. `judged` is None where the baseline
    has no score."""

    budget: str
    metric: Metric
    lines: Sequence[Line]
    judged: Judged | None

    @property
    def baseline(self) -> Line:
        return self.lines[0]


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


def metrics_of(study: Study, found: Sequence[Found]) -> list[Metric]:
    """The study's, and those of the tasks that its runs were fine-tuned on."""
    tasks = dict.fromkeys(name for one in found for name in one.scores if name.startswith("task_"))
    extra = [Metric(name, name.removeprefix("task_").replace("_", " ")) for name in tasks]
    return [*study.metrics, *extra]


def compare(plan: Plan, found: Sequence[Found], metric: Metric, budget: str) -> Comparison:
    """A cell of which any seed diverged is shown as that and not averaged over the rest: those
    that are left are the lucky ones. It counts among the comparisons, one that cannot be made."""
    lines: list[Line] = []
    scores: dict[str, Mapping[int, float]] = {}
    family = -1
    for arm in plan.of_budget(budget):
        mine = [one for one in found if one.run.arm.name == arm.name]
        values = {
            one.run.seed: one.scores[metric.name] for one in mine if metric.name in one.scores
        }
        diverged = sum(one.status == "diverged" for one in mine)
        ended = sum(one.status == "done" for one in mine)
        if diverged:
            said = f"diverged ({diverged} of {len(mine)} seeds)"
        elif values:
            said, scores[arm.name] = f"{len(values)} of {len(mine)}", values
        else:
            said = "not comparable" if ended else _not_run(mine)
        family += said != "not comparable"
        lines.append(Line(arm, said, None, values))
    base = lines[0].arm.name
    if base not in scores:
        return Comparison(budget, metric, lines, None)
    judged = judge(comparable(scores, base), base, family)
    lines = [_with_row(line, judged) for line in lines]
    return Comparison(budget, metric, lines, judged)


def comparable(
    scores: Mapping[str, Mapping[int, float]], base: str
) -> dict[str, Mapping[int, float]]:
    """The cells that have two seeds in common with the baseline and each other, or one where no
    cell has two yet: of a study that has just begun, those that are the furthest."""
    for fewest in (2, 1):
        left = dict(scores)
        while len(left) > 1:
            if len(set.intersection(*(set(values) for values in left.values()))) >= fewest:
                return left
            del left[min((n for n in left if n != base), key=lambda name: len(left[name]))]
    return {base: scores[base]}


def _with_row(line: Line, judged: Judged) -> Line:
    """How many of its seeds were compared is said where they are not all that it has."""
    row, said = judged.rows.get(line.arm.name), line.said
    if row and len(judged.seeds) < len(line.values):
        said += f", {len(judged.seeds)} compared"
    elif row is None and line.values and not said.startswith("diverged"):
        said += ", too few"
    return Line(line.arm, said, row, line.values)


def _not_run(mine: Sequence[Found]) -> str:
    begun = [one.status for one in mine if one.status]
    worst = "failed" if "failed" in begun else begun[0] if begun else ""
    return f"{worst} ({begun.count(worst)} of {len(mine)} seeds)" if worst else "not run"


def verdict(comparison: Comparison) -> str:
    """In a sentence or two."""
    judged, base = comparison.judged, comparison.baseline.arm.cell
    others = comparison.lines[1:]
    diverged = [line.arm.cell for line in others if line.said.startswith("diverged")]
    if judged is None:
        return f"Not judged: the baseline {base} is {comparison.baseline.said}."
    told = f" {listed(diverged)} diverged." if diverged else ""
    if judged.noise is None:
        return f"Not judged: two seeds of all cells are the least that shows noise.{told}"
    rows = [(line.arm.cell, line.row) for line in others if line.row]
    better, worse, equal = list[str](), list[str](), list[str]()
    for cell, row in rows:
        assert row.difference is not None
        if not row.differs:
            equal.append(cell)
        else:
            side = better if comparison.metric.better(row.difference) else worse
            side.append(f"{cell} ({number(row.difference, sign=True)})")
    parts = [
        f"{listed(cells)} {'is' if len(cells) == 1 else 'are'} {what} {base}"
        for cells, what in (
            (better, "better than"), (worse, "worse than"), (equal, "not to be told apart from"),
        )
        if cells
    ]  # fmt: skip
    if not parts:
        return f"Not judged: no cell has a score beside {base}.{told}"
    unseen = f" True differences below {number(judged.detectable or 0.0)} would often go unseen."
    text = "; ".join(parts)
    return f"By {comparison.metric.label}, {text}.{told}{unseen}"


def beside_paper(study: Study, comparison: Comparison) -> list[str]:
    """A sentence a paper: where the signs agree, where they do not, what is open."""
    told = []
    for paper in study.papers:
        base = paper.number(comparison.baseline.arm.cell)
        if base is None or comparison.judged is None:
            continue
        same, other = list[str](), list[str]()
        still, level = list[str](), list[str]()
        for line in comparison.lines[1:]:
            theirs = paper.number(line.arm.cell)
            if theirs is None or line.row is None or line.row.difference is None:
                continue
            if theirs == base:
                level.append(line.arm.cell)
            elif not line.row.differs:
                still.append(line.arm.cell)
            else:
                agrees = ((theirs < base) == paper.lower) == comparison.metric.better(
                    line.row.difference
                )
                (same if agrees else other).append(line.arm.cell)
        parts = [
            f"{what} {listed(cells)}"
            for cells, what in (
                (same, "agrees with it on"), (other, "disagrees with it on"),
                (still, "decides nothing on"), (level, "has nothing to be compared with on"),
            )
            if cells
        ]  # fmt: skip
        if parts:
            told.append(
                f"Beside {paper.source} ({paper.judged}; {paper.scale}), this study "
                f"{'; '.join(parts)}."
            )
    return told


def number(value: float, sign: bool = False) -> str:
    """To four significant digits or four decimals, whichever is shorter."""
    digits = 2 if abs(value) >= 100 else 3 if abs(value) >= 10 else 4
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
