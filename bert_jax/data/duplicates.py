"""Documents of the same text, found by hash, so many at a time that memory is bounded."""

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

# How many documents are compared at a time, about: 33 bytes each, and as much again for sorting.
_AT_ONCE = 1 << 22


class Texts(NamedTuple):
    digests: UInt64[np.ndarray, "n 2"]
    names: UInt64[np.ndarray, "n"]
    held_out: Bool[np.ndarray, "n"]


class Duplicates(NamedTuple):
    again: Bool[np.ndarray, "documents"]  # the text stood before, under another name
    in_both_splits: int  # held-out documents whose text a training document has too


_KIND = np.dtype([("place", "<i8"), ("digest", "<u8", 2), ("name", "<u8"), ("held_out", "?")])


def find_duplicates(stretches: Iterable[Texts], documents: int, folder: Path) -> Duplicates:
    """Compare all documents, which come in stretches, once. By their digests they are dealt into
    parts that fit into memory: files in `folder` that nobody else sees, 33 bytes a document.

    A document that a mixture reads several times is the same, not another one of its text.
    """
    again, in_both = np.zeros(documents, bool), 0
    count = max(1, -(-documents // _AT_ONCE))
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(count)]
        begin = 0
        for texts in stretches:
            found = np.empty(len(texts.names), _KIND)
            found["place"] = begin + np.arange(len(found))
            found["digest"], found["name"], found["held_out"] = texts
            begin += len(found)
            dealt = found["digest"][:, 0] % np.uint64(count)
            for number in np.unique(dealt):
                parts[int(number)].write(found[dealt == number].tobytes())
        for part in parts:
            part.seek(0)
            found = np.frombuffer(part.read(), _KIND)
            repeated, shared = _compare(found)
            again[found["place"][repeated]] = True
            in_both += shared
    return Duplicates(again, in_both)


def _compare(found: np.ndarray) -> tuple[Bool[np.ndarray, "n"], int]:
    """As Duplicates, of documents in their order."""
    digests = found["digest"]
    order = np.lexsort((found["place"], digests[:, 1], digests[:, 0]))
    ordered, names, held = digests[order], found["name"][order], found["held_out"][order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.cumsum(new) - 1
    (firsts,) = np.nonzero(new)
    again = np.zeros(len(order), bool)
    again[order] = names != names[firsts][group]
    trained = np.bincount(group, ~held, len(firsts)) > 0
    return again, int((held & trained[group]).sum())
