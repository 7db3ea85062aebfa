"""A run as a sequence of phases, each with a length, a batch and K of its own."""

import re
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from bert_jax.data.config import DataConfig
from bert_jax.errors import UserError

_FORM = "STEPS:LENGTH:BATCH:K, STEPS a number or a share as in 90%, the others empty for data.*"


class Phase(NamedTuple):
    """Steps begin to begin + steps − 1, counted from 0, with the sizes of `data`."""

    begin: int
    steps: int
    data: DataConfig


def phases(config: DataConfig, steps: int) -> tuple[Phase, ...]:
    """The phases of a run of `steps`: what config.phases says, or one with the sizes of `config`.

    A phase with a share of the steps ends at the whole step at or before it; one that is left
    without a step is none. Raises UserError.
    """
    single = replace(config, phases="")
    if not config.phases.strip():
        return (Phase(0, steps, single),)
    parts = [_parse(text) for text in config.phases.split()]
    if len({text.endswith("%") for text, _ in parts}) > 1:
        raise _wrong(config, "all steps are numbers, or all are shares")
    amounts = [Fraction(text.rstrip("%")) for text, _ in parts]
    if parts[0][0].endswith("%"):
        if sum(amounts) != 100:
            raise _wrong(config, f"the shares add up to {float(sum(amounts)):g}%, not to 100%")
        amounts = [steps * amount / 100 for amount in amounts]
    elif sum(amounts) != steps:
        raise _wrong(config, f"its steps add up to {sum(amounts)}, and train.steps={steps}")
    borders = [int(amount) for amount in accumulate(amounts, initial=Fraction(0))]
    return tuple(
        Phase(begin, end - begin, replace(single, **sizes))
        for (begin, end), (_, sizes) in zip(pairwise(borders), parts, strict=True)
        if end > begin
    )


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """'90%:128:256:20' to its steps and the fields of DataConfig that it sets."""
    amount, *sizes = text.split(":")
    numbers = all(re.fullmatch(r"\d*", size) for size in sizes)
    if len(sizes) > 3 or not numbers or not re.fullmatch(r"\d+|\d+(\.\d+)?%", amount):
        raise UserError(f"data.phases: {text!r} is not {_FORM}")
    names = ("sequence_length", "batch_size", "max_predictions")
    return amount, {name: int(size) for name, size in zip(names, sizes, strict=False) if size}


def _wrong(config: DataConfig, what: str) -> UserError:
    return UserError(f"data.phases={config.phases!r}: {what}")
