"""Examples to batches of few lengths, a pure function of (seed, step).

An example is of the shortest bucket that it fits into. What is left over when a bucket's examples
are cut into batches goes into the next longer bucket, so that one batch of an epoch at the most is
not full: the last one of the longest bucket, filled up with rows of weight 0.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.labelled.features import Examples
from bert_jax.errors import UserError

HostBatch = dict[str, np.ndarray]
_BATCHES = 1 << 32  # in the key of an order: of the batches, where buckets have small numbers


class Buckets:
    """Which examples make batch j of an epoch, for j in range(len(self))."""

    def __init__(self, examples: Examples, lengths: Sequence[int], batch_size: int):
        """`lengths`: of the buckets, ascending. Raises UserError where an example fits none."""
        longest = int(examples.lengths.max(initial=0))
        if not lengths or lengths[0] < 1 or list(lengths) != sorted(set(lengths)):
            raise UserError(f"bucket lengths {list(lengths)}: must be positive and ascend")
        if longest > lengths[-1]:
            raise UserError(
                f"bucket lengths {list(lengths)}: an example has {longest} tokens; raise the last "
                f"to the greatest length of a row"
            )
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be 1 or more")
        if not len(examples):
            raise UserError("there are no examples to make batches of; name a file with some")
        self._size = batch_size
        bucket = np.searchsorted(lengths, examples.lengths)
        filled = [number for number in range(len(lengths)) if np.any(bucket == number)]
        self._lengths = [lengths[number] for number in filled]
        self._members = [np.flatnonzero(bucket == number) for number in filled]
        counts, left = [], 0
        self._totals = list[int]()  # examples of each with those left over before
        for members in self._members:
            self._totals.append(len(members) + left)
            full, left = divmod(self._totals[-1], batch_size)
            counts.append(full)
        counts[-1] += left > 0
        self._ends = np.cumsum(counts)  # batches up to each bucket's last

    def __len__(self) -> int:
        return int(self._ends[-1])

    def length(self, batch: int) -> int:
        return int(self._lengths[self._bucket(batch)])

    def numbers(self, batch: int, order: np.ndarray | None) -> Int[np.ndarray, "B"]:
        """The examples of a batch; −1 of rows that fill it. `order`: a key to shuffle them by,
        None for their own order."""
        bucket = self._bucket(batch)
        before = int(self._ends[bucket - 1]) if bucket else 0
        places = (batch - before) * self._size + np.arange(self._size)
        real = places < self._totals[bucket]
        found = np.full(self._size, -1)
        found[real] = self._at(bucket, places[real], order)
        return found

    def _bucket(self, batch: int) -> int:
        return int(np.searchsorted(self._ends, batch, side="right"))

    def _at(
        self, bucket: int, places: np.ndarray, order: np.ndarray | None
    ) -> Int[np.ndarray, "k"]:
        """The examples at places of a bucket's list: its own and, after them or shuffled with
        them, the last of the list before."""
        total, members = self._totals[bucket], self._members[bucket]
        if order is not None:
            places = permute(places, total, key(order, bucket))
        own = places < len(members)
        found = np.empty(len(places), np.int64)
        found[own] = members[places[own]]
        if not own.all():
            left = total - len(members)
            begin = self._totals[bucket - 1] - left
            found[~own] = self._at(bucket - 1, begin + places[~own] - len(members), order)
        return found


class LabelledBatches:
    """batches[s]: batch s of training, for s in range(epochs * steps_per_epoch), in any order of
    asking. Every example comes once an epoch; which are together, and in which order the batches
    come, is drawn anew from (seed, epoch)."""

    def __init__(
        self, examples: Examples, lengths: Sequence[int], batch_size: int, seed: int, epochs: int
    ):
        self._examples, self._seed, self._epochs = examples, seed, epochs
        self._buckets = Buckets(examples, lengths, batch_size)
        self._rows = np.arange(batch_size, dtype=np.int32)

    def __len__(self) -> int:
        return self._epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return len(self._buckets)

    def numbers(self, step: int) -> Int[np.ndarray, "B"]:
        """Which examples its rows are; −1 of rows that fill the batch."""
        return self._locate(step)[1]

    def __getitem__(self, step: int) -> HostBatch:
        batch, numbers = self._locate(step)
        formed = form_batch(self._examples, numbers, self._buckets.length(batch))
        return formed | {"rows": self._rows}

    def _locate(self, step: int) -> tuple[int, Int[np.ndarray, "B"]]:
        epoch, place = divmod(step, len(self._buckets))
        order = key(self._seed, Purpose.ORDER, epoch)
        shuffled = permute(np.array([place]), len(self._buckets), key(order, _BATCHES))
        batch = int(shuffled[0])
        return batch, self._buckets.numbers(batch, order)


class LabelledEvaluation:
    """Every example once, the shortest bucket first, in their order. `rows` numbers the rows
    through all batches, as in EvaluationBatches."""

    def __init__(self, examples: Examples, lengths: Sequence[int], batch_size: int):
        self._examples, self._size = examples, batch_size
        self._buckets = Buckets(examples, lengths, batch_size)

    def __len__(self) -> int:
        return len(self._buckets)

    def numbers(self, step: int) -> Int[np.ndarray, "B"]:
        """Which examples its rows are; −1 of rows that fill the batch."""
        return self._buckets.numbers(step, None)

    def __getitem__(self, step: int) -> HostBatch:
        formed = form_batch(self._examples, self.numbers(step), self._buckets.length(step))
        first = step * self._size
        return formed | {"rows": np.arange(first, first + self._size, dtype=np.int32)}


def form_batch(examples: Examples, numbers: Int[np.ndarray, "B"], length: int) -> HostBatch:
    """The numbered examples in rows of `length`; −1 makes a row that is padding alone, of weight
    0. input_ids, token_type_ids and segment_ids int32 [B, S], of choices [B, choices, S]; labels
    and weights as in Examples, those by token [B, S]."""
    real = numbers >= 0
    chosen = np.where(real, numbers, 0)
    rows = chosen[:, None] * examples.choices + np.arange(examples.choices)
    begins, ends = examples.begins[rows], examples.begins[rows + 1]
    if examples.choices == 1:
        rows, begins, ends = rows[:, 0], begins[:, 0], ends[:, 0]
        present = real[:, None]
    else:
        present = real[:, None, None]
    places = begins[..., None] + np.arange(length)
    inside = (places < ends[..., None]) & present
    places = np.where(inside, places, 0)
    second = inside & (places >= examples.seconds[rows][..., None])

    def by_token(values: np.ndarray, padding: int) -> np.ndarray:
        return np.where(inside, values[places], np.array(padding, values.dtype))

    if examples.by_token:
        labels, weights = by_token(examples.labels, 0), by_token(examples.weights, 0)
    else:
        labels, weights = examples.labels[chosen], examples.weights[chosen] * real
    return {
        "input_ids": by_token(examples.input_ids, examples.pad),
        "token_type_ids": second.astype(np.int32),
        "segment_ids": inside.astype(np.int32),
        "labels": labels,
        "weights": weights.astype(np.float32),
    }
