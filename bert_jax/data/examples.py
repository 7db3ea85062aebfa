"""Rows to examples: cut once, laid out at load time.

What is done with an example in an epoch (where A ends, which B it gets, how it is shortened) is
drawn from the example's key, so every epoch sees other pairs and no order of asking changes them.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt64

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import Purpose, bits, integers, key, uniform
from bert_jax.data.layout import lay_out, shares
from bert_jax.data.records import Rows
from bert_jax.data.sentence_rows import SentenceRows
from bert_jax.data.spans import Text, count_out, cut_sentence_pairs, cut_spans
from bert_jax.data.units import Units
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.errors import UserError


@runtime_checkable
class Examples(Protocol):
    """Examples of a split, by number."""

    labels: str | None  # of pairs: 'nsp' or 'sop', as the batches' fields begin
    one_sentence: int  # how many examples are a single sentence (or a part of one)
    cut_sentences: int  # how many sentences are too long for a row, and stand in parts

    def __len__(self) -> int: ...

    def batch(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> dict[str, np.ndarray]:
        """The numbered examples as drawn under their keys: input_ids, token_type_ids, and
        segment_ids (1 on tokens, 0 on padding), int32 [B, S]; with labels also {labels}_labels
        int32 [B] and {labels}_weights float32 [B]. Of packed rows (SentenceRows) segment_ids
        count documents, and position_ids int32 [B, S] begin anew in each."""

    def left_out(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> tuple[int, int]:
        """Of the tokens that these examples are of, as drawn under their keys, how many are not
        in them, having no room; and how many there are."""


def build_examples(
    rows: Rows,
    vocabulary: Vocabulary,
    config: DataConfig,
    types: int = 2,
    short_probability: float | None = None,
) -> Examples:
    """The rows in the format of `config`. With one token type all token_type_ids are 0.

    `short_probability` replaces that of `config`; it is for pairs alone. Raises UserError where
    the split has too little for the format.
    """
    if len(rows) == 0:
        raise UserError(
            f"{rows.folder}: the {rows.split} split is empty; put a blank line between documents, "
            f"or change corpus.held_out"
        )
    if config.format in ("full-sentences", "doc-sentences"):
        return SentenceRows(rows, vocabulary, config)
    short = config.short_probability if short_probability is None else short_probability
    return SentencePairs(rows, vocabulary, config, types, short)


_ATTEMPTS = 16  # to find a document that is long enough,
_AT_ONCE = 4  # of which so many are drawn together


class Ranges(NamedTuple):
    """Tokens of a split, for each row of a batch."""

    starts: Int[np.ndarray, "B"]
    sizes: Int[np.ndarray, "B"]

    def where(self, mine: Bool[np.ndarray, "B"], others: "Ranges") -> "Ranges":
        """These where `mine`, else the others."""
        return Ranges(*(np.where(mine, a, b) for a, b in zip(self, others, strict=True)))


class SentencePairs:
    """[CLS] A [SEP] B [SEP], of two sentences each one long (sentence-pair) or of as many as
    fill the sequence, A ending after a random one (segment-pair). A sentence longer than half
    the room stands for several, its pieces (Units). What is too long together is cut as in the
    released code: from the longer of the two, in front or at the end by a coin for each token.

    What B is, by `pairs`. 'nsp' (Devlin et al. 2018, 3.1 and A.2): in half of the rows a random
    segment of another document, of whole sentences and about as long as the true B, so that the
    lengths say next to nothing of the label (in the released code they do: a random B fills the
    row where a true one ends with its document); where the row is a single sentence, always.
    'sop' (Lan et al. 2020, 3.1): in half of the rows A and B are swapped, before any length is
    fitted. 'none': what follows A. In the last two a single sentence is cut inside, at a random
    place, and one of a single token has no B: [CLS] A [SEP], of weight 0.
    """

    def __init__(
        self, rows: Rows, vocabulary: Vocabulary, config: DataConfig, types: int,
        short_probability: float,
    ):  # fmt: skip
        self._text = Text(rows)
        self._vocabulary, self._types = vocabulary, types
        self._length, self._short_probability = config.sequence_length, short_probability
        self._room = config.sequence_length - 3  # [CLS] and two [SEP]
        self._single = config.format == "sentence-pair"
        self._units = Units(rows, self._room)
        self._spans = (
            cut_sentence_pairs(self._units) if self._single else cut_spans(self._units, self._room)
        )
        self.cut_sentences = self._units.cut_sentences
        choices = {"nsp": self._next_sentence, "sop": self._sentence_order, "none": _as_it_is}
        self._pair = choices[config.pairs]
        self._cut_inside = config.pairs != "nsp"
        self.labels = None if config.pairs == "none" else config.pairs
        self.one_sentence = self._spans.one_sentence
        if config.pairs == "nsp" and rows.index.documents < 2:
            raise UserError(
                f"{rows.folder}: the {rows.split} split has fewer than two documents, and a "
                f"random segment comes from another one; put a blank line between documents, or "
                f"change corpus.held_out"
            )

    def __len__(self) -> int:
        return len(self._spans)

    def batch(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> dict[str, np.ndarray]:
        """As Examples; token_type_ids are 0 in [CLS] A [SEP] and 1 in B [SEP]. nsp_labels: 1
        for a random B. sop_labels: 1 for swapped segments."""
        a, b, rooms, labels = self._segments(examples, keys)
        a_keep, b_keep = shares(a.sizes, b.sizes, rooms)
        draw = key(keys, Purpose.TRUNCATE)
        a_starts = a.starts + _front(a.sizes - a_keep, key(draw, 0))
        b_starts = b.starts + _front(b.sizes - b_keep, key(draw, 1))
        tokens = self._text.read(
            np.stack([a_starts, b_starts], axis=1).ravel(),
            np.stack([a_keep, b_keep], axis=1).ravel(),
        )
        middles = a_keep + 1
        lasts = middles + np.where(b_keep > 0, b_keep + 1, 0)
        separators = np.arange(len(examples)), middles
        laid = lay_out(tokens, lasts, separators, self._length, self._vocabulary)
        if self._types > 1:
            after = np.arange(self._length) > middles[:, None]
            laid["token_type_ids"] = after * laid["segment_ids"]
        return laid | labels

    def left_out(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> tuple[int, int]:
        a, b, rooms, _ = self._segments(examples, keys)
        sizes = a.sizes + b.sizes
        return int(np.maximum(sizes - rooms, 0).sum()), int(sizes.sum())

    def _segments(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> tuple[Ranges, Ranges, Int[np.ndarray, "B"], dict[str, np.ndarray]]:
        """A and B before they are fitted, into how much room, and the labels."""
        rows, starts, ends = self._spans.at(examples, self._units)
        rooms, ends = self._shorten(starts, ends, keys)
        a, b, labels = self._pair(keys, *self._split(starts, ends, keys), rooms, rows)
        return a, b, rooms, labels

    def _shorten(
        self, starts: np.ndarray, ends: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Room for tokens in each row, and where its span then ends: some rows, by a draw, are
        shortened to about as many tokens, two units at the least."""
        draw, units = key(keys, Purpose.SHORT), self._units
        short = uniform(draw) < self._short_probability
        rooms = np.where(short, 2 + integers(draw, self._room - 1, counter=1), self._room)
        reached = units.first_from(units[starts] + rooms)
        return rooms, np.where(short, np.minimum(ends, np.maximum(reached, starts + 2)), ends)

    def _split(
        self, starts: np.ndarray, ends: np.ndarray, keys: np.ndarray
    ) -> tuple[Ranges, Ranges]:
        """A and the true B: cut after a unit. A single one is cut inside or, where a random B
        will come, is A as a whole."""
        draw, units = key(keys, Purpose.SPLIT), self._units
        middles = starts + 1 + integers(draw, np.maximum(ends - starts - 1, 1))
        first, middle, end = units[np.stack([starts, middles, ends])]
        if self._cut_inside:
            inside = first + 1 + integers(draw, np.maximum(end - first - 1, 1))
            middle = np.where(ends - starts == 1, inside, middle)
        return Ranges(first, middle - first), Ranges(middle, end - middle)

    def _next_sentence(
        self, keys: np.ndarray, a: Ranges, b: Ranges, rooms: np.ndarray, rows: np.ndarray
    ) -> tuple[Ranges, Ranges, dict[str, np.ndarray]]:
        alone = b.sizes == 0
        is_random = alone | (uniform(key(keys, Purpose.RANDOM_NEXT)) < 0.5)
        full = alone | (a.sizes + b.sizes >= rooms)
        wanted = np.where(full, np.maximum(rooms - a.sizes, 1), b.sizes)
        if self._single:  # the unit that the first token is of
            wanted, full = np.ones_like(wanted), np.ones_like(full)
        (drawn,) = np.nonzero(is_random)
        others = self._other_documents(rows[drawn], wanted[drawn], full[drawn], keys[drawn])
        b = Ranges(b.starts.copy(), b.sizes.copy())
        b.starts[drawn], b.sizes[drawn] = others
        weights = np.ones(len(keys), np.float32)
        return a, b, {"nsp_labels": is_random.astype(np.int32), "nsp_weights": weights}

    def _other_documents(
        self, rows: np.ndarray, wanted: np.ndarray, full: np.ndarray, keys: np.ndarray
    ) -> Ranges:
        """For each row units of another document, from a random one on: where `full`, as many as
        reach `wanted` tokens, as the true B there is of as many as fill the row; else as many as
        come nearest to that, the true B having ended with its document.

        A document (its row) that is too short for that is drawn again, _ATTEMPTS times.
        """
        draw, units, index = key(keys, Purpose.OTHER_DOCUMENT), self._units, self._text.index
        mine = index.document_of(rows)
        others = np.zeros_like(rows)
        wrong, attempt = np.arange(len(rows)), 0
        while len(wrong):  # in the end none: there are at least two documents
            counter = attempt + np.arange(_AT_ONCE)
            drawn = integers(draw[wrong, None], len(self._spans), counter)
            found, *_ = self._spans.at(drawn, units)
            right = index.document_of(found) != mine[wrong, None]
            if attempt < _ATTEMPTS:
                begins, ends = index.sentences[index.rows[np.stack([found, found + 1])]]
                right &= ends - begins >= wanted[wrong, None]
            others[wrong] = drawn[np.arange(len(wrong)), np.argmax(right, axis=1)]
            wrong, attempt = wrong[~right.any(axis=1)], attempt + _AT_ONCE
        found, starts, ends = self._spans.at(others, units)
        borders = index.rows[np.stack([found, found + 1])]
        row_begins, row_ends = units.of_sentence(borders)
        last = index.sentences[borders[1]] - wanted
        starts = starts + integers(key(draw, others), ends - starts)
        latest = units.first_from(np.maximum(last, 0) + 1) - 1
        starts = np.minimum(starts, np.maximum(latest, row_begins))
        begins = units[starts]
        ends = np.minimum(units.first_from(begins + wanted), row_ends)
        fewer = np.maximum(ends - 1, starts + 1)
        far, near = units[np.stack([ends, fewer])]
        nearer = 2 * (begins + wanted) < far + near
        return Ranges(begins, np.where(nearer & ~full, near, far) - begins)

    def _sentence_order(
        self, keys: np.ndarray, a: Ranges, b: Ranges, rooms: np.ndarray, rows: np.ndarray
    ) -> tuple[Ranges, Ranges, dict[str, np.ndarray]]:
        paired = b.sizes > 0
        swapped = paired & (uniform(key(keys, Purpose.SWAP)) < 0.5)
        labels = {"sop_labels": swapped.astype(np.int32), "sop_weights": paired.astype(np.float32)}
        return b.where(swapped, a), a.where(swapped, b), labels


def _as_it_is(
    keys: np.ndarray, a: Ranges, b: Ranges, rooms: np.ndarray, rows: np.ndarray
) -> tuple[Ranges, Ranges, dict[str, np.ndarray]]:
    return a, b, {}


def _front(excess: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]) -> np.ndarray:
    """How many of the tokens to drop are dropped in front: a coin for each (released code)."""
    owner, counter = count_out(excess)
    coins = bits(keys[owner], counter) & np.uint64(1)
    return np.bincount(owner[coins > 0], minlength=len(excess))
