"""Where each of very many pieces begins, in little more memory than their lengths take."""

import numpy as np
from jaxtyping import Int, Integer

_STEP = 32  # of the lengths between two offsets that are kept: 8 bytes for every 32
_BLOCK = 1 << 20  # lengths added up at once


class Offsets:
    """0, l₀, l₀ + l₁, ... of lengths l. `lengths` may be mapped from a file; offsets between the
    kept ones are added up when they are asked for."""

    def __init__(self, lengths: Integer[np.ndarray, "n"]):
        self.lengths = np.asarray(lengths)
        sums = [np.zeros(1, np.int64)]
        for start in range(0, len(lengths), _BLOCK):
            part = self.lengths[start : start + _BLOCK]
            sums.append(np.add.reduceat(part, np.arange(0, len(part), _STEP), dtype=np.int64))
        self._kept = np.cumsum(np.concatenate(sums))
        whole = len(lengths) // _STEP * _STEP
        self._blocks = self.lengths[:whole].reshape(-1, _STEP)
        tail = self.lengths[whole:]
        self._tail = np.pad(tail, (0, _STEP - len(tail)))
        self._columns = np.arange(_STEP)

    def __reduce__(self):
        return Offsets, (self.lengths,)

    def __len__(self) -> int:
        """How many pieces there are; the offset of that number is where the last one ends."""
        return len(self.lengths)

    @property
    def total(self) -> int:
        """Where the last piece ends."""
        return int(self._kept[-1])

    @property
    def nbytes(self) -> int:
        return self.lengths.nbytes + self._kept.nbytes

    def __getitem__(self, numbers: Integer[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The offsets of pieces, 0 to len(self)."""
        block, rest = np.divmod(numbers, _STEP)
        before = self._lengths(block) * (self._columns < rest[..., None])
        return self._kept[block] + np.sum(before, axis=-1, dtype=np.int64)

    def first_from(self, offsets: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The first number whose offset is at least this; len(self) where there is none."""
        block = np.maximum(np.searchsorted(self._kept, offsets) - 1, 0)
        rest = offsets - self._kept[block]
        ends = np.cumsum(self._lengths(block), axis=-1, dtype=np.int64)
        below = np.count_nonzero(ends < rest[..., None], axis=-1) + (rest > 0)
        return np.minimum(block * _STEP + below, len(self))

    def piece_at(self, offsets: Int[np.ndarray, "*k"]) -> Int[np.ndarray, "*k"]:
        """The number of the piece that the unit at this offset is of."""
        block = np.searchsorted(self._kept, offsets, side="right") - 1
        ends = np.cumsum(self._lengths(block), axis=-1, dtype=np.int64)
        rest = offsets - self._kept[block]
        return block * _STEP + np.count_nonzero(ends <= rest[..., None], axis=-1)

    def _lengths(self, block: Int[np.ndarray, "*k"]) -> Integer[np.ndarray, "*k step"]:
        """Of the pieces of each block; what is beyond the last is 0 long."""
        beyond = block >= len(self._blocks)
        if not beyond.any():
            return self._blocks[block]
        found = np.empty((*block.shape, _STEP), self.lengths.dtype)
        found[beyond], found[~beyond] = self._tail, self._blocks[block[~beyond]]
        return found
