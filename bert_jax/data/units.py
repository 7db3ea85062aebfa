"""What pairs are made of: sentences, and the pieces of those that are too long for a row."""

import numpy as np
from jaxtyping import Int

from bert_jax.data.index import Index
from bert_jax.data.records import Rows

_BLOCK = 1 << 20  # sentences looked at at once


class Units:
    """The units of a split, numbered in the order of the text. A sentence of more than half the
    `room` of a row, in tokens, is cut evenly into as few pieces as are no longer than that; every
    other sentence is one unit. So any two make a pair of which nothing is left out: of longer
    ones the same ends would be cut off in every epoch.

    Beside the index, 24 bytes a sentence that is cut.
    """

    def __init__(self, rows: Rows, room: int):
        self._rows = rows  # pickles as its path
        lengths = self.index.sentence_lengths
        # Before all that are cut stands a sentence −1, of the single unit −1.
        cut, pieces = [np.full(1, -1)], [np.ones(1, np.int64)]
        for begin in range(0, len(lengths), _BLOCK):
            (long,) = np.nonzero(lengths[begin : begin + _BLOCK] > room // 2)
            cut.append(begin + long)
            pieces.append(-(-lengths[begin + long].astype(np.int64) // (room // 2)))
        self._cut, self._pieces = np.concatenate(cut), np.concatenate(pieces)
        # Units that they begin with: each before is more units than its one sentence.
        self._firsts = self._cut + np.cumsum(self._pieces - 1) - (self._pieces - 1)

    @property
    def index(self) -> Index:
        return self._rows.index

    def __len__(self) -> int:
        return int(self.of_sentence(np.array([len(self.index.sentence_lengths)]))[0])

    @property
    def cut_sentences(self) -> int:
        return len(self._cut) - 1

    def __getitem__(self, units: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The first token of each; of len(self) where the last one ends."""
        sentences, piece, pieces = self._locate(units)
        found = self.index.sentences[sentences]
        inner = piece > 0
        lengths = self.index.sentence_lengths[sentences[inner]].astype(np.int64)
        found[inner] += piece[inner] * lengths // pieces[inner]
        return found

    def first_from(self, tokens: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """The first unit that begins there or later; len(self) where there is none."""
        sentences = self.index.sentences.first_from(tokens)
        found = self.of_sentence(sentences)
        # It may be a piece of the sentence before.
        place = np.searchsorted(self._cut, sentences) - 1
        (maybe,) = np.nonzero((place > 0) & (self._cut[place] == sentences - 1))
        before, place = sentences[maybe] - 1, place[maybe]
        inside = tokens[maybe] - self.index.sentences[before]
        lengths = self.index.sentence_lengths[before].astype(np.int64)
        pieces = self._pieces[place]
        found[maybe] = self._firsts[place] + np.minimum(-(-inside * pieces // lengths), pieces)
        return found

    def of_sentence(self, sentences: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The unit that each sentence begins with."""
        place = np.searchsorted(self._cut, sentences) - 1  # the last before it that is cut
        return sentences - self._cut[place] + self._firsts[place] + self._pieces[place] - 1

    def row_of(self, units: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        return self.index.rows.piece_at(self._locate(units)[0])

    def row_ends(self, rows: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The unit after each row's last."""
        return self.of_sentence(self.index.rows[rows + 1])

    def offsets(self, begin: int, end: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
        """Of the sentences from `begin` to `end`: tokens before each of their units and after
        the last, and units before each sentence and after the last, both from 0."""
        lengths = self.index.sentence_lengths[begin:end].astype(np.int64)
        tokens = np.concatenate([[0], np.cumsum(lengths)])
        first, last = np.searchsorted(self._cut, [begin, end])
        counts = np.ones(len(lengths) + 1, np.int64)
        counts[self._cut[first:last] - begin] = self._pieces[first:last]
        units = np.concatenate([[0], np.cumsum(counts[:-1])])
        if first == last:
            return tokens, units
        owner = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(owner)) - units[owner]
        inner = number * np.append(lengths, 0)[owner] // counts[owner]
        return tokens[owner] + inner, units

    def _locate(
        self, units: Int[np.ndarray, "*k"]
    ) -> tuple[Int[np.ndarray, "*k"], Int[np.ndarray, "*k"], Int[np.ndarray, "*k"]]:
        """The sentence of each, which piece of it (0: its first, or all of it), and of how many
        where it is another."""
        place = np.searchsorted(self._firsts, units, side="right") - 1  # the last that is cut
        number, pieces = units - self._firsts[place], self._pieces[place]
        sentences = self._cut[place] + np.maximum(number - pieces + 1, 0)
        return sentences, number * (number < pieces), pieces
