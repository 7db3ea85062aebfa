"""A study at a scale as the runs that it is: arms, each a cell under a budget, times seeds.

What is fair stands here. All arms have one tokenizer and corpus. Where a budget is shared, the
baseline's steps say how large it is, and every other arm gets the steps that use it up: FLOPs as
flops.py counts them, tokens and wall time as they were calibrated once. Steps are frozen in
plan.json, and so are a run's in its config.json; warm-up is a share of them and the schedule ends
at the last one.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bert_jax.config import differences, flat
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from experiments.grid import Cell, Value
from experiments.recipes import (
    cell_settings,
    config_of,
    in_steps,
    preset,
    recipes,
    total_flops,
)
from experiments.study import Scale, Study

FILE = "plan.json"
CALIBRATION_STEPS = 60


@dataclass(frozen=True)
class Rate:
    """What a calibration found of a cell: real tokens a step, steps a second, and the seconds that
    its start, compilation and end took beside the steps."""

    tokens: float
    steps_per_second: float
    aside: float = 0.0


@dataclass(frozen=True)
class Arm:
    """A cell under the budgets that it is compared in: of the baseline, all. `settings`: what
    differs from the preset `config`. `flops`: of all steps."""

    name: str
    cell: str
    folder: str
    budgets: tuple[str, ...]
    config: str
    settings: Mapping[str, Value]
    steps: int
    flops: float


@dataclass(frozen=True)
class Plan:
    """`asked`: what the numbers of steps follow from, to see that a plan is still of its study."""

    study: str
    scale: str
    baseline: str  # the arm's name
    arms: tuple[Arm, ...]
    seeds: int
    asked: Mapping[str, Any]
    calibration: Mapping[str, Rate] = field(default_factory=dict)  # by cell
    corpus: str = ""  # the prepared folder, and the digest of what it was made of
    corpus_sha256: str = ""
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)  # finetune's words, by name
    jobs: int = 1  # runs at a time, each on its part of the cores

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def of_budget(self, budget: str) -> list[Arm]:
        """Those that are compared under it, the baseline first."""
        return [arm for arm in self.arms if budget in arm.budgets]


def build(
    study: Study,
    scale_name: str,
    given: Mapping[str, Value],
    seeds: int,
    calibration: Mapping[str, Rate],
) -> Plan:
    """`given`: fields set for all cells, train.steps for the baseline. `calibration`: by cell;
    where a budget of tokens or time lacks one, the arm has the baseline's steps."""
    scale = study.scales[scale_name]
    steps = int(given.get("train.steps", scale.steps))
    if "train.steps" in given and steps < 2:
        raise UserError(f"--config.train.steps={steps}: two are the least that can be compared")
    given = {name: value for name, value in given.items() if name != "train.steps"}
    # Cells go by the length of the rows: that which was given, where one was.
    scale = replace(scale, settings={**scale.settings, **given})
    if scale.proxy and "optimizer.warmup_steps" in given:
        warmup = int(given["optimizer.warmup_steps"])
        if not 0 <= warmup < steps:
            raise UserError(
                f"--config.optimizer.warmup_steps={warmup}: must be 0 or more and below the "
                f"{steps} steps of the baseline"
            )
        scale = replace(scale, warmup=warmup / steps)
    cells = study.grid(scale)
    configs = recipes(study, scale, cells, given)
    arms: list[Arm] = []
    baseline = cells[0]
    base = _arm(study, scale, baseline, given, steps, study.budgets, baseline.name)
    arms.append(base)
    for cell in cells[1:]:
        for budget in study.budgets:
            found = _arm(study, scale, cell, given, steps, (budget,), cell.name)
            share = _share(base, found, budget, calibration)
            name = f"{cell.name}, equal {budget}" if len(study.budgets) > 1 else cell.name
            wanted = max(2, round(share * base.steps))
            arms.append(_arm(study, scale, cell, given, wanted, (budget,), name))
    asked = {
        "evaluations": scale.evaluations,
        "warmup": scale.warmup,
        "cells": configs,
        "budgets": list(study.budgets),
        "steps": {arm.name: arm.steps for arm in arms},
    }
    asked = json.loads(json.dumps(asked))
    return Plan(study.name, scale_name, base.name, tuple(arms), seeds, asked, calibration)


def _arm(
    study: Study, scale: Scale, cell: Cell, given: Mapping[str, Value], steps: int,
    budgets: tuple[str, ...], name: str,
) -> Arm:  # fmt: skip
    settings = cell_settings(study, scale, cell, given)
    if scale.proxy:
        settings |= in_steps(scale, steps) | {k: v for k, v in given.items() if k in _PACE}
    elif steps:
        own = config_of(study, scale, cell, settings)  # warm-up stays the share that it is there
        share = own.optimizer.warmup_steps / own.train.steps
        settings["train.steps"] = steps
        if "optimizer.warmup_steps" not in given:
            settings["optimizer.warmup_steps"] = min(round(share * steps), steps - 1)
    config = config_of(study, scale, cell, settings)
    before = flat(preset(study, scale, cell.family).to_dict())
    differs = {key: value for key, value in settings.items() if before[key] != value}
    family = cell.family or study.family
    return Arm(
        name, cell.name, replace(cell, name=name).folder, budgets,
        f"configs/{family}.py:{scale.preset}", differs, config.train.steps, total_flops(config),
    )  # fmt: skip


_PACE = ("train.log_every", "train.eval_every", "train.save_every")


def _share(base: Arm, arm: Arm, budget: str, rates: Mapping[str, Rate]) -> float:
    """By how much more steps than the baseline the arm uses the budget up."""
    if budget == "steps":
        return arm.steps / base.steps
    if budget == "flops":
        return (base.flops / base.steps) / (arm.flops / arm.steps)
    if base.cell not in rates or arm.cell not in rates:
        return 1.0
    mine, theirs = rates[arm.cell], rates[base.cell]
    if budget == "tokens":
        return theirs.tokens / mine.tokens
    return mine.steps_per_second / theirs.steps_per_second


MEASURED = frozenset({"tokens", "time"})  # budgets that are turned into steps by a calibration


def uncalibrated(study: Study, plan: Plan) -> list[Arm]:
    """The first arm of every cell whose steps cannot be known before it is calibrated."""
    if not MEASURED & set(study.budgets):
        return []
    found = {arm.cell: arm for arm in reversed(plan.arms) if arm.cell not in plan.calibration}
    return [found[cell] for cell in dict.fromkeys(arm.cell for arm in plan.arms) if cell in found]


def unknown(study: Study, plan: Plan) -> list[Arm]:
    """Those whose steps are the baseline's only because their cell was not calibrated."""
    cells = {arm.cell for arm in uncalibrated(study, plan)}
    return [arm for arm in plan.arms if arm.cell in cells and MEASURED >= set(arm.budgets)]


def save(plan: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FILE, json.dumps(asdict(plan), indent=1) + "\n")


def load(folder: Path) -> Plan | None:
    """The plan of a study's folder; None where there is none yet."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        arms = [Arm(**{**arm, "budgets": tuple(arm["budgets"])}) for arm in values.pop("arms")]
        rates = {name: Rate(**rate) for name, rate in values.pop("calibration").items()}
        plan = Plan(**values, arms=tuple(arms), calibration=rates)
        plan.arm(plan.baseline)
        return plan
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__} {error}); bring back a copy or delete "
            f"it, and the command that the study was begun with writes it anew"
        ) from error


def check_study(found: Plan, study: Study, folder: Path) -> None:
    """Raises UserError where the folder is of another study than its name says."""
    if found.study != study.name:
        raise UserError(
            f"{folder / FILE}: is of the study {found.study}; move it below a folder of that name"
        )


def check_same(found: Plan, now: Plan, folder: Path) -> None:
    """Raises UserError where the folder's runs are of another recipe than is asked for, and where
    a task of the same name is another."""
    for name, words in now.tasks.items():
        before = found.tasks.get(name, words)
        if list(before) != list(words):
            raise UserError(
                f"{folder}: runs were fine-tuned on {name} with --task={shlex.join(before)!r}, and "
                f"now it is {shlex.join(words)!r}: give the old one, or another --workdir"
            )
    for name, old, new in differences(found.asked, now.asked):
        raise UserError(
            f"{folder} was begun with {name}={old}, and now it is {new}: give the old value to go "
            f"on, or another --workdir"
        )
