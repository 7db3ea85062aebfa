"""The config of every cell of a study: its preset, what the scale and the cell set, and what was
given for all. No cell has a tokenizer or a corpus of its own, or too few slots for its rate."""

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import RunConfig, flat, from_mapping, nearest, to_mapping
from bert_jax.errors import UserError
from bert_jax.objectives import build_objective
from bert_jax.training.flops import Pass, train_flops
from configs.common import differing
from experiments.grid import Cell, Value
from experiments.study import TOKENIZER, Scale, Study


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
    warmup = max(1, round(scale.warmup * steps)) if scale.warmup else 0
    return {
        "train.steps": steps,
        "train.log_every": max(1, steps // 100),
        "train.eval_every": every,
        "train.save_every": every,
        "optimizer.warmup_steps": min(warmup, steps - 1),
    }


def recipes(
    study: Study, scale: Scale, cells: Sequence[Cell], given: Mapping[str, Value]
) -> dict[str, dict[str, Any]]:
    """The whole config of each cell, by its name. Raises UserError where what was given for all of
    them is what the study varies, or leaves two the same."""
    for name in given:
        if len({cell.settings[name] for cell in cells if name in cell.settings}) > 1:
            raise UserError(f"--config.{name}: is what {study.name} varies; leave it out")
    seen: dict[str, str] = {}
    found = {}
    for cell in cells:
        config = config_of(study, scale, cell, cell_settings(study, scale, cell, given))
        found[cell.name] = to_mapping(config)
        key = json.dumps(found[cell.name], sort_keys=True)
        if key in seen:
            raise UserError(
                f"{study.name}: {seen[key]} and {cell.name} are the same with "
                f"{', '.join(f'--config.{name}' for name in given)}; leave out what is varied"
            )
        seen[key] = cell.name
        check_slots(study, cell, config)
    return found


def check_slots(study: Study, cell: Cell, config: RunConfig) -> None:
    """Raises UserError where rows have too few slots for what a rate chooses: cells would be of
    lower rates than their names."""
    for phase in config.phases:
        wanted = math.floor(phase.data.mask_rate * phase.data.sequence_length)
        if phase.data.max_predictions < wanted:
            raise UserError(
                f"{study.name}, {cell.name}: data.max_predictions={phase.data.max_predictions} has "
                f"no room for data.mask_rate={phase.data.mask_rate} of "
                f"data.sequence_length={phase.data.sequence_length}: set it to {wanted + 1} or more"
            )


def shortest_row(study: Study, scale: Scale, given: Mapping[str, Value]) -> int:
    """Tokens of the shortest rows that any cell is trained on: no position beyond them is trained
    in all cells."""
    given = {name: value for name, value in given.items() if name != "train.steps"}
    configs = [
        config_of(study, scale, cell, cell_settings(study, scale, cell, given))
        for cell in study.grid(scale)
    ]
    return min(phase.data.sequence_length for one in configs for phase in one.phases)
