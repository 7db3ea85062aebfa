"""Batches of few shapes: every example once an epoch, the same at any start and on any hosts."""

import functools

import numpy as np
import pytest

from bert_jax.data.labelled.batches import (
    Buckets,
    LabelledBatches,
    LabelledEvaluation,
    form_batch,
)
from bert_jax.data.labelled.features import Examples, RowFormat, text_examples
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.records import TextRecord
from bert_jax.data.loader import read
from bert_jax.errors import UserError
from tests import tiny
from tests.data.test_tokenizers import train

LENGTHS = (8, 16, 24, 40)


def examples_of(lengths, choices=1, by_token=False):
    """Rows whose tokens count on from 1, so that an id tells where it came from."""
    rows = np.asarray(lengths)
    begins = np.concatenate([[0], np.cumsum(rows)])
    tokens = np.arange(1, begins[-1] + 1, dtype=np.int32)
    number = len(rows) // choices
    return Examples(
        input_ids=tokens,
        seconds=begins[:-1] + rows // 2,
        begins=begins,
        labels=tokens * 3 if by_token else np.arange(number, dtype=np.int32) * 7,
        weights=np.ones(len(tokens) if by_token else number, np.float32),
        owners=np.arange(number),
        pad=0,
        choices=choices,
        by_token=by_token,
    )


@functools.cache
def random_examples(number=157, seed=0):
    return examples_of(np.random.default_rng(seed).integers(3, 41, number))


@pytest.mark.parametrize("number", [1, 7, 8, 9, 64, 157])
@pytest.mark.parametrize("lengths", [(40,), LENGTHS, (4, 5, 6, 7, 8, 40)])
def test_every_example_comes_once_an_epoch(number, lengths):
    examples = random_examples(number, seed=number)
    batches = LabelledBatches(examples, lengths, 8, seed=1, epochs=10**7)
    evaluation = LabelledEvaluation(examples, lengths, 8)
    assert batches.steps_per_epoch == len(evaluation) == -(-number // 8)
    for epoch in (0, 1, 1000):
        steps = range(epoch * len(evaluation), (epoch + 1) * len(evaluation))
        numbers = [batches.numbers(step) for step in steps]
        full = sum((found >= 0).all() for found in numbers)
        assert full >= len(evaluation) - 1
        flat = np.concatenate(numbers)
        assert sorted(flat[flat >= 0]) == list(range(number))
    flat = np.concatenate([evaluation.numbers(step) for step in range(len(evaluation))])
    assert sorted(flat[flat >= 0]) == list(range(number))


def test_shapes_are_known_and_no_longer_than_needed():
    examples = random_examples()
    buckets = Buckets(examples, LENGTHS, 8)
    taken = {buckets.length(batch) for batch in range(len(buckets))}
    for batches in (
        LabelledBatches(examples, LENGTHS, 8, seed=1, epochs=2),
        LabelledEvaluation(examples, LENGTHS, 8),
    ):
        seen = {batch["input_ids"].shape for batch in (batches[s] for s in range(len(batches)))}
        assert seen == {(8, length) for length in taken}
        assert taken <= set(LENGTHS)
    shorter = 0
    for batch in range(len(buckets)):
        found = buckets.numbers(batch, None)
        lengths = examples.lengths[found[found >= 0]]
        assert lengths.max() <= buckets.length(batch)
        bucket = LENGTHS.index(buckets.length(batch))
        shorter += (lengths <= ((0, *LENGTHS)[bucket])).sum()
    assert 0 < shorter < 8 * (len(LENGTHS) - 1)  # only what was left over was moved up


def test_batches_are_a_function_of_seed_and_step():
    examples = random_examples()
    one = LabelledBatches(examples, LENGTHS, 8, seed=3, epochs=5)
    other = LabelledBatches(examples, LENGTHS, 8, seed=3, epochs=10)
    for step in (57, 3, 99, 0, 57):
        for name, values in one[step].items():
            assert (values == other[step][name]).all()
    for start in (0, 19, 21, 80):  # epochs have 20 batches
        read_ahead = read(one, start)
        for step in range(start, start + 3):
            assert all((v == one[step][name]).all() for name, v in next(read_ahead).items())
    orders = [
        np.concatenate([batches.numbers(first + step) for step in range(20)]).tolist()
        for batches, first in (
            (one, 0), (one, 20), (LabelledBatches(examples, LENGTHS, 8, 4, 5), 0)
        )
    ]  # fmt: skip
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_order_is_drawn_anew_within_and_over_batches():
    """In one bucket: over epochs an example comes at every place, and with every other."""
    examples = examples_of([4] * 8)
    batches = LabelledBatches(examples, (4,), 2, seed=0, epochs=10**5)
    orders = np.stack(
        [np.concatenate([batches.numbers(4 * e + s) for s in range(4)]) for e in range(200)]
    )
    counts = np.stack([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    assert (abs(counts - 25) < 22).all()  # 4.7 standard deviations
    partner = orders[np.arange(200), np.nonzero(orders == 0)[1] ^ 1]
    assert (abs(np.bincount(partner, minlength=8)[1:] - 200 / 7) < 23).all()


def test_a_batch_holds_its_examples():
    examples = random_examples()
    numbers = np.array([5, -1, 0])
    batch = form_batch(examples, numbers, 40)
    for row, number in enumerate(numbers):
        here = examples.row(number) if number >= 0 else slice(0, 0)
        size = here.stop - here.start
        assert batch["input_ids"][row].tolist() == [*range(here.start + 1, here.stop + 1)] + [0] * (
            40 - size
        )
        assert batch["segment_ids"][row].tolist() == [1] * size + [0] * (40 - size)
        types = [0] * (size // 2) + [1] * (size - size // 2) + [0] * (40 - size)
        assert batch["token_type_ids"][row].tolist() == types
    assert batch["weights"].tolist() == [1, 0, 1] and batch["labels"].tolist()[::2] == [35, 0]
    kinds = {name: values.dtype for name, values in batch.items()}
    assert kinds == dict.fromkeys(kinds, np.int32) | {"weights": np.float32}


def test_labels_by_token_and_choices():
    batch = form_batch(examples_of([3, 5], by_token=True), np.array([1, -1]), 6)
    assert batch["labels"].tolist() == [[12, 15, 18, 21, 24, 0], [0] * 6]
    assert batch["weights"].tolist() == [[1, 1, 1, 1, 1, 0], [0] * 6]
    examples = examples_of([3, 5, 2, 4, 4, 1], choices=3)
    assert examples.lengths.tolist() == [5, 4]
    batch = form_batch(examples, np.array([1, -1]), 5)
    assert batch["input_ids"][0].tolist() == [
        [11, 12, 13, 14, 0], [15, 16, 17, 18, 0], [19, 0, 0, 0, 0],
    ]  # fmt: skip
    assert not batch["segment_ids"][1].any() and batch["labels"].tolist()[0] == 7
    batches = LabelledBatches(examples, (4, 5), 2, 0, 10)
    assert {batches[step]["input_ids"].shape for step in range(10)} == {(2, 3, 5)}


def test_the_last_batch_of_evaluation():
    evaluation = LabelledEvaluation(random_examples(), LENGTHS, 8)
    assert sum(batch["weights"].sum() for batch in map(evaluation.__getitem__, range(20))) == 157
    last = evaluation[19]
    assert last["weights"].tolist() == [1] * 5 + [0] * 3 and not last["segment_ids"][5:].any()
    assert last["rows"].tolist() == list(range(152, 160)) and last["rows"].dtype == np.int32


@pytest.mark.parametrize(
    "lengths, size, expected",
    [
        ((8, 16), 8, "an example has 40 tokens; raise the last"),
        ((16, 8, 40), 8, "must be positive and ascend"),
        ((), 8, "must be positive and ascend"),
        ((40,), 0, "batch_size=0: must be 1 or more"),
    ],
)
def test_mistakes(lengths, size, expected):
    with pytest.raises(UserError, match=expected):
        LabelledBatches(random_examples(), lengths, size, 0, 1)


def test_no_examples():
    with pytest.raises(UserError, match="no examples"):
        LabelledEvaluation(examples_of(np.zeros(0, int)), (8,), 2)


def test_from_texts():
    """The parts together: what a batch holds decodes to the text it came from."""
    tokenizer = train("wordpiece")
    sentences = tiny.sentences(40)
    records = [TextRecord((text,), "ab"[n % 2], f"f:{n}") for n, text in enumerate(sentences)]
    examples = text_examples(records, tokenizer, RowFormat(64), LabelSet.given("ab"))
    batches = LabelledBatches(examples, (16, 32, 64), 4, seed=0, epochs=30)
    for step in range(10, 20):
        batch = batches[step]
        for row, number in enumerate(batches.numbers(step)):
            ids = batch["input_ids"][row][batch["segment_ids"][row] > 0].tolist()
            assert tokenizer.decode(ids[1:-1]) == tokenizer.decode(
                tokenizer.encode([sentences[number]])[0]
            )
            assert batch["labels"][row] == number % 2
