"""Every cell of a study against the baseline, by each metric, and what is to be said of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.found import Found, of_arm
from experiments.plan import Arm, Plan
from experiments.statistics import Judged, Row, alone, judge
from experiments.study import Metric, Study


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


def metrics_of(study: Study, found: Sequence[Found]) -> list[Metric]:
    """The study's, and those of the tasks that its runs were fine-tuned on."""
    tasks = dict.fromkeys(name for one in found for name in one.scores if name.startswith("task_"))
    extra = [Metric(name, name.removeprefix("task_").replace("_", " ")) for name in tasks]
    return [*study.metrics, *extra]


OTHER_ROWS = "on other rows"


def compare(plan: Plan, found: Sequence[Found], metric: Metric, budget: str) -> Comparison:
    """A cell of which any seed diverged is shown as that and not averaged over the rest: those
    that are left are the lucky ones. It counts among the comparisons, one that cannot be made. An
    MLM that was scored on other held-out tokens than the baseline's is compared with none."""
    lines: list[Line] = []
    scores: dict[str, Mapping[int, float]] = {}
    family, first = -1, tuple[float, ...]()
    for arm in plan.of_budget(budget):
        mine = of_arm(arm, found)
        values = {
            one.run.seed: one.scores[metric.name] for one in mine if metric.name in one.scores
        }
        held_out = next((one.held_out for one in mine if metric.name in one.scores), ())
        first = first if lines else held_out
        diverged = sum(one.status == "diverged" for one in mine)
        ended = sum(one.status == "done" for one in mine)
        row = None
        if diverged:
            said = f"diverged ({diverged} of {len(mine)} seeds)"
        elif values and metric.name.startswith("eval_mlm") and not _same(held_out, first):
            said, row = f"{len(values)} of {len(mine)}, {OTHER_ROWS}", alone([*values.values()])
        elif values:
            said, scores[arm.name] = f"{len(values)} of {len(mine)}", values
        else:
            said = "not comparable" if ended else _not_run(mine)
        family += not said.endswith(("not comparable", OTHER_ROWS))
        lines.append(Line(arm, said, row, values))
    base = lines[0].arm.name
    if base not in scores:
        return Comparison(budget, metric, lines, None)
    judged = judge(comparable(scores, base), base, family)
    lines = [line if line.row else _with_row(line, judged) for line in lines]
    return Comparison(budget, metric, lines, judged)


def _same(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    """Up to the order in which batches of other sizes were summed."""
    return len(mine) == len(theirs) and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in zip(mine, theirs, strict=True)
    )


def comparable(
    scores: Mapping[str, Mapping[int, float]], base: str
) -> dict[str, Mapping[int, float]]:
    """The cells that are compared, by the seeds that they have in common with the baseline and each
    other. Those that have the fewest are left out where the others have twice as many without
    them: of a study that has just begun, or of which cells failed, the rest is not held up."""
    seeds = {name: set(values) & set(scores[base]) for name, values in scores.items()}
    fewest = sorted((name for name in scores if name != base), key=lambda name: len(seeds[name]))
    kept = [{name: scores[name] for name in scores if name not in fewest[:n]}
            for n in range(max(1, len(fewest)))]  # fmt: skip
    common = [len(set.intersection(*(seeds[name] for name in some))) for some in kept]
    for number, some in enumerate(kept):
        if common[number] and 2 * common[number] > max(common[number:]):
            return some
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
    rows = [(line.arm.cell, line.row) for line in others if line.row]
    if all(row.difference is None for _, row in rows):
        return f"Not judged: no cell has a score beside {base}.{told}"
    if judged.noise is None:
        return f"Not judged: two seeds of all cells are the least that shows noise.{told}"
    better, worse, equal = list[str](), list[str](), list[str]()
    for cell, row in rows:
        if row.difference is None:
            continue
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
            if round(abs(theirs - base), 6) < paper.least:
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
                (still, "decides nothing on"), (level, "finds the paper's own too small on"),
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
