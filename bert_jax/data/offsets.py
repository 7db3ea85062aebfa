"""Where each of very many pieces begins, in little more memory than their lengths take."""

import numpy as np
from jaxtyping import Int, Integer

_STEP = 32  # of the lengths between two offsets that are kept: 8 bytes for every 32
_BLOCK = 1 << 20  # lengths added up at once


class Offsets:
    """0, l₀, l₀ + l₁, ... of lengths l. `lengths` may be mapped from a file; offsets between the
    kept ones are added up when they are asked for."""

    def __init__(self, lengths: Integer[np.ndarray, "n"]):
        self.lengths = lengths
        sums = [np.zeros(1, np.int64)]
        for start in range(0, len(lengths), _BLOCK):
            part = lengths[start : start + _BLOCK]
            sums.append(np.add.reduceat(part, np.arange(0, len(part), _STEP), dtype=np.int64))
        self._kept = np.cumsum(np.concatenate(sums))
        self._columns = np.arange(_STEP)

    def __len__(self) -> int:
        """How many pieces there are; the offset of that number is where the last one ends."""
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        return self.lengths.nbytes + self._kept.nbytes

    def __getitem__(self, numbers: Integer[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The offsets of pieces, 0 to len(self)."""
        block, rest = np.divmod(numbers, _STEP)
        before = self._columns < rest[..., None]
        return self._kept[block] + np.sum(self._lengths(block), axis=-1, where=before)

    def first_from(self, offsets: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """The first number whose offset is at least this; len(self) where there is none."""
        block = np.maximum(np.searchsorted(self._kept, offsets) - 1, 0)
        ends = self._kept[block, None] + np.cumsum(self._lengths(block), axis=1)
        below = np.sum(ends < offsets[:, None], axis=1) + (self._kept[block] < offsets)
        return np.minimum(block * _STEP + below, len(self))

    def piece_at(self, offsets: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """The number of the piece that the unit at this offset is of."""
        block = np.searchsorted(self._kept, offsets, side="right") - 1
        ends = self._kept[block, None] + np.cumsum(self._lengths(block), axis=1)
        return block * _STEP + np.sum(ends <= offsets[:, None], axis=1)

    def _lengths(self, block: Integer[np.ndarray, "*k"]) -> Int[np.ndarray, "*k step"]:
        """Of the pieces of each block; what is beyond the last is of none."""
        numbers = block[..., None] * _STEP + self._columns
        inside = numbers < len(self)
        return np.where(inside, self.lengths.take(numbers, mode="clip"), 0).astype(np.int64)
