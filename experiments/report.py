"""What a study found, as Markdown, a page to open in a browser, and figures.

  python -m experiments.report masking_rate
  python -m experiments.report masking_rate --scale=cpu --output=experiments/results/masking-cpu

Without --scale, a report of every scale that was begun. It is written to STUDY/SCALE/report below
--workdir (runs/experiments), or to --output: report.md, index.html, which needs no network,
figures, results.json with the score of every run, and configs/ with the config of each. A study
may be reported on before it has ended; what is not there is shown as not run, failed or diverged.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bert_jax import cli
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from experiments import plan as plans, study as studies
from experiments.background import Configs
from experiments.document import Choice, Figure, markdown, page
from experiments.found import collect
from experiments.results import compare, metrics_of
from experiments.run import WORKDIR, Parser, folder_of, program
from experiments.sections import Report, document, verdicts
from experiments.study import Study


def main(words: Sequence[str]) -> None:
    options = parse(words)
    study = studies.find(options.study)
    root = folder_of(options.workdir, study)
    begun = [name for name in study.scales if (root / name / plans.FILE).exists()]
    wanted = [options.scale] if options.scale else begun
    if not wanted or not set(wanted) <= set(begun):
        raise UserError(
            f"{root / (wanted[0] if wanted else '')}: nothing was run there; start "
            + program("run", study, wanted[0] if wanted else "smoke", options.workdir)
        )
    if options.output and len(wanted) > 1:
        raise UserError(f"--output: is for one of {', '.join(wanted)}; name it with --scale")
    for name in wanted:
        output = Path(options.output) if options.output else root / name / "report"
        told = write(study, root / name, output, begun)
        print(f"{study.name}, {name}: {told}")
        print(f"  {output / 'report.md'}\n  {output / 'index.html'}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    if {"--help", "-h"} & set(words) or not words:
        print(f"{(__doc__ or '').strip()}\n\nStudies: {', '.join(studies.names())}")
        sys.exit(0 if words else 2)
    parser = Parser(prog="python -m experiments.report", allow_abbrev=False)
    parser.add_argument("study")
    parser.add_argument("--scale", choices=studies.SCALES)
    parser.add_argument("--workdir", default=WORKDIR)
    parser.add_argument("--output", default="")
    return parser.parse_args(list(words))


def write(study: Study, folder: Path, output: Path, begun: Sequence[str]) -> str:
    """Write all files of the report of a study's folder. Returns the verdict."""
    plan = plans.load(folder)
    assert plan is not None
    plans.check_study(plan, study, folder)
    found = collect(plan, folder)
    comparisons = [
        compare(plan, found, metric, budget)
        for budget in study.budgets
        for metric in metrics_of(study, found)
    ]
    report = Report(study, plan, found, comparisons, begun)
    output.mkdir(parents=True, exist_ok=True)
    configs = copy_configs(report, output)
    title, blocks = f"{study.name}, scale {plan.scale}", document(report, configs)
    for block in blocks:
        for figure in block.figures if isinstance(block, Choice) else [block]:
            if isinstance(figure, Figure):
                write_whole(output / figure.file, figure.svg + "\n")
    write_whole(output / "report.md", markdown(title, blocks))
    write_whole(output / "index.html", page(title, blocks))
    write_whole(output / "results.json", at_home(json.dumps(facts(report), indent=1)) + "\n")
    return " ".join(verdicts(report))


def copy_configs(report: Report, output: Path) -> Configs:
    """config.json of each run that has one, beside the report."""
    links = {}
    for one in report.found:
        source, arm, seed = one.run.workdir / "config.json", one.run.arm, one.run.seed
        if source.exists():
            (output / "configs").mkdir(exist_ok=True)
            links[arm.name, seed] = path = f"configs/{arm.folder}-seed-{seed}.json"
            write_whole(output / path, at_home(source.read_text()))
    return links


def at_home(text: str) -> str:
    """JSON in which paths below the home folder begin with ~, as a report goes to others. The
    programs read them so."""
    return text.replace(json.dumps(f"{Path.home()}/")[:-1], '"~/')


def facts(report: Report) -> dict:
    """All of it for a machine."""
    return {
        "study": report.study.name,
        "scale": report.plan.scale,
        "plan": asdict(report.plan),
        "verdicts": verdicts(report),
        "comparisons": [
            {
                "budget": one.budget,
                "metric": one.metric.name,
                "cells": {line.arm.name: line.said for line in one.lines},
                "judged": one.judged and asdict(one.judged),
            }
            for one in report.comparisons
        ],
        "runs": [
            {"cell": one.run.arm.name, "seed": one.run.seed, "status": one.status, "why": one.why,
             "scores": dict(one.scores), "curve": [asdict(point) for point in one.curve]}
            for one in report.found
        ],
    }  # fmt: skip


if __name__ == "__main__":
    with cli.guarded():
        main(sys.argv[1:])
