"""What the tasks share: a model on one device, rows through it by length, windows put together."""

import abc
import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from bert_jax.data.labelled.batches import form_batch
from bert_jax.data.labelled.features import Examples, RowFormat
from bert_jax.data.labelled.windows import windowed_texts
from bert_jax.errors import UserError
from bert_jax.kinds import rows_of
from bert_jax.predictions import lines
from bert_jax.predictions.lines import Line
from bert_jax.pretrained import Pretrained
from bert_jax.tasks.base import FineTuning, Task

BATCH = 32  # rows at the most
# Places of a batch on a CPU, where more are no faster, and what only fills a batch costs what the
# rest costs.
_PLACES = 1024
LONG = ("mean", "max", "first")

Forward = Callable[[nnx.State, dict[str, Any]], Array]  # of a batch
Fields = Callable[[Int[np.ndarray, "B"]], dict[str, np.ndarray]]


class Asked(abc.ABC):
    """A task of predict. The docstring of each is what its --help prints."""

    blank = False  # whether a blank line is a request, else it is passed over

    @staticmethod
    @abc.abstractmethod
    def add_flags(parser: argparse.ArgumentParser) -> None: ...

    @abc.abstractmethod
    def __init__(self, arguments: argparse.Namespace):
        """Loads the model, on the current mesh. Raises UserError where it cannot do the task."""

    @staticmethod
    def given(texts: Sequence[str]) -> list[Line]:
        """The words of the command line as lines that could have come on stdin."""
        return lines.arguments(texts)

    @abc.abstractmethod
    def read(self, line: Line) -> Any:
        """Raises UserError, which names the line, for one that is no request."""

    @abc.abstractmethod
    def answer(self, requests: list[Any]) -> Iterable[dict[str, Any]]:
        """An answer each, in order."""


@functools.cache  # said once
def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def row_form(source: Pretrained, longest: int = 0) -> RowFormat:
    """Rows of `longest` tokens; 0 for as many as the model has positions, the most there can be."""
    most = source.config.max_positions
    return rows_of(source.config, min(longest or most, most))


def no_fields(numbers: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    return {}


def outputs(
    source: Pretrained, forward: Forward, examples: Examples, fields: Fields = no_fields
) -> list[np.ndarray]:
    """What `forward` gives for each example, in order.

    Each row is padded to the shortest length that it fits, and goes through in a batch of that
    length: what is said of a text does not depend on what stands around it, but for how products
    of more rows or fewer are rounded. `fields`: what a batch has beside the encoder's own. Raises
    UserError for outputs that are not finite.
    """
    platform = jax.default_backend()
    lengths = lengths_to(source.config.max_positions, platform)
    bucket = np.searchsorted(lengths, examples.lengths)
    found: list[np.ndarray] = [np.empty(0)] * len(examples)
    for place, length in enumerate(lengths):
        for numbers in batched(np.flatnonzero(bucket == place), length, platform):
            batch = form_batch(examples, numbers, length) | fields(numbers)
            batch["rows"] = np.arange(len(numbers), dtype=np.int32)
            values = jax.device_get(forward(source.parameters, batch))
            mine = numbers[numbers >= 0].tolist()
            if not np.isfinite(values[: len(mine)]).all():
                raise UserError(
                    f"{source.name}: its parameters are not finite: the run had diverged"
                )
            for number, value in zip(mine, values, strict=False):
                found[number] = value
    return found


def lengths_to(longest: int, platform: str) -> list[int]:
    """Of rows, ascending; each is compiled. On a CPU there are more of them, as padding costs time
    there."""
    doubled = (2**power for power in itertools.count(4 if platform == "cpu" else 5))
    lengths = list(itertools.takewhile(lambda length: length < longest, doubled))
    if platform == "cpu":
        between = [3 * length // 2 for length in lengths[1:]]
        lengths = sorted(lengths + [length for length in between if length < longest])
    return [*lengths, longest]


def batched(
    members: Int[np.ndarray, "n"], length: int, platform: str
) -> Iterator[Int[np.ndarray, "_"]]:
    """Parts of `members`, filled up with −1: of two sizes at most, as each is compiled.

    On an accelerator all have BATCH rows, as few take as long as many. On a CPU a row costs what it
    costs: what is less than half of a batch goes through row by row.
    """
    size = max(1, min(BATCH, _PLACES // length)) if platform == "cpu" else BATCH
    for begin in range(0, len(members), size):
        mine = members[begin : begin + size]
        if platform == "cpu" and 2 * len(mine) < size:
            yield from mine[:, None]
            continue
        numbers = np.full(size, -1)
        numbers[: len(mine)] = mine
        yield numbers


def logits_of(source: Pretrained, task: Task) -> Forward:
    """The logits of the head of that task."""
    learned = FineTuning(task)
    return jax.jit(lambda parameters, batch: learned.logits(source.module(parameters), batch))


def windows(
    source: Pretrained, texts: Sequence[tuple[str, ...]], long: str, form: RowFormat
) -> Examples:
    """The rows of the texts; where --long=first the first window of each alone."""
    examples = windowed_texts(texts, source.tokenizer, form, most=2 if long == "first" else 0)
    counts = np.bincount(examples.owners, minlength=len(texts))
    if (counts > 1).any():
        done = {
            "first": "only the first such part of it is read",
            "mean": "it is read in parts, and their outputs are averaged",
            "max": "it is read in parts, and of their outputs the largest counts",
        }
        note(
            f"a text is longer than the model's {form.max_length} positions: {done[long]} "
            f"(--long={long})"
        )
    return examples


def put_together(
    values: Sequence[Float[np.ndarray, "C"]], examples: Examples, texts: int, long: str,
    largest: Callable[[Float[np.ndarray, "W C"]], Float[np.ndarray, "C"]],
) -> list[Float[np.ndarray, "C"]]:  # fmt: skip
    """Of each text one vector out of those of its windows: their mean by their lengths, what
    `largest` makes of them, or the first."""
    borders = np.searchsorted(examples.owners, np.arange(texts + 1))
    found = []
    for begin, end in itertools.pairwise(borders):
        mine = np.stack(values[begin:end]).astype(np.float64)
        if long == "first" or end - begin == 1:
            found.append(mine[0])
        elif long == "max":
            found.append(largest(mine))
        else:
            found.append(np.average(mine, axis=0, weights=examples.lengths[begin:end]))
    return found


def add_long(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--long", choices=LONG, default="mean",
        help="what is made of the parts of a text that is longer than the model's positions",
    )  # fmt: skip
