"""Global batch s as a pure function of (seed, s), read ahead by grain."""

import bisect
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import Examples
from bert_jax.data.masking import mask_tokens
from bert_jax.data.phases import Phase
from bert_jax.data.share import WHOLE, Share
from bert_jax.data.vocabulary import Vocabulary

HostBatch = dict[str, np.ndarray]


@runtime_checkable
class Batches(Protocol):
    """batches[s]: this host's rows of global batch s, for s in range(len(batches))."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> HostBatch: ...


class TrainingBatches:
    """batches[s]: this host's rows of global batch s, for s in range(steps).

    Example number first + s·batch + row falls into an epoch; a permutation keyed by the epoch
    says which example it is. Hosts take parts of the same global batch (Share), so their number
    changes nothing but who reads what. With static_copies=k an epoch draws as the one k before
    it did, in an order of its own (Liu et al. 2019, 4.1).
    """

    def __init__(
        self, examples: Examples, config: DataConfig, vocabulary: Vocabulary, seed: int,
        steps: int, share: Share = WHOLE, first: int = 0,
    ):  # fmt: skip
        self._examples, self._config, self._vocabulary = examples, config, vocabulary
        self._seed, self._steps, self._first = seed, steps, first
        self._rows = share.rows(config.batch_size)

    def __len__(self) -> int:
        return self._steps

    @property
    def end(self) -> int:
        """The number of the example after the last."""
        return self._first + self._steps * self._config.batch_size

    @property
    def epochs(self) -> tuple[float, float]:
        """How many epochs are behind at the beginning and at the end."""
        return self._first / len(self._examples), self.end / len(self._examples)

    def __getitem__(self, step: int) -> HostBatch:
        number = self._first + step * self._config.batch_size + self._rows
        epochs, places = np.divmod(number, len(self._examples))
        order = key(self._seed, Purpose.ORDER, epochs)
        examples = permute(places, len(self._examples), order)
        copies = epochs % self._config.static_copies if self._config.static_copies else epochs
        batch = form_batch(
            self._examples, examples, key(self._seed, copies, examples), self._config,
            self._vocabulary,
        )  # fmt: skip
        return batch | {"rows": self._rows.astype(np.int32)}


class PhasedBatches:
    """batches[s] of a run in phases, each the TrainingBatches of its own sizes.

    A phase of the length of the one before goes on at the very next example. Another length cuts
    the corpus into other examples, of which none is the next: such a phase begins an epoch, with
    the number that follows the last one begun, so that no epoch, and no mask, comes twice.
    """

    def __init__(
        self, phases: Sequence[Phase], examples: Mapping[int, Examples], vocabulary: Vocabulary,
        seed: int, share: Share = WHOLE,
    ):  # fmt: skip
        """`examples`: those of each length."""
        self._phases, self._parts = phases, list[TrainingBatches]()
        first = epoch = length = 0
        for phase in phases:
            mine = examples[phase.data.sequence_length]
            if phase.data.sequence_length != length:
                first, length = epoch * len(mine), phase.data.sequence_length
            part = TrainingBatches(mine, phase.data, vocabulary, seed, phase.steps, share, first)
            first, epoch = part.end, -(-part.end // len(mine))
            self._parts.append(part)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def epochs(self) -> list[tuple[float, float]]:
        """Of each phase, how many epochs are behind at its beginning and at its end."""
        return [part.epochs for part in self._parts]

    def __getitem__(self, step: int) -> HostBatch:
        number = bisect.bisect_right(self._phases, step, key=lambda phase: phase.begin) - 1
        return self._parts[number][step - self._phases[number].begin]


class EvaluationBatches:
    """Every held-out example once, in order, under one fixed masking: whatever the training
    masks, 15% of single tokens at 80/10/10, and whatever its seed. Of a split too large for
    that, `limit` examples of a fixed random order (0: all).

    `rows` numbers the examples through all batches, so that what is drawn by row differs from
    batch to batch. Rows that fill the last batch weigh 0.
    """

    SEED = 0
    RATE, MASK_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1

    def __init__(
        self, examples: Examples, config: DataConfig, vocabulary: Vocabulary, limit: int = 0,
        share: Share = WHOLE,
    ):  # fmt: skip
        self._config = replace(
            config,
            mask_rate=self.RATE,
            mask_rounding="stochastic",
            mask_units="token",
            mask_token_share=self.MASK_SHARE,
            random_token_share=self.RANDOM_SHARE,
            # Slots for every choice, whatever the training has: nothing may overflow here.
            max_predictions=int(np.ceil(self.RATE * config.sequence_length)),
        )
        self._examples, self._vocabulary = examples, vocabulary
        self._in_order = not 0 < limit < len(examples)
        self._count = len(examples) if self._in_order else limit
        self._rows = share.rows(config.batch_size)

    def __len__(self) -> int:
        return -(-self._count // self._config.batch_size)

    def __getitem__(self, step: int) -> HostBatch:
        numbers = step * self._config.batch_size + self._rows
        real = numbers < self._count
        examples = np.where(real, numbers, 0)
        if not self._in_order:
            order = key(self.SEED, Purpose.ORDER, 0)
            examples = permute(examples, len(self._examples), order)
        batch = form_batch(
            self._examples, examples, key(self.SEED, 0, examples), self._config, self._vocabulary
        )
        for name, values in batch.items():
            if name.endswith("_weights") or name == "segment_ids":
                values[~real] = 0
        return batch | {"rows": numbers.astype(np.int32)}


def form_batch(
    examples: Examples,
    numbers: np.ndarray,
    example_keys: np.ndarray,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> HostBatch:
    """Draw and mask the numbered examples under their keys."""
    batch = examples.batch(numbers, example_keys)
    return batch | mask_tokens(batch["input_ids"], example_keys, config, vocabulary)


def _deaf(worker: int, workers: int) -> None:
    """A notice to stop reaches all processes of a machine; until it is heeded these are needed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def read(batches: Batches, start: int = 0, workers: int = 0) -> Iterator[HostBatch]:
    """Batches from step `start` on, made ahead of their use by a thread, or by `workers`
    processes. Their number does not change what comes or when."""
    steps = grain.MapDataset.source(batches)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    dataset = steps.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads flags of its own, parsed in programs alone
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_deaf
        )
    return iter(dataset)
