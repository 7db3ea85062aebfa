"""Texts to rows without a token lost: what is longer than a row stands in several."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from bert_jax.data.labelled.features import Examples, RowFormat, Rows
from bert_jax.data.tokenizers import Tokenizer


def windowed_texts(
    texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer, form: RowFormat, most: int = 0
) -> Examples:
    """Rows of one text or two each; `owners` says whose they are. Without labels.

    A text that is too long is cut into windows of equal length, one after the other. Of a pair the
    shorter text stands whole beside each window of the longer one, where it leaves half of the row
    to it; else both are cut into equally many windows, and the n-th of the one stands beside the
    n-th of the other. `most`: of the windows of a text only so many, the first; 0 for all.
    """
    rows, owners = Rows(tokenizer.vocabulary, form), list[int]()
    ids = iter(tokenizer.encode([part for text in texts for part in text]))
    for owner, text in enumerate(texts):
        for number, window in enumerate(_windows([next(ids) for _ in text], form)):
            if most and number == most:
                break
            rows.add(*window)
            owners.append(owner)
    return Examples(
        **rows.arrays(),
        labels=np.zeros(len(owners), np.int32),
        weights=np.zeros(len(owners), np.float32),
        owners=np.array(owners, np.int64),
    )


def _windows(parts: list[list[int]], form: RowFormat) -> Iterator[list[list[int]]]:
    room, sizes = form.room(pair=len(parts) == 2), [len(part) for part in parts]
    half, number = room // 2, 1
    repeated = None  # the part that stands whole in each
    if len(parts) == 1:
        number = -(-sizes[0] // room)
    elif sum(sizes) > room and min(sizes) <= half:
        repeated = sizes.index(min(sizes))
        number = -(-max(sizes) // (room - min(sizes)))
    elif sum(sizes) > room:
        number = -(-max(sizes) // half)
    cut = [
        [part] * number if place == repeated else list(_cut(part, number))
        for place, part in enumerate(parts)
    ]
    yield from (list(window) for window in zip(*cut, strict=True))


def _cut(ids: list[int], number: int) -> Iterator[list[int]]:
    """Into so many parts (one at least), whose lengths differ by one at the most."""
    borders = np.linspace(0, len(ids), max(number, 1) + 1).astype(int)
    for begin, end in itertools.pairwise(borders.tolist()):
        yield ids[begin:end]
