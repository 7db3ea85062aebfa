"""Masking does what its rates say, of whole units."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bert_jax.data import draws
from bert_jax.data.config import MASK_UNITS, DataConfig
from bert_jax.data.masking import mask_tokens, overflow_share, unit_sizes
from bert_jax.data.spans import count_out
from bert_jax.errors import UserError
from tests import tiny

VOCABULARY = tiny.vocabulary(1000)
PAD, CLS, SEP, MASK = VOCABULARY.pad, VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.mask
CONFIG = DataConfig(sequence_length=128, max_predictions=40)


def rows(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    ids = rng.choice(VOCABULARY.ordinary, (count, 128)).astype(np.int32)
    ids[:, 0], ids[:, 60], ids[:, 100], ids[:, 101:] = CLS, SEP, SEP, PAD
    ids[:, 20] = VOCABULARY.unk
    return ids


def keys(count: int, epoch: int = 0) -> np.ndarray:
    return draws.key(0, epoch, np.arange(count))


def masked(ids, config=CONFIG, epoch=0):
    return mask_tokens(ids, keys(len(ids), epoch), config, VOCABULARY)


def hidden(batch) -> np.ndarray:
    """True at the places that are predicted, bool [B, S]."""
    out = np.zeros(batch["input_ids"].shape, bool)
    row, slot = np.nonzero(batch["mlm_weights"])
    out[row, batch["mlm_positions"][row, slot]] = True
    return out


def units_of(ids, config) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each token, int [B, S], −1 for none; and how many tokens each unit has."""
    sizes = unit_sizes(ids, keys(len(ids)), config, VOCABULARY)
    row, start = np.nonzero(sizes)
    unit, step = count_out(sizes[row, start])
    out = np.full(ids.shape, -1)
    assert len(set(zip(row[unit], start[unit] + step, strict=True))) == len(unit)
    out[row[unit], start[unit] + step] = unit
    return out, sizes[row, start]


@pytest.mark.parametrize("units", MASK_UNITS)
@pytest.mark.parametrize("rate", [0.0, 0.15, 0.3])
def test_share_of_masked_tokens(rate, units):
    ids = rows(10_000)  # about a million tokens
    config = replace(CONFIG, mask_rate=rate, mask_units=units, max_predictions=100)
    batch = masked(ids, config)
    maskable = ~VOCABULARY.special[ids]
    assert abs(batch["mlm_weights"].sum() / maskable.sum() - rate) < 0.001
    assert batch["mlm_overflow"].sum() == 0
    assert not (hidden(batch) & ~maskable).any()


@pytest.mark.parametrize("units", MASK_UNITS)
def test_a_rate_of_one_masks_every_token(units):
    ids = rows(20)
    config = replace(CONFIG, mask_rate=1.0, mask_units=units, max_predictions=100)
    np.testing.assert_array_equal(hidden(masked(ids, config)), ~VOCABULARY.special[ids])


@pytest.mark.parametrize("units", MASK_UNITS)
def test_units_are_masked_whole_or_not_at_all(units):
    ids = rows(2000)
    config = replace(CONFIG, mask_units=units)
    unit, sizes = units_of(ids, config)
    assert ((unit >= 0) == ~VOCABULARY.special[ids]).all()
    free = masked(ids, replace(config, max_predictions=100))
    for slots in (100, 12):
        batch = masked(ids, replace(config, max_predictions=slots))
        counts = np.bincount(unit[hidden(batch)], minlength=len(sizes))
        assert set(counts[counts > 0] - sizes[counts > 0]) == {0}
        # What finds no slot is what is masked where there are enough, and is counted.
        assert not (hidden(batch) & ~hidden(free)).any()
        np.testing.assert_array_equal(
            batch["mlm_overflow"], hidden(free).sum(axis=1) - hidden(batch).sum(axis=1)
        )
    assert batch["mlm_overflow"].any()


@pytest.mark.parametrize("units", ["whole-word", "span", "ngram"])
def test_units_begin_with_words(units):
    ids = rows(200)
    starts = VOCABULARY.word_starts(ids)
    sizes = unit_sizes(ids, keys(len(ids)), replace(CONFIG, mask_units=units), VOCABULARY)
    assert starts[sizes > 0].all()
    if units == "whole-word":
        np.testing.assert_array_equal(sizes > 0, starts & ~VOCABULARY.special[ids])


@pytest.mark.parametrize(
    "units, shares",
    [
        ("span", 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10)),  # SpanBERT: geometric, clipped
        ("ngram", np.array([6, 3, 2]) / 11),  # ALBERT: 1, 1/2 and 1/3 over their sum
    ],
)
def test_lengths_in_words_are_as_the_papers_have_them(units, shares):
    """Of the first units of long rows alone: what ends with its row is shorter than drawn."""
    words = replace(VOCABULARY, continues=np.zeros(1000, bool))
    ids = np.full((1000, 400), 7, np.int32)
    sizes = unit_sizes(ids, keys(1000), replace(CONFIG, mask_units=units), words)
    row, place = np.nonzero(sizes)
    _, number = count_out(np.bincount(row))
    lengths = sizes[row, place][number < 30]
    assert len(lengths) == 30_000 and lengths.max() == len(shares)
    assert stats.chisquare(np.bincount(lengths)[1:], shares * len(lengths)).pvalue > 1e-3
    assert units == "ngram" or abs(lengths.mean() - 3.8) < 0.05


def test_what_stands_in_place_is_drawn_once_for_a_span():
    ids = rows(2000)
    for units, alike in (("span", True), ("ngram", False)):
        config = replace(CONFIG, mask_units=units, random_token_share=0.0)
        unit, sizes = units_of(ids, config)
        batch = masked(ids, config)
        shown = np.bincount(unit[batch["input_ids"] == MASK], minlength=len(sizes))
        assert np.isin(shown, (0, *sizes)).all()
        assert ((shown == 0) | (shown == sizes)).all() == alike
        taken = np.bincount(unit[hidden(batch)], minlength=len(sizes)) > 0
        assert abs((shown > 0)[taken].mean() - 0.8) < 0.02 or not alike


def test_four_fifths_a_tenth_and_a_tenth():
    ids = rows(10_000)
    batch = masked(ids)
    used = batch["mlm_weights"] > 0
    shown = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)[used]
    labels = batch["mlm_labels"][used]
    assert abs(np.mean(shown == MASK) - 0.8) < 0.005
    kept = np.mean(shown == labels)  # a random token is the right one once in a vocabulary
    assert abs(kept - 0.1 - 0.1 / 995) < 0.005
    others = shown[(shown != MASK) & (shown != labels)]
    assert not VOCABULARY.special[others].any() and len(set(others.tolist())) > 900


def test_labels_are_the_originals_and_nothing_else_changes():
    ids = rows(50)
    batch = masked(ids)
    used = batch["mlm_weights"] > 0
    originals = np.take_along_axis(ids, batch["mlm_positions"], 1)
    np.testing.assert_array_equal(batch["mlm_labels"][used], originals[used])
    assert not VOCABULARY.special[originals[used]].any()
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


@pytest.mark.parametrize("units", MASK_UNITS)
def test_a_mask_is_of_its_example_not_of_its_place_in_the_batch(units):
    ids, config = rows(300), replace(CONFIG, mask_units=units)
    whole = masked(ids, config)
    part = mask_tokens(ids[7:9], keys(300)[7:9], config, VOCABULARY)
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][7:9])


def test_every_epoch_masks_otherwise():
    ids = rows(50)
    first, second = masked(ids), masked(ids, epoch=1)
    assert (first["input_ids"] != second["input_ids"]).any(axis=1).all()


def test_more_slots_than_places():
    batch = masked(rows(3), replace(CONFIG, max_predictions=200))
    assert batch["mlm_positions"].shape == (3, 200) and batch["mlm_positions"].max() < 128


def test_special_tokens_may_have_any_ids():
    """As in a vocabulary of RoBERTa's, where <mask> is the last."""
    moved = np.roll(np.arange(1000), 37)
    fields = {name: int(moved[getattr(VOCABULARY, name)]) for name in ("pad", "unk", "cls", "sep")}
    other = replace(VOCABULARY, mask=999, **fields)
    ids = rows(500)
    ids = np.where(ids < 5, moved[np.minimum(ids, 4)], ids).astype(np.int32)
    batch = mask_tokens(ids, keys(500), replace(CONFIG, mask_rate=1.0, max_predictions=128), other)
    shown = batch["input_ids"][hidden(batch)]
    np.testing.assert_array_equal(hidden(batch), ~other.special[ids])
    assert abs(np.mean(shown == 999) - 0.8) < 0.01
    assert not other.special[shown[shown != 999]].any() and shown.min() < 5


@pytest.mark.parametrize("units", ["token", "whole-word"])
def test_the_number_of_masks_as_in_the_released_code(units):
    """max(1, round(0.15 · tokens)), special ones counted; of larger units never more."""
    ids = rows(300)
    for row, length in enumerate(range(3, 101)):
        ids[row, length - 1], ids[row, length:] = SEP, PAD
    config = replace(CONFIG, mask_rounding="nearest", mask_units=units)
    batch = masked(ids, config)
    tokens = np.sum(ids != PAD, axis=1)
    expected = np.array([max(1, round(0.15 * n)) for n in tokens.tolist()])
    found = batch["mlm_weights"].sum(axis=1)
    if units == "token":
        maskable = np.sum(~VOCABULARY.special[ids], axis=1)
        np.testing.assert_array_equal(found, np.minimum(expected, maskable))
    else:
        assert (found <= expected).all() and found.sum() > 0.9 * expected.sum()
    assert masked(ids, replace(config, mask_rate=0.0))["mlm_weights"].sum() == 0


def test_an_unknown_rounding_is_named():
    with pytest.raises(UserError, match="data.mask_rounding='up'"):
        replace(CONFIG, mask_rounding="up")


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize("slots", [4, 18, 19, 40])
def test_the_share_that_finds_no_slot_is_known_beforehand(rounding, slots):
    config = replace(CONFIG, mask_rounding=rounding, max_predictions=slots)
    ids = np.random.default_rng(0).choice(VOCABULARY.ordinary, (2000, 128)).astype(np.int32)
    ids[:, [0, 64, 127]] = CLS, SEP, SEP
    batch = masked(ids, config)
    lost, kept = batch["mlm_overflow"].sum(), batch["mlm_weights"].sum()
    assert overflow_share(config) == pytest.approx(lost / (lost + kept), abs=0.002)
    assert (overflow_share(config) > 0.75) == (slots == 4)
