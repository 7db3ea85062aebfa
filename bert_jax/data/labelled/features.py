"""Records to examples: token ids between special tokens, with their labels, as flat arrays."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Int, Shaped

from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.records import ChoiceRecord, TextRecord
from bert_jax.data.layout import shares
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.errors import UserError

_BLOCK = 1024  # records that are encoded together


@dataclass(frozen=True)
class RowFormat:
    """What a model makes of one text or two: [CLS] A [SEP] (B [SEP])."""

    max_length: int  # of a row, special tokens counted
    types: int = 2  # token types of the model; with one all token_type_ids are 0
    separators: int = 1  # between A and B; RoBERTa's released code has two: <s> A </s></s> B </s>

    def __post_init__(self):
        if self.max_length < 8:
            raise UserError(f"max_length={self.max_length}: must be 8 or more")
        if self.separators not in (1, 2):
            raise UserError(f"separators={self.separators}: must be 1, or 2 as in RoBERTa")

    def room(self, pair: bool) -> int:
        """For tokens that are not special."""
        return self.max_length - 2 - pair * self.separators


@dataclass(frozen=True, eq=False)
class Examples:
    """N examples of one task, each of `choices` rows; of the R rows T tokens, flat, in order.

    `begins` and `seconds` say where in input_ids a row and its second segment begin, the latter
    its end where there is none (or one token type); begins[R] is T. labels are int32, or float32
    of a regression: one an example [N], start and end [N 2], or, `by_token`, one a token [T].
    weights are 0 where there is nothing to learn. `owners`: the number of the record that an
    example is of, ascending. `cut`: how many records lost tokens to the room.
    """

    input_ids: Int[np.ndarray, "T"]
    seconds: Int[np.ndarray, "R"]
    begins: Int[np.ndarray, "R+1"]
    labels: Shaped[np.ndarray, "..."]
    weights: Float[np.ndarray, "..."]
    owners: Int[np.ndarray, "N"]
    pad: int
    choices: int = 1
    by_token: bool = False
    cut: int = 0

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def lengths(self) -> Int[np.ndarray, "N"]:
        """Tokens of each example's longest row."""
        rows = np.diff(self.begins).reshape(-1, self.choices)
        return rows.max(axis=1, initial=0)

    def told(self) -> str:
        """How many there are, and what of them is lost, in words."""
        return f"{len(self)} examples, {self.cut} cut"

    def row(self, number: int | np.integer) -> slice:
        """Of a row, where its tokens are in input_ids and what is by token."""
        return slice(int(self.begins[number]), int(self.begins[number + 1]))


class RowArrays(TypedDict):
    """The fields of Examples that rows alone decide."""

    input_ids: np.ndarray
    seconds: np.ndarray
    begins: np.ndarray
    pad: int


@dataclass
class Rows:
    """Rows as they are made, one after the other."""

    vocabulary: Vocabulary
    form: RowFormat
    ids: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)  # tokens of type 0

    def add(self, a: Sequence[int], b: Sequence[int] | None = None) -> int:
        """A row of what fits. Returns where its second segment begins (without: its end)."""
        words = self.vocabulary
        row = [words.cls, *a, words.sep]
        if b is not None:
            row += [words.sep] * (self.form.separators - 1)
        second = len(row)
        if b is not None:
            row += [*b, words.sep]
        self.ids.append(np.array(row, np.int32))
        self.lengths.append(len(row))
        self.firsts.append(second if self.form.types > 1 else len(row))
        return second

    def arrays(self) -> RowArrays:
        begins = np.cumsum([0, *self.lengths], dtype=np.int64)
        return {
            "input_ids": flat(self.ids, np.int32),
            "seconds": begins[:-1] + np.array(self.firsts, np.int64),
            "begins": begins,
            "pad": self.vocabulary.pad,
        }


def flat(parts: Sequence[np.ndarray], kind: type, *shape: int) -> np.ndarray:
    """One after the other, of none an empty array; `shape` of what follows the first axis."""
    return np.concatenate([np.zeros((0, *shape), kind), *parts])


def text_examples(
    records: Iterable[TextRecord], tokenizer: Tokenizer, form: RowFormat, labels: LabelSet | None
) -> Examples:
    """[CLS] A [SEP] or [CLS] A [SEP] B [SEP], an example a record; what is too long is cut at the
    end, of a pair from the longer first. `labels`: of classes; None for numbers.

    Raises UserError for a label that is not among the labels.
    """
    rows, cut = Rows(tokenizer.vocabulary, form), 0
    found: list[int | float] = []
    for block in itertools.batched(records, _BLOCK):
        found += [_target(record, labels) for record in block]
        pairs = [(record.texts[0], record.texts[1:]) for record in block]
        cut += int(_add_texts(rows, tokenizer, pairs).sum())
    return Examples(
        **rows.arrays(),
        labels=np.array(found, np.float32 if labels is None else np.int32),
        weights=np.ones(len(found), np.float32),
        owners=np.arange(len(found)),
        cut=cut,
    )


def _target(record: TextRecord, labels: LabelSet | None) -> int | float:
    if not isinstance(record.label, str):
        return record.label
    if labels is None:
        raise ValueError(f"{record.place}: a class, and no labels are given")
    return labels.id(record.label, record.place)


def choice_examples(
    records: Iterable[ChoiceRecord], tokenizer: Tokenizer, form: RowFormat
) -> Examples:
    """A row [CLS] context [SEP] choice [SEP] for each choice, cut as pairs are; labels the
    number of the right one."""
    rows, cut = Rows(tokenizer.vocabulary, form), 0
    found: list[int] = []
    choices = 1
    for block in itertools.batched(records, _BLOCK):
        choices = len(block[0].choices)
        found += [record.label for record in block]
        pairs = [(record.context, (choice,)) for record in block for choice in record.choices]
        cut_rows = _add_texts(rows, tokenizer, pairs)
        cut += int(cut_rows.reshape(-1, choices).any(axis=1).sum())
    return Examples(
        **rows.arrays(),
        labels=np.array(found, np.int32),
        weights=np.ones(len(found), np.float32),
        owners=np.arange(len(found)),
        choices=choices,
        cut=cut,
    )


def _add_texts(
    rows: Rows, tokenizer: Tokenizer, pairs: Sequence[tuple[str, tuple[str, ...]]]
) -> np.ndarray:
    """Adds a row for each text and the one or none that follows it; says which were cut."""
    first = tokenizer.encode([text for text, _ in pairs])
    second = tokenizer.encode([text for _, rest in pairs for text in rest])
    paired = bool(second)
    a = np.array([len(ids) for ids in first])
    b = np.array([len(ids) for ids in second]) if paired else np.zeros_like(a)
    a_keep, b_keep = shares(a, b, np.full_like(a, rows.form.room(paired)))
    for number, ids in enumerate(first):
        other = second[number][: b_keep[number]] if paired else None
        rows.add(ids[: a_keep[number]], other)
    return (a_keep < a) | (b_keep < b)
