"""Global batch s as a pure function of (seed, s), read ahead by grain."""

from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import SegmentPairs
from bert_jax.data.masking import mask_tokens

HostBatch = dict[str, np.ndarray]


class TrainingBatches:
    """batches[s]: this host's rows of global batch s, for s in range(steps).

    Example number s·batch + row falls into an epoch; a permutation keyed by the epoch says
    which example it is. Hosts take equal slices of the same global batch, so their number
    changes nothing but who reads what.
    """

    def __init__(
        self, examples: SegmentPairs, config: DataConfig, vocab_size: int, seed: int, steps: int,
        host: int = 0, hosts: int = 1,
    ):  # fmt: skip
        self._examples, self._config, self._vocab_size = examples, config, vocab_size
        self._seed, self._steps = seed, steps
        share = config.batch_size // hosts
        self._rows = np.arange(host * share, (host + 1) * share)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> HostBatch:
        number = step * self._config.batch_size + self._rows
        epochs, places = np.divmod(number, len(self._examples))
        order = key(self._seed, Purpose.ORDER, epochs)
        examples = permute(places, len(self._examples), order)
        batch = form_batch(
            self._examples, examples, key(self._seed, epochs, examples), self._config,
            self._vocab_size,
        )  # fmt: skip
        return batch | {"rows": self._rows.astype(np.int32)}


class EvaluationBatches:
    """Every held-out example once, in order, under one fixed masking: whatever the training
    masks, 15% at 80/10/10, and whatever its seed. Rows that fill the last batch weigh 0."""

    SEED = 0
    RATE, MASK_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1

    def __init__(
        self, examples: SegmentPairs, config: DataConfig, vocab_size: int,
        host: int = 0, hosts: int = 1,
    ):  # fmt: skip
        # Slots for every choice, whatever the training has: nothing may overflow here.
        slots = int(np.ceil(self.RATE * config.sequence_length))
        self._config = DataConfig(
            config.sequence_length, config.batch_size, slots, self.RATE, self.MASK_SHARE,
            self.RANDOM_SHARE, short_probability=0.0,
        )  # fmt: skip
        self._examples, self._vocab_size = examples, vocab_size
        share = config.batch_size // hosts
        self._rows = np.arange(host * share, (host + 1) * share)

    def __len__(self) -> int:
        return -(-len(self._examples) // self._config.batch_size)

    def __getitem__(self, step: int) -> HostBatch:
        numbers = step * self._config.batch_size + self._rows
        real = numbers < len(self._examples)
        examples = np.where(real, numbers, 0)
        batch = form_batch(
            self._examples, examples, key(self.SEED, 0, examples), self._config, self._vocab_size
        )
        for name in ("mlm_weights", "nsp_weights", "segment_ids"):
            batch[name][~real] = 0
        return batch | {"rows": self._rows.astype(np.int32)}


def form_batch(
    examples: SegmentPairs,
    numbers: np.ndarray,
    example_keys: np.ndarray,
    config: DataConfig,
    vocab_size: int,
) -> HostBatch:
    """Draw and mask the numbered examples under their keys."""
    batch = examples.batch(numbers, example_keys)
    batch["nsp_weights"] = np.ones(len(numbers), np.float32)
    return batch | mask_tokens(batch["input_ids"], example_keys, config, vocab_size)


def read(
    batches: TrainingBatches | EvaluationBatches, start: int = 0, workers: int = 0
) -> Iterator[HostBatch]:
    """Batches from step `start` on, made ahead of their use by a thread, or by `workers`
    processes. Their number does not change what comes or when."""
    steps = grain.MapDataset.source(batches)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    dataset = steps.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads flags of its own, parsed in programs alone
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)
