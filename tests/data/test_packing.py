"""Packed rows: every token once, each document by itself, as full as the sizes allow."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from bert_jax.data import draws
from bert_jax.data.config import DataConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import EvaluationBatches, TrainingBatches
from bert_jax.data.records import Rows
from bert_jax.data.stretches import WINDOW, pack
from bert_jax.errors import UserError
from tests import tiny
from tests.data.test_examples import CLS, PAD, SEP, VOCABULARY, MemoryRows

CONFIG = DataConfig(64, 8, "doc-sentences", "none", max_predictions=12, packing=True)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    documents = [rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(300)]
    return MemoryRows([[200, 5], [1], [62], *documents, [1], [1], [124, 125]], sentences_a_row=3)


def build(rows, form="doc-sentences", **switches):
    return build_examples(rows, VOCABULARY, replace(CONFIG, format=form, **switches))


def whole(examples):
    numbers = np.arange(len(examples))
    return examples.batch(numbers, draws.key(0, numbers))


def documents(batch):
    """The token numbers of each segment of each row, special tokens looked at and left out."""
    fields = (batch[name] for name in ("input_ids", "segment_ids", "position_ids"))
    for ids, segments, places in zip(*fields, strict=True):
        count = segments.max()
        real = np.count_nonzero(segments)
        assert (np.diff(segments[:real]) >= 0).all() and set(segments[:real]) == {
            *range(1, count + 1)
        }
        assert (ids[real:] == PAD).all() and not segments[real:].any() and not places[real:].any()
        found = []
        for segment in range(1, count + 1):
            mine = ids[segments == segment]
            np.testing.assert_array_equal(places[segments == segment], np.arange(len(mine)))
            assert mine[0] == CLS and mine[-1] == SEP and not np.isin(mine[1:-1], (CLS, SEP)).any()
            found.append(mine[1:-1] - 10)
        yield found


@pytest.mark.parametrize("form", ["full-sentences", "doc-sentences"])
def test_every_token_is_in_one_document_of_one_row(rows, form):
    batch = whole(build(rows, form))
    pieces = [piece for row in documents(batch) for piece in row]
    for piece in pieces:
        assert (np.diff(piece) == 1).all() and len(set(rows.document_of[piece].tolist())) == 1
    np.testing.assert_array_equal(np.sort(np.concatenate(pieces)), np.arange(len(rows.sentence_of)))
    assert not batch["token_type_ids"].any()


def test_doc_sentences_are_the_unpacked_examples(rows):
    """Packed, an example is what it was, beside others."""
    alone = whole(build(rows, packing=False))
    expected = {ids[ids != PAD].tobytes() for ids in alone["input_ids"]}
    packed = whole(build(rows))
    found = [
        ids[segments == number].tobytes()
        for ids, segments in zip(packed["input_ids"], packed["segment_ids"], strict=True)
        for number in range(1, segments.max() + 1)
    ]
    assert len(found) == len(alone["input_ids"]) and set(found) == expected
    assert "position_ids" not in alone


def test_full_sentences_go_on_in_the_order_of_the_text(rows):
    pieces = [piece for row in documents(whole(build(rows, "full-sentences"))) for piece in row]
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(len(rows.sentence_of)))


def test_rows_are_full(rows):
    """Beside what one document a row leaves empty."""
    alone = (whole(build(rows, packing=False))["segment_ids"] > 0).mean()
    for form in ("doc-sentences", "full-sentences"):
        packed = (whole(build(rows, form))["segment_ids"] > 0).mean()
        assert alone < 0.75 and packed > 0.82, (form, alone, packed)


def test_first_fit_fills_and_keeps_near():
    sizes = np.random.default_rng(0).integers(1, 127, 5 * WINDOW + 7).astype(np.uint16)
    packing = pack(sizes, 128, 2)
    owner, members = packing.of(np.arange(len(packing)))
    np.testing.assert_array_equal(np.sort(members), np.arange(len(sizes)))
    filled = np.bincount(owner, sizes[members] + 2)
    assert filled.max() <= 128 and filled.mean() > 0.95 * 128
    windows = members // WINDOW
    same = owner[1:] == owner[:-1]
    assert (windows[1:] == windows[:-1])[same].all() and (np.diff(members)[same] > 0).all()


def test_masks_meet_the_rate_over_packed_rows():
    rng, words = np.random.default_rng(2), tiny.vocabulary(300_000)
    rows = MemoryRows([rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(3000)])
    batches = TrainingBatches(build(rows), replace(CONFIG, batch_size=512), words, 0, 100)
    masked = maskable = 0
    for step in range(6):
        batch = batches[step]
        chosen = batch["mlm_weights"] > 0
        row, _ = np.nonzero(chosen)
        places = batch["mlm_positions"][chosen]
        assert (batch["position_ids"][row, places] > 0).all()  # no [CLS] of any document
        assert (batch["segment_ids"][row, places] > 0).all()
        masked += chosen.sum() + batch["mlm_overflow"].sum()
        maskable += (batch["segment_ids"] > 0).sum() - 2 * batch["segment_ids"].max(axis=1).sum()
    assert abs(masked / maskable - 0.15) < 0.001


@pytest.mark.parametrize("form", ["full-sentences", "doc-sentences"])
def test_from_disk_pickled_and_held_out(corpus, form):
    config = replace(tiny.DATA, format=form, pairs="none", packing=True)
    examples = build_examples(Rows(corpus.folder, "train"), tiny.vocabulary(), config)
    again = pickle.loads(pickle.dumps(examples))
    for name, value in whole(examples).items():
        assert value.dtype == np.int32
        np.testing.assert_array_equal(value, whole(again)[name])
    held_out = build_examples(Rows(corpus.folder, "held_out"), tiny.vocabulary(), config)
    batches = EvaluationBatches(held_out, config, tiny.vocabulary())
    assert batches[0]["position_ids"].shape == (8, 32) and batches[0]["mlm_weights"].any()


@pytest.mark.parametrize("form", ["segment-pair", "sentence-pair"])
def test_pairs_are_not_packed(form):
    with pytest.raises(UserError, match=f"data.format={form} are one pair each"):
        replace(CONFIG, format=form)
