"""Where examples begin and end: a split cut into spans once, before anything is drawn."""

from array import array
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from bert_jax.data.records import Index, Rows


class Text:
    """The tokens of a split as one long text, each addressed by its number in it."""

    def __init__(self, rows: Rows):
        self._rows, index = rows, rows.index
        # Where each sentence begins, and where the last one ends; then the same of rows.
        self.offsets = _offsets(index)
        self._row_offsets = self.offsets[np.concatenate([[0], index.row_ends])]

    def read(self, starts: Int[np.ndarray, "n"], sizes: Int[np.ndarray, "n"]) -> np.ndarray:
        """The ids of n stretches of tokens, one stretch after the other in a single array."""
        ends = starts + sizes
        first = np.searchsorted(self._row_offsets, starts, side="right") - 1
        last = np.searchsorted(self._row_offsets, ends, side="left")
        owner, step = count_out(np.where(sizes > 0, last - first, 0))
        rows = first[owner] + step
        begins = np.maximum(starts[owner], self._row_offsets[rows]) - self._row_offsets[rows]
        stops = np.minimum(ends[owner], self._row_offsets[rows + 1]) - self._row_offsets[rows]
        # What is cut from the same row, as A and B mostly are, is read once.
        needed, places = np.unique(rows, return_inverse=True)
        tokens = self._rows.read(needed)
        cuts = zip(places.tolist(), begins.tolist(), stops.tolist(), strict=True)
        return np.concatenate([tokens[place][begin:stop] for place, begin, stop in cuts])


@dataclass(frozen=True)
class Spans:
    """One entry an example: its row, and its first and last-plus-one sentence in the index."""

    rows: Int[np.ndarray, "examples"]
    starts: Int[np.ndarray, "examples"]
    ends: Int[np.ndarray, "examples"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def one_sentence(self) -> int:
        """How many there are of a single sentence."""
        return int(np.sum(self.ends - self.starts == 1))


@dataclass(frozen=True)
class Stretches:
    """One entry an example: its first and last-plus-one token in the split."""

    starts: Int[np.ndarray, "examples"]
    ends: Int[np.ndarray, "examples"]
    borders: Int[np.ndarray, "documents"]  # the first token of each document
    one_sentence: int  # how many examples are one sentence, or a part of one
    cut_sentences: int  # how many sentences are too long for an example

    def __len__(self) -> int:
        return len(self.starts)


def cut_spans(index: Index, tokens: int) -> Spans:
    """Cut every row into spans of at least two sentences and about `tokens` tokens: sentences
    are added until both are reached, as in BERT's released code. What is left at a row's end is
    a shorter span, or joins the one before where it is a single sentence."""
    offsets, found = _offsets(index), []
    rows, starts = np.arange(len(index.row_ends)), _row_starts(index)
    while len(rows):  # of all rows together: their first spans, then their second ones
        row_ends = index.row_ends[rows]
        ends = np.searchsorted(offsets, offsets[starts] + tokens)
        ends = np.minimum(np.maximum(ends, starts + 2), row_ends)
        ends = np.where(row_ends - ends == 1, row_ends, ends)
        found.append((rows, starts, ends))
        rows, starts = rows[ends < row_ends], ends[ends < row_ends]
    rows, starts, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(starts)
    return Spans(rows[order], starts[order], ends[order])


def cut_sentence_pairs(index: Index) -> Spans:
    """Cut every row into pairs of sentences. The last of an odd number is paired with the one
    before it, which is then in two pairs: alone it could have no true continuation."""
    row_starts, row_ends = _row_starts(index), index.row_ends
    rows, number = count_out((row_ends - row_starts + 1) // 2)
    starts = row_starts[rows] + 2 * number
    ends = np.minimum(starts + 2, row_ends[rows])
    return Spans(rows, np.maximum(ends - 2, row_starts[rows]), ends)


def cut_stretches(index: Index, tokens: int, cross: bool) -> Stretches:
    """Cut a split into stretches of whole sentences, each as long as fits in `tokens`: over the
    ends of documents, where a separator takes the place of one token more, if `cross`, else up
    to them. A longer sentence is cut to `tokens`; its last part goes on with the next."""
    offsets = _offsets(index)
    pieces = -(-index.sentence_lengths.astype(np.int64) // tokens)
    sentence, number = count_out(pieces)
    starts = offsets[sentence] + number * tokens
    ends = np.append(starts[1:], offsets[-1:])

    row_starts = _row_starts(index)
    begins = np.diff(index.documents, prepend=-1) != 0
    documents = np.repeat(np.cumsum(begins), index.row_ends - row_starts)[sentence]
    # An end is as far as its tokens and the borders before it; to cross one may cost too much.
    border = 1 if cross else tokens + 1
    following = np.searchsorted(
        ends + border * documents, starts + border * documents + tokens, side="right"
    )
    chosen = _chain(following)
    return Stretches(
        starts=starts[chosen],
        ends=ends[following[chosen] - 1],
        borders=offsets[row_starts[begins]],
        one_sentence=int(np.sum(following[chosen] - chosen == 1)),
        cut_sentences=int(np.sum(pieces > 1)),
    )


def count_out(
    counts: Integer[np.ndarray, "n"],
) -> tuple[Int[np.ndarray, "total"], Int[np.ndarray, "total"]]:
    """For counts [2, 0, 3]: owners [0, 0, 2, 2, 2] and numbers [0, 1, 0, 1, 2]."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]


def _offsets(index: Index) -> Int[np.ndarray, "sentences_and_end"]:
    return np.concatenate([[0], np.cumsum(index.sentence_lengths, dtype=np.int64)])


def _row_starts(index: Index) -> Int[np.ndarray, "rows"]:
    """The first sentence of each row."""
    return np.concatenate([[0], index.row_ends])[:-1]


def _chain(following: Int[np.ndarray, "n"]) -> Int[np.ndarray, "chosen"]:
    """0, what follows it, what follows that, up to the end."""
    steps, place, chosen = memoryview(following), 0, array("q")
    while place < len(following):
        chosen.append(place)
        place = steps[place]
    return np.array(chosen, np.int64)
