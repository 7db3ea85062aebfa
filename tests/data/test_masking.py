"""Masking does what its rates say."""

from dataclasses import replace

import numpy as np
import pytest

from bert_jax.data import draws
from bert_jax.data.config import DataConfig
from bert_jax.data.masking import mask_tokens
from bert_jax.data.tokenizers import CLS, MASK, PAD, SEP, SPECIAL

VOCAB = 1000
CONFIG = DataConfig(sequence_length=128, max_predictions=40)


def rows(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    ids = rng.integers(len(SPECIAL), VOCAB, (count, 128)).astype(np.int32)
    ids[:, 0], ids[:, 60], ids[:, 100], ids[:, 101:] = CLS, SEP, SEP, PAD
    return ids


def masked(ids, config=CONFIG, epoch=0):
    return mask_tokens(ids, draws.key(0, epoch, np.arange(len(ids))), config, VOCAB)


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.3])
def test_share_of_masked_tokens(rate):
    ids = rows(10_000)  # about a million tokens
    config = replace(CONFIG, mask_rate=rate)
    batch = masked(ids, config)
    maskable = (ids >= len(SPECIAL)).sum()
    assert abs(batch["mlm_weights"].sum() / maskable - rate) < 0.001
    assert batch["mlm_overflow"].sum() == 0


def test_four_fifths_a_tenth_and_a_tenth():
    ids = rows(10_000)
    batch = masked(ids)
    used = batch["mlm_weights"] > 0
    shown = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)[used]
    labels = batch["mlm_labels"][used]
    assert abs(np.mean(shown == MASK) - 0.8) < 0.005
    kept = np.mean(shown == labels)  # a random token is the right one once in a vocabulary
    assert abs(kept - 0.1 - 0.1 / VOCAB) < 0.005
    others = shown[(shown != MASK) & (shown != labels)]
    assert others.min() >= len(SPECIAL) and len(set(others.tolist())) > 0.9 * VOCAB


def test_labels_are_the_originals_and_nothing_else_changes():
    ids = rows(50)
    batch = masked(ids)
    used = batch["mlm_weights"] > 0
    originals = np.take_along_axis(ids, batch["mlm_positions"], 1)
    np.testing.assert_array_equal(batch["mlm_labels"][used], originals[used])
    assert (originals[used] >= len(SPECIAL)).all()
    restored = batch["input_ids"].copy()
    for row in range(len(ids)):
        restored[row, batch["mlm_positions"][row][used[row]]] = batch["mlm_labels"][row][used[row]]
        places = batch["mlm_positions"][row][used[row]]
        assert len(set(places.tolist())) == len(places)
    np.testing.assert_array_equal(restored, ids)


def test_overflow_is_counted_and_left_unmasked():
    ids = rows(200)
    batch = masked(ids, replace(CONFIG, max_predictions=10))
    free = masked(ids)
    wanted = free["mlm_weights"].sum(axis=1)
    np.testing.assert_array_equal(batch["mlm_overflow"], np.maximum(wanted - 10, 0))
    assert (batch["mlm_weights"].sum(axis=1) <= 10).all()
    assert ((batch["input_ids"] != ids).sum(axis=1) <= 10).all()


def test_a_mask_is_of_its_example_not_of_its_place_in_the_batch():
    ids = rows(20)
    whole = masked(ids)
    part = mask_tokens(ids[7:9], draws.key(0, 0, np.arange(7, 9)), CONFIG, VOCAB)
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][7:9])


def test_every_epoch_masks_otherwise():
    ids = rows(50)
    first, second = masked(ids), masked(ids, epoch=1)
    assert (first["input_ids"] != second["input_ids"]).any(axis=1).all()


def test_more_slots_than_places():
    batch = mask_tokens(
        rows(3), draws.key(np.arange(3)), replace(CONFIG, max_predictions=200), VOCAB
    )
    assert batch["mlm_positions"].shape == (3, 200) and batch["mlm_positions"].max() < 128
