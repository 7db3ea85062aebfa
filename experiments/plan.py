"""A study at a scale as the runs that it is: arms, each a cell under a budget, times seeds.

What is fair stands here. All arms have one tokenizer and corpus. Where a budget is shared, the
baseline's steps say how large it is, and every other arm gets the steps that use it up: FLOPs as
flops.py counts them, tokens and wall time as they were calibrated once. Steps are frozen in
plan.json, and so are a run's in its config.json; warm-up is a share of them and the schedule ends
at the last one.
"""

import importlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import RunConfig, differences, flat, from_mapping, nearest, to_mapping
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.objectives import build_objective
from bert_jax.training.flops import Pass, train_flops
from configs.common import differing
from experiments.grid import Cell, Value
from experiments.study import TOKENIZER, Scale, Study

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

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def of_budget(self, budget: str) -> list[Arm]:
        """Those that are compared under it, the baseline first."""
        return [arm for arm in self.arms if budget in arm.budgets]


def overrides(words: Sequence[str], like: ConfigDict) -> dict[str, Value]:
    """--config.FIELD=VALUE of a command line, as the values that the config has. Raises UserError
    for a field that does not exist and a value that cannot be."""
    known, found = flat(like.to_dict()), dict[str, Value]()
    for word in words:
        name, equals, text = word.removeprefix("--config.").partition("=")
        if not word.startswith("--config.") or not equals:
            raise UserError(f"{word!r}: not expected here; fields are --config.FIELD=VALUE")
        if name == "seed":
            raise UserError("--config.seed: a study has seeds from 0 on; say how many with --seeds")
        if name not in known:
            raise UserError(f"--config.{name}: there is no such field; {nearest(name, [*known])}")
        kind = type(known[name])
        try:
            truth = {"true": True, "false": False}
            found[name] = truth[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UserError(f"--config.{name}={text}: must be of type {kind.__name__}") from None
    return found


# RoBERTa's positions begin behind the padding's id, so the offset goes with the vocabulary.
_SAME = ("corpus.", "model.vocab_size", "model.position_offset")


def preset(study: Study, scale: Scale, family: str = "") -> ConfigDict:
    return importlib.import_module(f"configs.{family or study.family}").get_config(scale.preset)


def cell_settings(
    study: Study, scale: Scale, cell: Cell, given: Mapping[str, Value]
) -> dict[str, Value]:
    """All that the cell's runs have in common but their steps; what was given wins, and no cell
    has a tokenizer or corpus of its own."""
    corpus = {name: value for name, value in TOKENIZER.items() if scale.proxy}
    settings = {**scale.settings, **cell.settings, **corpus, **given}
    shared = flat(preset(study, scale).to_dict()) | dict(scale.settings) | corpus | dict(given)
    return settings | {name: shared[name] for name in shared if name.startswith(_SAME)}


def config_of(
    study: Study, scale: Scale, cell: Cell, settings: Mapping[str, Value]
) -> RunConfig:  # fmt: skip
    """Raises UserError, which names the cell, where its config cannot be."""
    try:
        config = differing(preset(study, scale, cell.family), settings)
        return from_mapping(config.to_dict())
    except UserError as error:
        raise UserError(f"{study.name}, {cell.name}: {error}") from error


def total_flops(config: RunConfig) -> float:
    """Of all steps of a run."""
    objective = build_objective(config.objective, config.model, config.generator)
    found = 0.0
    for phase in config.phases:
        length, slots = phase.data.sequence_length, phase.data.max_predictions
        passes = [Pass(*one) for one in objective.passes(config.model, length, slots)]
        found += float(train_flops(passes, length)) * phase.data.batch_size * phase.steps
    return found


def in_steps(scale: Scale, steps: int) -> dict[str, Value]:
    """What goes by the number of steps."""
    every = max(1, steps // scale.evaluations)
    return {
        "train.steps": steps,
        "train.log_every": max(1, steps // 100),
        "train.eval_every": every,
        "train.save_every": every,
        "optimizer.warmup_steps": min(max(1, round(scale.warmup * steps)), steps - 1),
    }


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
    cells = study.grid(scale)
    check_vary(study, scale, cells, given)
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
        "cells": {cell.name: cell_settings(study, scale, cell, given) for cell in cells},
        "budgets": list(study.budgets),
        "steps": base.steps,
    }
    asked = json.loads(json.dumps(asked))
    return Plan(study.name, scale_name, base.name, tuple(arms), seeds, asked, calibration)


def check_vary(
    study: Study, scale: Scale, cells: Sequence[Cell], given: Mapping[str, Value]
) -> None:
    """Raises UserError where what was given for all cells is what the study varies, or leaves two
    of them the same."""
    for name in given:
        if len({cell.settings[name] for cell in cells if name in cell.settings}) > 1:
            raise UserError(f"--config.{name}: is what {study.name} varies; leave it out")
    seen: dict[str, str] = {}
    for cell in cells:
        config = config_of(study, scale, cell, cell_settings(study, scale, cell, given))
        key = json.dumps(to_mapping(config), sort_keys=True)
        if key in seen:
            raise UserError(
                f"{study.name}: {seen[key]} and {cell.name} are the same with "
                f"{', '.join(f'--config.{name}' for name in given)}; leave out what is varied"
            )
        seen[key] = cell.name


def shortest_row(study: Study, scale: Scale, given: Mapping[str, Value]) -> int:
    """Tokens of the shortest rows that any cell is trained on: no position beyond them is trained
    in all cells."""
    given = {name: value for name, value in given.items() if name != "train.steps"}
    configs = [
        config_of(study, scale, cell, cell_settings(study, scale, cell, given))
        for cell in study.grid(scale)
    ]
    return min(phase.data.sequence_length for one in configs for phase in one.phases)


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


_PACE = ("train.log_every", "train.eval_every", "train.save_every", "optimizer.warmup_steps")


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
