"""Where the examples of pairs begin and end: a split cut into spans of sentences once.

Tables are two or three bytes an example, and are made a block of rows at a time: the index of a
split may be much larger than memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from bert_jax.data.offsets import Offsets
from bert_jax.data.records import Rows
from bert_jax.data.units import Units

_ROWS = 1 << 15  # cut at once
KEPT = 1 << 26  # bytes of rows that stay in memory: all of a corpus of 150 MB of text


class Text:
    """The tokens of a split as one long text, each addressed by its number in it."""

    def __init__(self, rows: Rows):
        self.rows, self.index = rows, rows.index
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEPT

    def __reduce__(self):
        return Text, (self.rows,)  # in another process the index is mapped again, not sent

    def read(self, starts: Int[np.ndarray, "n"], sizes: Int[np.ndarray, "n"]) -> np.ndarray:
        """The ids of n stretches of tokens, one stretch after the other in a single array."""
        ends, index = starts + sizes, self.index
        borders = np.concatenate([starts, ends - (sizes > 0)])
        first, last = np.split(index.records.piece_at(index.sentences.piece_at(borders)), 2)
        owner, step = count_out(np.where(sizes > 0, last + 1 - first, 0))
        # What is cut from the same record, as A and B mostly are, is read once.
        needed, places = np.unique(first[owner] + step, return_inverse=True)
        tokens = self._records(needed)
        record_starts = index.sentences[index.records[needed]][places]
        begins = np.maximum(starts[owner] - record_starts, 0)
        stops = ends[owner] - record_starts  # a slice ends at the record's end in any case
        cuts = zip(places.tolist(), begins.tolist(), stops.tolist(), strict=True)
        return np.concatenate([tokens[place][begin:stop] for place, begin, stop in cuts])

    def _records(self, numbers: Int[np.ndarray, "n"]) -> list[np.ndarray]:
        """The ids of each record. The first that are read are kept, while there is room: examples
        come in random order, so any others would be asked for as often."""
        kept = self._kept
        missing = [number for number in numbers.tolist() if number not in kept]
        read = dict(zip(missing, self.rows.records(np.array(missing, int)), strict=True))
        found = [kept[n] if n in kept else read[n] for n in numbers.tolist()]
        for number, tokens in read.items():
            if tokens.nbytes <= self._room:
                kept[number] = tokens
                self._room -= tokens.nbytes
        return found

    def row_of(self, tokens: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        return self.index.rows.piece_at(self.index.sentences.piece_at(tokens))

    def row_start(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The first token of each row."""
        return self.index.sentences[self.index.rows[rows]]


@dataclass(frozen=True)
class Spans:
    """One entry an example. `starts` are the units that they begin with, in ascending order;
    they end where the next begins or, of pairs, after the second at the latest."""

    starts: Offsets
    one_sentence: int  # how many there are of a single unit
    pairs: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    def at(
        self, examples: Int[np.ndarray, "*B"], units: Units
    ) -> tuple[Int[np.ndarray, "*B"], Int[np.ndarray, "*B"], Int[np.ndarray, "*B"]]:
        """Row, first and last-plus-one unit of each example."""
        starts = self.starts[examples]
        rows = units.row_of(starts)
        if self.pairs:
            return rows, starts, np.minimum(starts + 2, units.row_ends(rows))
        return rows, starts, starts + self.starts.lengths[examples]


def cut_spans(units: Units, tokens: int) -> Spans:
    """Cut every row into spans of at least two units and about `tokens` tokens: units are added
    until both are reached, as sentences are in BERT's released code. What is left at a row's end
    is a shorter span, or joins the one before where it is a single unit."""
    counts = []
    for starts, row_ends, offsets in _blocks(units):
        found = []
        while len(starts):  # of all rows together: their first spans, then their second ones
            ends = np.searchsorted(offsets, offsets[starts] + tokens)
            ends = np.minimum(np.maximum(ends, starts + 2), row_ends)
            ends = np.where(row_ends - ends == 1, row_ends, ends)
            found.append(starts)
            more = ends < row_ends
            starts, row_ends = ends[more], row_ends[more]
        counts.append(_distances(np.sort(np.concatenate(found)), len(offsets) - 1))
    distances = np.concatenate(counts)
    return Spans(Offsets(distances), int(np.count_nonzero(distances == 1)))


def cut_sentence_pairs(units: Units) -> Spans:
    """Cut every row into pairs of units. The last of an odd number is paired with the one
    before it, which is then in two pairs: alone it could have no true continuation."""
    counts, alone = [], 0
    for row_starts, row_ends, offsets in _blocks(units):
        rows, number = count_out((row_ends - row_starts + 1) // 2)
        starts = np.minimum(row_starts[rows] + 2 * number, row_ends[rows] - 2)
        counts.append(_distances(np.maximum(starts, row_starts[rows]), len(offsets) - 1))
        alone += int(np.count_nonzero(row_ends - row_starts == 1))
    return Spans(Offsets(np.concatenate(counts)), alone, pairs=True)


def count_out(
    counts: Integer[np.ndarray, "n"],
) -> tuple[Int[np.ndarray, "total"], Int[np.ndarray, "total"]]:
    """For counts [2, 0, 3]: owners [0, 0, 2, 2, 2] and numbers [0, 1, 0, 1, 2]."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]


def _blocks(units: Units) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of some rows after the other: first and last-plus-one unit of each row, and the offsets of
    the units in tokens, all counted from the block's own beginning."""
    counts, begin = units.index.row_sentences, 0
    for row in range(0, len(counts), _ROWS):
        row_ends = np.cumsum(counts[row : row + _ROWS], dtype=np.int64)
        offsets, numbers = units.offsets(begin, begin + int(row_ends[-1]))
        begin += int(row_ends[-1])
        ends = numbers[row_ends]
        yield np.concatenate([[0], ends[:-1]]), ends, offsets


def _distances(starts: Int[np.ndarray, "n"], end: int) -> Integer[np.ndarray, "n"]:
    return np.diff(starts, append=end).astype(np.uint16)  # a row has at most 4,096 units
