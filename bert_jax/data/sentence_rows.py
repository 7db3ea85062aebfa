"""The formats without pairs: whole sentences, one after the other (Liu et al. 2019, 4.2)."""

import numpy as np
from jaxtyping import Int, UInt64

from bert_jax.data.config import DataConfig
from bert_jax.data.layout import lay_out
from bert_jax.data.records import Rows
from bert_jax.data.spans import Text, count_out
from bert_jax.data.stretches import cut_stretches, pack
from bert_jax.data.vocabulary import Vocabulary


class SentenceRows:
    """[CLS] sentences [SEP], as many as fit.

    full-sentences goes on over the end of a document, which an extra [SEP] marks; doc-sentences
    ends there, which leaves padding: batches keep their number of rows, where the paper's grow.
    A sentence too long for a row is cut; every token of the split is in one example. Nothing is
    drawn, and no row is shortened: short rows are for pairs.

    Packed, each document in a row is [CLS] sentences [SEP] of its own: a segment that no other
    sees, its positions from 0. full-sentences still goes on in the order of the text, and fills
    a row with the beginning of the next document; doc-sentences puts its stretches together as
    they fit (`pack`), so that what was one example is one still.
    """

    labels: str | None = None

    def __init__(self, rows: Rows, vocabulary: Vocabulary, config: DataConfig):
        self._text, self._vocabulary = Text(rows), vocabulary
        self._length, self._packed = config.sequence_length, config.packing
        self._cross = config.format == "full-sentences"
        self._gap = 2 if config.packing else 1  # tokens between two documents: [SEP], or [CLS] too
        border = self._gap if self._cross else 0
        self._stretches = cut_stretches(rows.index, self._length - 2, border)
        self._packing = None
        if config.packing and not self._cross:
            self._packing = pack(self._stretches.starts.lengths, self._length, 2)
        self.cut_sentences = self._stretches.cut_sentences
        self.one_sentence = self._stretches.one_sentence

    def __len__(self) -> int:
        return len(self._stretches if self._packing is None else self._packing)

    def left_out(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> tuple[int, int]:
        return 0, int(self._pieces(examples)[2].sum())

    def batch(
        self, examples: Int[np.ndarray, "B"], keys: UInt64[np.ndarray, "B"]
    ) -> dict[str, np.ndarray]:
        """As Examples; token_type_ids are 0. Packed, segment_ids count the documents of a row,
        and position_ids int32 [B, S] begin anew in each."""
        owner, starts, sizes = self._pieces(examples)
        firsts = np.searchsorted(owner, np.arange(len(examples)))
        # The place of each piece's [SEP]: the first comes after [CLS] and its tokens.
        ends = np.cumsum(sizes + self._gap)
        ends += 1 - (ends[firsts] - sizes[firsts])[owner]
        lasts = ends[np.append(firsts[1:], len(owner)) - 1]
        begins = (owner, ends - sizes - 1) if self._packed else None
        tokens = self._text.read(starts, sizes)
        return lay_out(tokens, lasts, (owner, ends), self._length, self._vocabulary, begins)

    def _pieces(
        self, examples: Int[np.ndarray, "B"]
    ) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """What each example is made of, in order: which of them a piece is of, and its first
        token and size."""
        table = self._stretches.starts
        if self._packing is not None:
            owner, stretches = self._packing.of(examples)
            return owner, table[stretches], table.lengths[stretches].astype(np.int64)
        starts, sizes = table[examples], table.lengths[examples].astype(np.int64)
        if not self._cross:
            return np.arange(len(examples)), starts, sizes
        # Cut at each row in it that begins a document.
        ends, begins_document = starts + sizes, self._text.index.begins
        first, last = self._text.row_of(starts), self._text.row_of(ends - 1)
        owner, step = count_out(last - first)
        rows = first[owner] + 1 + step
        borders = begins_document[rows] > 0
        owner, rows = owner[borders], rows[borders]
        begins = np.concatenate([starts, self._text.row_start(rows)])
        order = np.argsort(np.concatenate([np.arange(len(examples)), owner]), kind="stable")
        owner = np.concatenate([np.arange(len(examples)), owner])[order]
        begins = begins[order]
        last_piece = np.append(owner[1:] != owner[:-1], True)
        stops = np.where(last_piece, ends[owner], np.append(begins[1:], 0))
        return owner, begins, stops - begins
