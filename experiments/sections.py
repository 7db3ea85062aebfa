"""The parts of a report: what a study found, as blocks of text, tables and figures."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from experiments import charts
from experiments.charts import Series, Whisker
from experiments.document import Block, Choice, Figure, Heading, Listed, Table, Text
from experiments.plan import Arm, Plan
from experiments.results import Comparison, Found, Line, beside_paper, metrics_of, number, verdict
from experiments.study import Metric, Study

_BUDGET = {"steps": "steps", "flops": "FLOPs", "tokens": "tokens", "time": "wall time"}
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


def document(report: Report, configs: dict[str, str]) -> list[Block]:
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
    for metric in study.metrics:
        if metric.name.startswith("eval_"):
            blocks += curve_figures(report, metric)
    blocks += papers_tables(study, plan)
    blocks += fairness(report)
    blocks += origin(report)
    blocks += every_run(report)
    return blocks


def section(report: Report, one: Comparison, configs: dict[str, str]) -> list[Block]:
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
            row += [_shown(theirs, 1), "" if line is one.baseline else _shown(apart, 1, sign=True)]
        rows.append(row)
    title = f"{one.metric.label}, {'less' if one.metric.lower else 'more'} is better"
    blocks: list[Block] = [Heading(title[0].upper() + title[1:], 3), Table(head, rows)]
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


def cell_link(arm: Arm, configs: dict[str, str]) -> str:
    return f"[{arm.cell}]({configs[arm.name]})" if arm.name in configs else arm.cell


def _numbers(line: Line) -> list[str]:
    """Mean, interval, difference, interval, p; of a cell that diverged what its seeds have."""
    row = line.row
    if row is None:
        values = ", ".join(number(value) for value in line.values.values())
        return [f"({values})" if values else "", "", "", "", ""]
    p = "" if row.p is None else "< 0.0001" if row.p < 1e-4 else f"{row.p:.4f}"
    if row.differs:
        p = f"**{p}**"
    return [
        number(row.mean), _pair(row.interval),
        "" if row.difference is None else number(row.difference, sign=True),
        _pair(row.difference_interval), p,
    ]  # fmt: skip


def _pair(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def _shown(value: float | None, digits: int, sign: bool = False) -> str:
    if value is None:
        return "—"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def noise_of(one: Comparison) -> str:
    judged = one.judged
    assert judged is not None and judged.noise is not None and judged.detectable is not None
    text = (
        f"Noise of a run {number(judged.noise)} ({judged.degrees} degrees of freedom, "
        f"{len(judged.seeds)} seeds as blocks). The smallest true difference that a study like "
        f"this finds in 80 of 100 cases: **{number(judged.detectable)}**."
    )
    if judged.spread and judged.spread > 3:
        text += (
            f" The noisiest cell has {judged.spread:.1f} times the noise of the quietest, while "
            f"one noise is assumed for all: take p-values near 0.05 with care."
        )
    return text


def curve_figures(report: Report, metric: Metric) -> list[Block]:
    """Against tokens, FLOPs and time; one figure each, shown in turn."""
    figures = []
    for axis, label in _AXES.items():
        series = [s for arm in report.plan.arms if (s := series_of(report, arm, metric, axis))]
        if series:
            title = f"{metric.label} against {label}"
            svg = charts.curves(series, label, metric.label)
            figures.append(Figure(title, f"{metric.name.removeprefix('eval_')}-{axis}.svg", svg))
    if not figures:
        return []
    return [
        Heading("Curves", 3), Choice(figures),
        Text("Lines are means over seeds, bands their range."),
    ]  # fmt: skip


def series_of(report: Report, arm: Arm, metric: Metric, axis: str) -> Series | None:
    """Of the seeds that have the metric, at the steps that all of them have."""
    runs = [
        {point.step: point for point in one.curve if metric.name in point.scores}
        for one in report.found
        if one.run.arm.name == arm.name
    ]
    runs = [run for run in runs if run]
    if not runs:
        return None
    points, tips = [], []
    for step in sorted(set.intersection(*(set(run) for run in runs))):
        at = [run[step] for run in runs]
        values = [point.scores[metric.name] for point in at]
        x = statistics.mean(getattr(point, axis) for point in at)
        points.append((x, statistics.mean(values), min(values), max(values)))
        tips.append(
            f"{arm.name}, step {step}: {number(points[-1][1])} ({number(min(values))} to "
            f"{number(max(values))}, {len(values)} seeds)"
        )
    return Series(arm.name, points, tips) if points else None


def papers_tables(study: Study, plan: Plan) -> list[Block]:
    blocks: list[Block] = []
    for paper in study.papers:
        blocks += [
            Heading(f"The paper's numbers: {paper.source}"),
            Text(f"Measured on: {paper.scale}. Ours: {study.scales[plan.scale].note}. The numbers "
                 f"of the two are not of one kind; their order is what can be compared."),
            Table(
                ["cell", *paper.columns],
                [[cell, *(_shown(value, 1) for value in row)] for cell, row in paper.rows.items()],
            ),
        ]  # fmt: skip
    return blocks


def fairness(report: Report) -> list[Block]:
    """What all cells have in common, and what they have not."""
    study, plan = report.study, report.plan
    items = [
        "One corpus and one tokenizer for all cells; a seed decides the first parameters and the "
        "order of the data, the same in every cell whose format, length and batch are the same.",
        "Held-out scores are taken at the end, on every cell's held-out rows with 15% of the "
        "tokens masked by one fixed draw. MLM losses are compared between encoders that were "
        "trained on MLM alone.",
        "A difference has its interval and p-value by Dunnett's comparison with the baseline, the "
        "noise pooled over cells, seeds as blocks.",
    ]
    if any(metric.name.startswith("probe_") for metric in study.metrics):
        items.append(
            "The frozen encoder: mean vectors of pairs of held-out sentences, a linear classifier, "
            "chance 0.5; the same pairs for every cell."
        )
    for name, rate in plan.calibration.items():
        items.append(
            f"{name} was calibrated at {rate.steps_per_second:.3g} steps a second and "
            f"{rate.tokens:.0f} real tokens a step."
        )
    return [Heading("How it was compared"), Listed([*items, *study.notes])]


def origin(report: Report) -> list[Block]:
    """Hardware, versions, and which other scales there are."""
    known = [one.provenance for one in report.found if one.provenance]
    items = [f"scale {name}: {'run' if name in report.begun else 'not run'}; "
             f"{scale.note}" for name, scale in report.study.scales.items()]  # fmt: skip
    for name in ("devices", "platform", "python", "versions", "commit"):
        values = dict.fromkeys(_plain(one.get(name)) for one in known)
        if values:
            items.append(f"{name}: {'; '.join(values)}")
    sources = dict.fromkeys(str(one.get("data", {}).get("source")) for one in known)
    if sources:
        items.append(f"corpus: {'; '.join(sources)}")
    return [Heading("Where it ran"), Listed(items)]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def every_run(report: Report) -> list[Block]:
    names = [metric.name for metric in metrics_of(report.study, report.found)]
    rows = [
        [one.run.arm.name, f"{one.run.seed}", one.status or "not run",
         *(number(one.scores[name]) if name in one.scores else "" for name in names)]
        for one in report.found
    ]  # fmt: skip
    blocks: list[Block] = [Heading("Every run"), Table(["cell", "seed", "ended", *names], rows)]
    whys = [f"{one.run.name}: {one.why}" for one in report.found if one.why]
    return [*blocks, Listed(whys)] if whys else blocks
