"""Labelled rows, for both sides: NumPy alone. Fields have transformers' names, and its −100 where
no label is asked for."""

import numpy as np

NO_LABEL = -100
ROWS, CHOICES = 4, 3


def labelled(
    head: str, rng: np.random.Generator, length: int, vocab_size: int, types: int, pad: int,
    num_labels: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Padded rows [B, S], of choices [B, C, S]. Those of answers are full: transformers lets an
    answer lie in the padding."""
    count = ROWS * CHOICES if head == "choose" else ROWS
    lengths = rng.integers(3, length + 1, count)
    lengths[0] = length
    if head == "answer":
        lengths[:] = length
    real = np.arange(length) < lengths[:, None]
    # From 2 on: torch's padding_idx hides what that id contributes to the embedding's gradient.
    ids = rng.integers(2, vocab_size, real.shape)
    if head == "classify" and num_labels == 1:
        labels = rng.normal(size=ROWS).astype(np.float32)
    elif head == "classify":
        labels = rng.integers(0, num_labels, ROWS)
        labels[-1] = NO_LABEL  # as of a row that fills a batch
    elif head == "tag":
        asked = real & (rng.random(real.shape) < 0.6)
        labels = np.where(asked, rng.integers(0, num_labels, real.shape), NO_LABEL)
    elif head == "answer":
        labels = np.sort(rng.integers(0, length, (ROWS, 2)))
    else:
        labels = rng.integers(0, CHOICES, ROWS)
    fields = {
        "input_ids": np.where(real, ids, pad),
        "token_type_ids": rng.integers(0, types, real.shape) * real,
        "attention_mask": real.astype(np.int64),
    }
    if head == "choose":
        fields = {name: value.reshape(ROWS, CHOICES, length) for name, value in fields.items()}
    return fields | {"labels": labels}


def to_learn(
    head: str, vocab_size: int, types: int, pad: int, num_labels: int, steps: int
) -> dict[str, np.ndarray]:
    """Batches [steps, B, ...]: a few, again and again, so that their labels can be learned."""
    rng = np.random.default_rng(0)
    few = [labelled(head, rng, 13, vocab_size, types, pad, num_labels) for _ in range(5)]
    order = rng.integers(0, len(few), steps)
    return {name: np.stack([few[number][name] for number in order]) for name in few[0]}
