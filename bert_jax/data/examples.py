"""Rows to examples: segment pairs, cut and paired at load time.

An example is a span of whole sentences of one row, long enough to fill the sequence. What is
done with it in an epoch (where A ends, whether B is random, how it is shortened) is drawn from
the example's key, so every epoch sees other pairs and no order of asking changes them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from bert_jax.data.draws import Purpose, bits, integers, key, uniform
from bert_jax.data.records import Index, Rows
from bert_jax.data.tokenizers import CLS, PAD, SEP
from bert_jax.errors import UserError

OVERHEAD = 3  # [CLS] and two [SEP]


@dataclass(frozen=True)
class Spans:
    """One entry an example: its row, and its first and last-plus-one sentence in the index."""

    rows: Int[np.ndarray, "examples"]
    starts: Int[np.ndarray, "examples"]
    ends: Int[np.ndarray, "examples"]

    def __len__(self) -> int:
        return len(self.rows)


def cut_spans(index: Index, tokens: int) -> Spans:
    """Cut every row into spans of at least two sentences and about `tokens` tokens: sentences
    are added until both are reached, as in BERT's released code. What is left at a row's end is
    a shorter span, or joins the one before where it is a single sentence."""
    rows: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    lengths = index.sentence_lengths.tolist()
    for row in range(len(index.row_ends)):
        sentences = index.sentences(row)
        start, size, first = int(sentences.start), 0, len(rows)
        for sentence in range(sentences.start, sentences.stop):
            size += lengths[sentence]
            if size >= tokens and sentence - start >= 1:
                rows.append(row)
                starts.append(start)
                ends.append(sentence + 1)
                start, size = sentence + 1, 0
        if start == sentences.stop:
            continue
        if sentences.stop - start == 1 and len(rows) > first:
            ends[-1] = int(sentences.stop)
        else:
            rows.append(row)
            starts.append(start)
            ends.append(int(sentences.stop))
    return Spans(np.asarray(rows), np.asarray(starts), np.asarray(ends))


class SegmentPairs:
    """[CLS] A [SEP] B [SEP] (Devlin et al. 2018, 3.1 and A.2); half of the Bs are random.

    A random B comes from another document and is built of whole sentences until it is as long
    as the true B, so that its length gives nothing away. A row of a single sentence has no true
    B and always gets a random one: `one_sentence` counts them.
    """

    def __init__(self, rows: Rows, sequence_length: int, short_probability: float):
        self._rows, self._index = rows, rows.index
        self._length, self._short_probability = sequence_length, short_probability
        self._spans = cut_spans(self._index, sequence_length - OVERHEAD)
        lengths = self._index.sentence_lengths
        # Where each sentence begins, in tokens from the first of the split.
        self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._row_ends = self._index.row_ends
        self._row_starts = np.concatenate([[0], self._row_ends[:-1]])
        documents = self._index.documents[self._spans.rows]
        if len(self._spans) == 0 or (documents == documents[0]).all():
            raise UserError(
                f"{rows.folder}: the {rows.split} split has fewer than two documents, and a "
                f"random segment comes from another one; put a blank line between documents, or "
                f"change corpus.held_out"
            )
        self.one_sentence = int(np.sum(self._spans.ends - self._spans.starts == 1))

    def __len__(self) -> int:
        return len(self._spans)

    def batch(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> dict[str, np.ndarray]:
        """The numbered examples as drawn under their keys.

        input_ids, token_type_ids (0 in [CLS] A [SEP], 1 in B [SEP]), segment_ids (1 on tokens,
        0 on padding), int32 [B, S]; nsp_labels int32 [B], 1 for a random B.
        """
        starts, ends = self._spans.starts[examples], self._spans.ends[examples]
        rooms, ends = self._shorten(starts, ends, keys)
        counts = ends - starts
        cut = 1 + integers(key(keys, Purpose.SPLIT), np.maximum(counts - 1, 1))
        splits = np.where(counts > 1, starts + cut, ends)
        is_random = (counts == 1) | (uniform(key(keys, Purpose.RANDOM_NEXT)) < 0.5)

        rows = self._spans.rows[examples]
        a_sizes = self._offsets[splits] - self._offsets[starts]
        true_sizes = self._offsets[ends] - self._offsets[splits]
        wanted = np.where(counts > 1, true_sizes, np.maximum(rooms - a_sizes, 1))
        other_rows, other_starts, other_ends = self._other_documents(rows, wanted, keys)
        b_rows = np.where(is_random, other_rows, rows)
        b_starts = np.where(is_random, other_starts, splits)
        b_ends = np.where(is_random, other_ends, ends)
        b_sizes = self._offsets[b_ends] - self._offsets[b_starts]

        a_keep, b_keep = _shares(a_sizes, b_sizes, rooms)
        draw = key(keys, Purpose.TRUNCATE)
        a_first = self._places(rows, starts) + _front(a_sizes - a_keep, key(draw, 0))
        b_first = self._places(b_rows, b_starts) + _front(b_sizes - b_keep, key(draw, 1))
        tokens = self._rows.read(np.concatenate([rows, b_rows]))
        a = [t[i : i + n] for t, i, n in zip(tokens, a_first, a_keep, strict=False)]
        b = [t[i : i + n] for t, i, n in zip(tokens[len(rows) :], b_first, b_keep, strict=True)]
        return _layout(a, b, self._length) | {"nsp_labels": is_random.astype(np.int32)}

    def _shorten(
        self, starts: np.ndarray, ends: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Room for tokens in each row, and where its span then ends: some rows, by a draw, are
        shortened to about as many tokens, two sentences at the least."""
        draw = key(keys, Purpose.SHORT)
        full = self._length - OVERHEAD
        short = uniform(draw) < self._short_probability
        rooms = np.where(short, 2 + integers(draw, full - 1, counter=1), full)
        reached = np.searchsorted(self._offsets, self._offsets[starts] + rooms)
        return rooms, np.where(short, np.minimum(ends, np.maximum(reached, starts + 2)), ends)

    def _other_documents(
        self, rows: np.ndarray, wanted: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each row a row of another document, and sentences of it from a random one on that
        reach `wanted` tokens, if the row has them."""
        draw = key(keys, Purpose.OTHER_DOCUMENT)
        documents = self._index.documents
        others = integers(draw, len(self._spans))
        attempt = 0
        while (same := documents[self._spans.rows[others]] == documents[rows]).any():
            attempt += 1  # ends: there are at least two documents
            others = np.where(same, integers(draw, len(self._spans), counter=attempt), others)
        starts = self._spans.starts[others]
        starts = starts + integers(key(draw, others), self._spans.ends[others] - starts)
        reached = np.searchsorted(self._offsets, self._offsets[starts] + wanted)
        other_rows = self._spans.rows[others]
        return other_rows, starts, np.minimum(reached, self._row_ends[other_rows])

    def _places(self, rows: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        """Where a sentence begins, in tokens from the first of its row."""
        return self._offsets[sentences] - self._offsets[self._row_starts[rows]]


def _shares(
    a: Int[np.ndarray, "B"], b: Int[np.ndarray, "B"], rooms: Int[np.ndarray, "B"]
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens each segment keeps: the longer gives way first (released code)."""
    half = rooms - rooms // 2
    a_keep = np.where(a + b <= rooms, a, np.minimum(a, np.maximum(rooms - b, half)))
    return a_keep, np.minimum(b, rooms - a_keep)


def _front(excess: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]) -> np.ndarray:
    """How many of the tokens to drop are dropped in front: a coin for each (released code)."""
    counter = np.arange(excess.max(initial=0))
    coins = bits(keys[:, None], counter) & np.uint64(1)
    return np.sum(coins.astype(np.int64) * (counter < excess[:, None]), axis=1)


def _layout(
    a: list[np.ndarray], b: list[np.ndarray], sequence_length: int
) -> dict[str, np.ndarray]:
    shape = (len(a), sequence_length)
    input_ids = np.full(shape, PAD, np.int32)
    token_type_ids, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, (first, second) in enumerate(zip(a, b, strict=True)):
        middle = len(first) + 2
        end = middle + len(second) + 1
        input_ids[row, 0] = CLS
        input_ids[row, 1 : middle - 1] = first
        input_ids[row, middle - 1] = SEP
        input_ids[row, middle : end - 1] = second
        input_ids[row, end - 1] = SEP
        token_type_ids[row, middle:end] = 1
        segment_ids[row, :end] = 1
    return {"input_ids": input_ids, "token_type_ids": token_type_ids, "segment_ids": segment_ids}
