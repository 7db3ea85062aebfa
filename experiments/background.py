"""What stands behind a report's figures: the papers' numbers, how cells were compared, what they
took, where they ran, and every run."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.document import Block, Heading, Listed, Table, Text
from experiments.found import Found, of_arm
from experiments.plan import Plan
from experiments.results import metrics_of, number
from experiments.study import Study

Configs = Mapping[tuple[str, int], str]  # by arm and seed: a run's config beside the report


def shown(value: float | None, digits: int, sign: bool = False) -> str:
    if value is None:
        return "—"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def papers_tables(study: Study, plan: Plan) -> list[Block]:
    blocks: list[Block] = []
    for paper in study.papers:
        blocks += [
            Heading(f"The paper's numbers: {paper.source}"),
            Text(f"Measured on: {paper.scale}. Ours: {study.scales[plan.scale].note}. The numbers "
                 f"of the two are not of one kind; their order is what can be compared."),
            Table(
                ["cell", *paper.columns],
                [[cell, *(shown(value, 1) for value in row)] for cell, row in paper.rows.items()],
            ),
        ]  # fmt: skip
    return blocks


def task_spread(study: Study, plan: Plan, found: Sequence[Found]) -> list[Block]:
    """Of every task that runs were fine-tuned on: median and spread over seeds, as scores of small
    tasks are told."""
    blocks: list[Block] = []
    for metric in metrics_of(study, found)[len(study.metrics) :]:
        rows = []
        for arm in plan.arms:
            mine = of_arm(arm, found)
            scores = [one.scores[metric.name] for one in mine if metric.name in one.scores]
            if scores:
                spread = statistics.stdev(scores) if len(scores) > 1 else None
                rows.append([arm.name, f"{len(scores)} of {len(mine)}",
                             *(number(f(scores)) for f in (statistics.median, min, max)),
                             "—" if spread is None else number(spread)])  # fmt: skip
        head = ["cell", "seeds", "median", "lowest", "highest", "standard deviation"]
        blocks += [Heading(f"Fine-tuned: {metric.label}, over seeds", 3), Table(head, rows)]
    return blocks


def costs(plan: Plan, found: Sequence[Found]) -> list[Block]:
    """What each cell took, as means over its seeds that reached their end."""
    rows = []
    for arm in plan.arms:
        mine = of_arm(arm, found)
        well = [one.curve[-1] for one in mine if one.curve and one.status != "diverged"]
        ends = [end for end in well if end.step == arm.steps]
        diverged = sum(one.status == "diverged" for one in mine)
        means = [f"{statistics.mean(getattr(end, name) for end in ends):.4g}"
                 for name in ("tokens", "flops", "seconds")] if ends else [""] * 3  # fmt: skip
        said = f"{len(ends)} of {len(mine)}" + (f", {diverged} diverged" if diverged else "")
        if ends or diverged:
            rows.append([arm.name, said, f"{arm.steps}", *means])
    head = ["cell", "seeds", "steps", "real tokens", "FLOPs", "seconds of steps"]
    beside = f"{plan.jobs} at a time, beside" if plan.jobs > 1 else "beside"
    told = (
        f"Seconds are those of runs {beside} whatever else the machine did: a guide, no benchmark."
    )
    return [Heading("What each cell took"), Table(head, rows), Text(told)] if rows else []


def fairness(study: Study, plan: Plan) -> list[Block]:
    """What all cells have in common, and what they have not."""
    items = [
        "One corpus and one tokenizer for all cells; a seed decides the first parameters and the "
        "order of the data, the same in every cell whose format, length and batch are the same.",
        f"Held-out scores are taken at the end, on {_rows(plan)} with 15% of the tokens masked by "
        "one fixed draw. MLM losses are compared between encoders that learn MLM with [MASK] and "
        "are scored on the same tokens: not with ELECTRA's kinds, nor across formats.",
        "A difference has its interval and p-value by Dunnett's comparison with the baseline, the "
        "noise pooled over cells, seeds as blocks. It speaks of other seeds, with the held-out "
        "rows and the questions of the frozen encoder as they are, not of other text.",
    ]
    if any(metric.name.startswith("probe_") for metric in study.metrics):
        items.append(
            "The frozen encoder: mean vectors of held-out sentences, and of pairs of them; linear "
            "classifiers; chance 0.5; the same text for every cell. No cell trains on whether "
            "words are in their order. Whether B follows A is what NSP trains on, which of the two "
            "came first what SOP does."
        )
    for name, rate in plan.calibration.items():
        items.append(
            f"{name} was calibrated at {rate.steps_per_second:.3g} steps a second and "
            f"{rate.tokens:.0f} real tokens a step."
        )
    for name, words in plan.tasks.items():
        told = " ".join(word for word in words if not word.startswith("--data"))
        items.append(f"Fine-tuned on {name} by {told}.")
    return [Heading("How it was compared"), Listed([*items, *study.notes])]


def _rows(plan: Plan) -> str:
    most = plan.arm(plan.baseline).settings.get("train.eval_examples", 0)
    return f"the first {most} of each cell's held-out rows" if most else "every held-out row"


def origin(study: Study, found: Sequence[Found], begun: Sequence[str]) -> list[Block]:
    """Hardware, versions, and which other scales there are."""
    known = [one.provenance for one in found if one.provenance]
    items = [f"scale {name}: {'run' if name in begun else 'not run'}; "
             f"{scale.note}" for name, scale in study.scales.items()]  # fmt: skip
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


def every_run(study: Study, found: Sequence[Found], configs: Configs) -> list[Block]:
    """A row each, its seed a link to its config."""
    names = [metric.name for metric in metrics_of(study, found)]
    rows = []
    for one in found:
        arm, seed = one.run.arm.name, one.run.seed
        link = f"[{seed}]({configs[arm, seed]})" if (arm, seed) in configs else f"{seed}"
        scores = (number(one.scores[name]) if name in one.scores else "" for name in names)
        rows.append([arm, link, one.status or "not run", *scores])
    blocks: list[Block] = [Heading("Every run"), Table(["cell", "seed", "ended", *names], rows)]
    whys = [f"{one.run.name}: {one.why}" for one in found if one.why]
    return [*blocks, Listed(whys)] if whys else blocks
