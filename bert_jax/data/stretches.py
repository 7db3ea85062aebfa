"""Where the examples without pairs begin and end, and which of them share a row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from bert_jax.data.index import Index
from bert_jax.data.offsets import Offsets
from bert_jax.data.spans import count_out

_SENTENCES = 1 << 16  # looked at at once
WINDOW = 256  # stretches that may share rows: so many, one after the other in the text
_WINDOWS = 1 << 12  # packed at once
_LEAPS = 6  # the longest is of 2⁶ steps


@dataclass(frozen=True)
class Stretches:
    """Every token of a split is in one stretch. `starts` are their first tokens, in order."""

    starts: Offsets
    one_sentence: int  # how many are one sentence, or a part of one
    cut_sentences: int  # how many sentences are too long for a stretch

    def __len__(self) -> int:
        return len(self.starts)


def cut_stretches(index: Index, tokens: int, border: int) -> Stretches:
    """Cut a split into stretches of whole sentences, each as long as fits in `tokens`, where the
    end of a document within takes the room of `border` tokens (0: a stretch ends there). A
    longer sentence is cut to `tokens`; its last part goes on with the next."""
    sizes, one_sentence, cut_sentences = [], 0, 0
    cost = border or tokens + 1  # to go on over an end
    sentence = part = 0  # with which the next stretch begins
    while sentence < len(index.sentence_lengths):
        lengths = index.sentence_lengths[sentence : sentence + _SENTENCES].astype(np.int64)
        pieces = -(-lengths // tokens)
        owner, number = count_out(pieces)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = offsets[owner] + number * tokens
        ends = np.append(starts[1:], offsets[-1:])
        borders = cost * _documents(index, sentence, len(lengths))[owner]
        # An end is as far as its tokens and the borders before it.
        following = np.searchsorted(ends + borders, starts + borders + tokens, side="right")
        chosen = _chain(following, part)

        whole = sentence + len(lengths) == len(index.sentence_lengths)
        if not whole:  # the last may go on in the next block: it is cut there
            last, chosen = chosen[-1], chosen[:-1]
        sizes.append((ends[following[chosen] - 1] - starts[chosen]).astype(np.uint16))
        one_sentence += int(np.count_nonzero(following[chosen] - chosen == 1))
        looked_at = len(lengths) if whole else owner[last]
        cut_sentences += int(np.count_nonzero(pieces[:looked_at] > 1))
        sentence, part = sentence + int(looked_at), 0 if whole else int(number[last])
    return Stretches(Offsets(np.concatenate(sizes)), one_sentence, cut_sentences)


def _documents(index: Index, sentence: int, count: int) -> Int[np.ndarray, "count"]:
    """Of `count` sentences from one on: how many documents began after the first of them."""
    first, last = index.rows.piece_at(np.array([sentence, sentence + count - 1]))
    before = sentence - index.rows[np.array([first])]  # sentences of the first row
    ends = np.cumsum(index.row_sentences[first : last + 1], dtype=np.int64) - before
    begun = np.cumsum(index.begins[first : last + 1], dtype=np.int64)
    return np.repeat(begun - begun[0], np.diff(np.minimum(ends, count), prepend=0))


def _chain(following: Int[np.ndarray, "n"], place: int) -> Int[np.ndarray, "chosen"]:
    """A place, what follows it, what follows that, up to the end: in leaps, and what was leaped
    over filled in afterwards, as Python is slow for one step at a time."""
    end = len(following)
    leaps = [np.append(following, end).astype(np.int32)]  # of 1, 2, 4, ... steps
    for _ in range(_LEAPS):
        leaps.append(leaps[-1][leaps[-1]])
    far, found = leaps.pop(), []
    while place < end:
        found.append(place)
        place = int(far[place])
    chosen = np.array(found, np.int32)
    for leap in reversed(leaps):
        chosen = np.stack([chosen, leap[chosen]], axis=1).ravel()
    return chosen[chosen < end].astype(np.int64)


@dataclass(frozen=True)
class Packing:
    """Which stretches share a row: those of row r are `members[first[r] : first[r + 1]]`, in the
    order of the text."""

    members: Integer[np.ndarray, "stretches"]
    first: Offsets

    def __len__(self) -> int:
        return len(self.first)

    @property
    def nbytes(self) -> int:
        return self.members.nbytes + self.first.nbytes

    def of(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """The stretches of each row, one row after the other, and which row each is of."""
        owner, step = count_out(self.first.lengths[rows].astype(np.int64))
        return owner, self.members[self.first[rows][owner] + step].astype(np.int64)


def pack(sizes: Integer[np.ndarray, "stretches"], room: int, more: int) -> Packing:
    """First fit, the longest first (Johnson 1973), among WINDOW stretches at a time: the rows
    are a function of the sizes alone, and neighbours in the text stay near each other. A stretch
    takes `more` of the room than its size."""
    kind = np.uint32 if len(sizes) < 2**32 else np.int64
    members, counts = [], []
    for first, part in _windows(sizes):
        bins = _first_fit(part + more * (part > 0), room)
        # By window, row and place in the text; sizes of 0 fill up the last window.
        numbers = np.flatnonzero(part.ravel() > 0)
        rows = (np.arange(len(part))[:, None] * WINDOW + bins).ravel()[numbers]
        members.append((first + numbers[np.argsort(rows, kind="stable")]).astype(kind))
        used = np.bincount(rows)
        counts.append(used[used > 0].astype(np.uint16))
    return Packing(np.concatenate(members), Offsets(np.concatenate(counts)))


def _windows(sizes: Integer[np.ndarray, "n"]) -> Iterator[tuple[int, np.ndarray]]:
    """The first stretch of each block, and the block's sizes [windows, WINDOW], 0 for none."""
    block = _WINDOWS * WINDOW
    for first in range(0, len(sizes), block):
        part = sizes[first : first + block]
        yield first, np.pad(part, (0, -len(part) % WINDOW)).reshape(-1, WINDOW).astype(np.int32)


def _first_fit(sizes: Int[np.ndarray, "W n"], room: int) -> Int[np.ndarray, "W n"]:
    """For each stretch of each window, which of the window's rows it is in."""
    windows = np.arange(len(sizes))
    order = np.argsort(-sizes, axis=1, kind="stable")
    bins = np.zeros_like(order)
    left = np.full((len(sizes), 1), room, np.int32)
    for column in order.T:  # of all windows together: their longest, then their second longest
        size = sizes[windows, column]
        fits = left >= size[:, None]
        if not fits.any(axis=1).all():
            left = np.pad(left, ((0, 0), (0, 16)), constant_values=room)
            fits = left >= size[:, None]
        chosen = np.argmax(fits, axis=1)
        bins[windows, column] = chosen
        left[windows, chosen] -= size
    return bins
