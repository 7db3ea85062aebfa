"""The parts of a report: what a study found, as blocks of text, tables and figures."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from experiments import charts
from experiments.background import (
    Configs,
    costs,
    every_run,
    fairness,
    origin,
    papers_tables,
    shown,
    task_spread,
)
from experiments.charts import Series, Whisker
from experiments.document import Block, Choice, Figure, Heading, Table, Text
from experiments.found import Found, of_arm
from experiments.plan import Arm, Plan
from experiments.results import (
    OTHER_ROWS,
    Comparison,
    Line,
    beside_paper,
    listed,
    number,
    verdict,
)
from experiments.statistics import LEVEL
from experiments.study import Metric, Study

_BUDGET = {"steps": "steps", "flops": "FLOPs", "tokens": "tokens", "time": "wall time"}
# Of studies whose cells learn too different things to be judged by one held-out loss.
OWN_LOSS = Metric("eval_loss", "held-out loss, each cell's own", lower=True)
_AXES = {"tokens": "real tokens", "flops": "FLOPs", "seconds": "seconds of steps"}


@dataclass(frozen=True)
class Report:
    """`begun`: the scales that were."""

    study: Study
    plan: Plan
    found: Sequence[Found]
    comparisons: Sequence[Comparison]
    begun: Sequence[str]

    @property
    def judging(self) -> list[Comparison]:
        """Those that the verdict is of: of each budget the first metric."""
        first = self.study.metrics[0].name
        return [one for one in self.comparisons if one.metric.name == first]


def verdicts(report: Report) -> list[str]:
    found = []
    for one in report.judging:
        at = f"At equal {_BUDGET[one.budget]}: " if len(report.study.budgets) > 1 else ""
        found.append(at + verdict(one))
    return found


def document(report: Report, configs: Configs) -> list[Block]:
    study, plan = report.study, report.plan
    blocks: list[Block] = [Text(f"**{study.question}**")]
    blocks += [Text(f"**Verdict.** {text}") for text in verdicts(report)]
    papers = [text for one in report.judging for text in beside_paper(study, one)]
    blocks += [Text(text) for text in dict.fromkeys(papers)]
    scale = study.scales[plan.scale]
    blocks.append(
        Text(f"Scale **{plan.scale}**: {scale.note}; {plan.arm(plan.baseline).steps} steps of the "
             f"baseline {plan.baseline}, {plan.seeds} seeds.")
    )  # fmt: skip
    if plan.scale == "smoke":
        blocks.append(Text("This scale shows that the study runs. Its numbers say nothing."))
    for budget in study.budgets:
        if len(study.budgets) > 1:
            blocks.append(Heading(f"At equal {_BUDGET[budget]}"))
        for one in report.comparisons:
            if one.budget == budget:
                blocks += section(report, one, configs)
    blocks += task_spread(study, plan, report.found)
    for metric in [one for one in study.metrics if one.name.startswith("eval_")] or [OWN_LOSS]:
        blocks += curve_figures(report, metric)
    blocks += costs(plan, report.found)
    blocks += papers_tables(study, plan)
    blocks += fairness(study, plan)
    blocks += origin(study, report.found, report.begun)
    blocks += every_run(study, report.found, configs)
    return blocks


def section(report: Report, one: Comparison, configs: Configs) -> list[Block]:
    """A metric: its table, its noise, its picture."""
    judged, paper = one.judged, report.study.papers[:1]
    judging = one in report.judging
    beside = paper[0] if paper and judging else None
    head = ["cell", "seeds", "steps", "mean", "95% interval", "difference", "95%, all together",
            "p"]  # fmt: skip
    if beside:
        head += [f"{beside.source.partition(' (')[0]}: {beside.judged}", "difference there"]
    base = beside.number(one.baseline.arm.cell) if beside else None
    rows = []
    for line in one.lines:
        row = [cell_link(line.arm, configs), line.said, f"{line.arm.steps}", *_numbers(line)]
        if beside:
            theirs = beside.number(line.arm.cell)
            apart = None if theirs is None or base is None else theirs - base
            row += [shown(theirs, 1), "" if line is one.baseline else shown(apart, 1, sign=True)]
        rows.append(row)
    title = f"{one.metric.label}, {'less' if one.metric.lower else 'more'} is better"
    blocks: list[Block] = [Heading(title[0].upper() + title[1:], 3), Table(head, rows)]
    if taught := taught_of(report, one):
        blocks.append(
            Text(f"A secondary figure: {taught} {one.metric.term.upper()}, which trains on this "
                 f"question.")
        )  # fmt: skip
    if any(line.said.endswith(OTHER_ROWS) for line in one.lines):
        blocks.append(
            Text("A loss on other rows than the baseline's (another format, or pairs of another "
                 "kind) is of other tokens: it stands there and is not compared.")
        )  # fmt: skip
    if judged and judged.noise is not None:
        blocks.append(Text(noise_of(one)))
    whiskers = [
        Whisker(
            line.arm.cell, line.row.difference, line.row.difference_interval,
            f"{line.arm.cell}: {number(line.row.difference, sign=True)}"
            + (f" [{_pair(line.row.difference_interval)}]" if line.row.difference_interval else ""),
            line.row.differs,
        )
        for line in one.lines
        if line.row and line.row.difference is not None
    ]  # fmt: skip
    if judging and whiskers:
        label = f"{one.metric.label}: difference to {one.baseline.arm.cell}"
        file = f"differences-{one.budget}.svg"
        blocks.append(Figure(label, file, charts.whiskers(whiskers, label)))
    return blocks


def taught_of(report: Report, one: Comparison) -> str:
    """'A and B have', of the cells that train on the question of the metric; '' where none does."""
    cells = {
        found.run.arm.cell
        for found in report.found
        if one.metric.term in found.terms and one.budget in found.run.arm.budgets
    }
    names = [line.arm.cell for line in one.lines if line.arm.cell in cells]
    return f"{listed(names)} {'has' if len(names) == 1 else 'have'}" if names else ""


def cell_link(arm: Arm, configs: Configs) -> str:
    """To the config of its first run that has one."""
    first = next((path for (name, _), path in configs.items() if name == arm.name), "")
    return f"[{arm.cell}]({first})" if first else arm.cell


def _numbers(line: Line) -> list[str]:
    """Mean, interval, difference, interval, p; of a cell that diverged what its seeds have."""
    row = line.row
    if row is None:
        values = ", ".join(number(value) for value in line.values.values())
        return [f"({values})" if values else "", "", "", "", ""]
    p = "" if row.p is None else _p(row.p)
    if row.differs:
        p = f"**{p}**"
    return [
        number(row.mean), _pair(row.interval),
        "" if row.difference is None else number(row.difference, sign=True),
        _pair(row.difference_interval), p,
    ]  # fmt: skip


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _pair(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def noise_of(one: Comparison) -> str:
    judged = one.judged
    assert judged is not None and judged.noise is not None and judged.detectable is not None
    text = (
        f"Noise of a run {number(judged.noise)} ({judged.degrees} degrees of freedom, "
        f"{len(judged.seeds)} seeds as blocks). The smallest true difference that a study like "
        f"this finds in 80 of 100 cases: **{number(judged.detectable)}**."
    )
    if judged.unequal is not None and judged.unequal < 1 - LEVEL:
        each = "; ".join(
            f"{line.arm.cell} {_p(line.row.paired)}"
            for line in one.lines
            if line.row and line.row.paired is not None
        )
        text += (
            f" The noise is hardly of one size in all cells, as is assumed: the noisiest has "
            f"{judged.spread:.1f} times that of the quietest; of studies with one noise "
            f"{judged.unequal:.1%} look as uneven. By the noise of each pair alone (paired t, "
            f"Holm) p is: {each}."
        )
    return text


def curve_figures(report: Report, metric: Metric) -> list[Block]:
    """Against tokens, FLOPs and time; one figure each, shown in turn."""
    figures = []
    for axis, label in _AXES.items():
        series = [series_of(report, arm, metric, axis) for arm in report.plan.arms]
        if any(one.points for one in series):
            title = f"{metric.label} against {label}"
            svg = charts.curves(series, label, metric.label)
            figures.append(Figure(title, f"{metric.name.removeprefix('eval_')}-{axis}.svg", svg))
    if not figures:
        return []
    return [
        Heading("Curves", 3), Choice(figures),
        Text("Lines are means over seeds, bands their range."),
    ]  # fmt: skip


def series_of(report: Report, arm: Arm, metric: Metric, axis: str) -> Series:
    """Of the seeds that have the metric, at the steps that all of them have. Seeds that diverged
    are none of them, and the name says so."""
    mine = of_arm(arm, report.found)
    diverged = sum(one.status == "diverged" for one in mine)
    name = f"{arm.name} ({diverged} of {len(mine)} diverged)" if diverged else arm.name
    runs = [
        {point.step: point for point in one.curve if metric.name in point.scores}
        for one in mine
        if one.status != "diverged"
    ]
    runs = [run for run in runs if run]
    points, tips = [], []
    for step in sorted(set.intersection(*(set(run) for run in runs)) if runs else ()):
        at = [run[step] for run in runs]
        values = [point.scores[metric.name] for point in at]
        x = statistics.mean(getattr(point, axis) for point in at)
        points.append((x, statistics.mean(values), min(values), max(values)))
        tips.append(
            f"{name}, step {step}: {number(points[-1][1])} ({number(min(values))} to "
            f"{number(max(values))}, {len(values)} seeds)"
        )
    return Series(name, points, tips)
