"""Documents of the same text, found by hash, so many at a time that memory is bounded."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

# How many hashes are in memory at a time, about: 25 bytes each.
_AT_ONCE = 1 << 22


class Texts(NamedTuple):
    digests: UInt64[np.ndarray, "n 2"]
    names: UInt64[np.ndarray, "n"]
    held_out: Bool[np.ndarray, "n"]


class Duplicates(NamedTuple):
    again: Bool[np.ndarray, "documents"]  # the text stood before, under another name
    in_both_splits: int  # held-out documents whose text a training document has too


def find_duplicates(stretches: Callable[[], Iterator[Texts]], documents: int) -> Duplicates:
    """Compare all documents, that come in stretches, as often as they are asked for.

    A document that a mixture reads several times is the same, not another one of its text.
    """
    again = np.zeros(documents, bool)
    in_both = 0
    rounds = -(-documents // _AT_ONCE)
    for number in range(rounds):
        found: list[tuple[np.ndarray, Texts]] = []
        begin = 0
        for texts in stretches():
            (mine,) = np.nonzero(texts.digests[:, 0] % np.uint64(rounds) == number)
            found.append((begin + mine, Texts(*(field[mine] for field in texts))))
            begin += len(texts.names)
        places = np.concatenate([place for place, _ in found])
        digests, names, held = (
            np.concatenate([texts[field] for _, texts in found]) for field in range(3)
        )
        order = np.lexsort((places, digests[:, 1], digests[:, 0]))
        ordered = digests[order]
        new = np.ones(len(order), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        group = np.cumsum(new) - 1
        (firsts,) = np.nonzero(new)
        first_names = names[order][firsts][group]
        again[places[order]] = names[order] != first_names
        trained = np.bincount(group, ~held[order], len(firsts)) > 0
        in_both += int((held[order] & trained[group]).sum())
    return Duplicates(again, in_both)
