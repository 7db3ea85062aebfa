"""Tagged sentences to examples: a label at each word's first token, and windows of long ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bert_jax.data.labelled.characters import encode_words
from bert_jax.data.labelled.features import Examples, RowFormat, Rows, flat
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.records import TagRecord
from bert_jax.data.tokenizers import Tokenizer


@dataclass(frozen=True, eq=False, kw_only=True)
class TagExamples(Examples):
    """`words` says of each token the number of the word that is labelled there, −1 of others:
    over all windows of a sentence every word stands once."""

    words: Int[np.ndarray, "T"]

    @property
    def sentences(self) -> int:
        return int(self.owners.max(initial=-1)) + 1

    def told(self) -> str:
        """As Examples.told."""
        return f"{self.sentences} sentences in {len(self)} windows, {self.cut} words cut"

    def by_word(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each record the values of its words, out of those of the tokens of each example
        ([S, ...], S at least the example's length; padding is passed over)."""
        found: list[list[np.ndarray]] = [[] for _ in range(self.sentences)]
        for number, owner in enumerate(self.owners):
            words = self.words[self.row(number)]
            found[owner].append(values[number][: len(words)][words >= 0])
        return [np.concatenate(parts) for parts in found]


def tag_examples(
    records: Iterable[TagRecord], tokenizer: Tokenizer, form: RowFormat, labels: LabelSet,
    overlap: int = 64,
) -> TagExamples:  # fmt: skip
    """[CLS] sentence [SEP], labelled at the first token of each word, with weight 0 elsewhere.

    A sentence that is too long stands in several windows of whole words, in order, which share up
    to `overlap` tokens (half a row at most): of these words the first half is labelled in the
    window before, the rest in the one after. Only a word longer than a row loses its last tokens,
    and is counted as cut. Raises UserError for a tag that is not among the labels.
    """
    rows, cut, room = Rows(tokenizer.vocabulary, form), 0, form.room(pair=False)
    targets, places, owners = list[np.ndarray](), list[np.ndarray](), list[int]()
    labelled = False
    for owner, record in enumerate(records):
        pieces = encode_words(tokenizer, record.words)
        cut += any(len(ids) > room for ids in pieces)
        pieces = [ids[:room] for ids in pieces]
        labelled = record.tags is not None
        tags = record.tags or ()
        ids = np.array([labels.id(tag, record.place_of(n)) for n, tag in enumerate(tags)], np.int32)
        for words in _add_windows(rows, pieces, overlap):
            target = np.zeros(len(words), np.int32)
            if labelled:
                target[words >= 0] = ids[words[words >= 0]]
            targets.append(target)
            places.append(words)
            owners.append(owner)
    words = flat(places, np.int32)
    return TagExamples(
        **rows.arrays(),
        labels=flat(targets, np.int32),
        weights=((words >= 0) & labelled).astype(np.float32),
        owners=np.array(owners, np.int64),
        by_token=True,
        cut=cut,
        words=words,
    )


def _add_windows(
    rows: Rows, pieces: Sequence[list[int]], overlap: int
) -> Iterator[Int[np.ndarray, "S"]]:
    """Adds the rows of a sentence; of each the words that are labelled in it, at their first
    tokens, −1 elsewhere."""
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    for window in cut_windows(sizes, rows.form.room(pair=False), overlap):
        numbers = np.arange(window.begin, window.end)
        rows.add([token for word in numbers.tolist() for token in pieces[word]])
        words = np.full(rows.lengths[-1], -1, np.int32)
        firsts = 1 + np.cumsum(sizes[numbers]) - sizes[numbers]  # after [CLS]
        ours = (numbers >= window.first) & (numbers < window.last)
        words[firsts[ours]] = numbers[ours]
        yield words


class Window(NamedTuple):
    """Words `begin` to `end` − 1, of which `first` to `last` − 1 are labelled here."""

    begin: int
    end: int
    first: int
    last: int


def cut_windows(sizes: Int[np.ndarray, "words"], room: int, overlap: int) -> Iterator[Window]:
    """Windows of as many words as fit into `room` tokens, of words of `sizes` tokens, none larger
    than the room. Two that follow each other share words of `overlap` tokens, or half the room, at
    the most."""
    overlap = min(overlap, room // 2)
    ends = np.concatenate([[0], np.cumsum(sizes)])  # tokens before each word, and all
    begin = first = 0
    while True:
        end = int(np.searchsorted(ends, ends[begin] + room, side="right")) - 1
        if end >= len(sizes):
            yield Window(begin, len(sizes), first, len(sizes))
            return
        # The next begins so late that what it shares is small enough and one more word fits.
        least = max(ends[end] - overlap, ends[end + 1] - room)
        following = max(int(np.searchsorted(ends, least)), begin + 1)
        middle = (ends[following] + ends[end] + 1) // 2
        border = int(np.searchsorted(ends, middle))
        yield Window(begin, end, first, border)
        begin, first = following, border
