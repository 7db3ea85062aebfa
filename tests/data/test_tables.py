"""Tables of examples stay small: a billion must fit, and one pass over the index makes them."""

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import key, permute
from bert_jax.data.examples import build_examples
from bert_jax.data.index import INDEX, Index
from bert_jax.data.offsets import Offsets
from bert_jax.data.records import Rows
from bert_jax.data.spans import Text, cut_sentence_pairs, cut_spans
from bert_jax.data.stretches import cut_stretches, pack
from bert_jax.data.units import Units
from tests import tiny
from tests.data.test_examples import MemoryRows

# Of a corpus with ten million examples of about 128 tokens.
SENTENCES, ROW = 40_000_000, 20


def index(sentences):
    lengths = np.resize(np.random.default_rng(0).integers(1, 64, 1 << 20), sentences)
    counts = np.full(sentences // ROW, ROW, np.uint16)
    return Index(lengths.astype(np.uint16), counts, np.ones(len(counts), np.uint8), counts)


@pytest.fixture(scope="module")
def large():
    return index(SENTENCES)


class IndexAlone(Rows):
    def __init__(self, index):
        self.index = index


def units_of(index, room):
    return Units(IndexAlone(index), room)


CUTS = {
    "segment-pair": lambda index: cut_spans(units_of(index, 125), 125),
    "sentence-pair": lambda index: cut_sentence_pairs(units_of(index, 125)),
    "doc-sentences": lambda index: cut_stretches(index, 126, 0),
    "full-sentences": lambda index: cut_stretches(index, 126, 2),
}


@pytest.mark.parametrize("cut", CUTS)
def test_ten_million_examples(large, cut):
    """Two and a quarter bytes each."""
    table = CUTS[cut](large).starts
    assert len(table) > 9e6
    assert table.nbytes < 2.3 * len(table)


@pytest.mark.parametrize("cut", CUTS)
def test_tables_are_made_in_little_memory(cut):
    """What is held while they are made: a block, and less than six bytes an example. Of four times
    the sentences only that is more."""
    peaks = []
    for sentences in (SENTENCES // 20, SENTENCES // 5):
        text = index(sentences)
        tracemalloc.start()
        table = CUTS[cut](text).starts
        peaks.append(tracemalloc.get_traced_memory()[1] - 6 * len(table))
        tracemalloc.stop()
    assert peaks[0] < 70e6 and peaks[1] - peaks[0] < 10e6, peaks


def test_packing_ten_million():
    """Four bytes for each stretch and two for each row that several of them are in."""
    sizes = np.resize(np.random.default_rng(0).integers(1, 127, 1 << 20), 10_000_000)
    tracemalloc.start()
    packing = pack(sizes.astype(np.uint16), 128, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert packing.nbytes < 7 * len(sizes) and peak < 300e6 + 12 * len(sizes)


def test_offsets_of_sentences_take_a_quarter_of_a_byte(large):
    offsets = Offsets(large.sentence_lengths)
    assert offsets.nbytes - large.sentence_lengths.nbytes < 0.26 * SENTENCES


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000])
def test_offsets(count):
    lengths = np.random.default_rng(count).integers(0, 5, count).astype(np.uint16)
    lengths[-1] = 3
    offsets, expected = Offsets(lengths), np.concatenate([[0], np.cumsum(lengths, dtype=int)])
    assert len(offsets) == count
    np.testing.assert_array_equal(offsets[np.arange(count + 1)], expected)
    asked = np.arange(expected[-1] + 40)
    first = np.minimum(np.searchsorted(expected, asked), count)
    np.testing.assert_array_equal(offsets.first_from(asked), first)
    inside = asked[: expected[-1]]
    at = np.searchsorted(expected, inside, side="right") - 1
    np.testing.assert_array_equal(offsets.piece_at(inside), at)


def test_a_permutation_of_a_billion_needs_no_table():
    size, places = 10**9, np.random.default_rng(0).integers(0, 10**9, 100_000)
    tracemalloc.start()
    found = permute(places, size, key(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert found.min() >= 0 and found.max() < size
    assert len(np.unique(found)) == len(np.unique(places))
    assert abs(found.mean() / size - 0.5) < 0.01
    assert not np.array_equal(found, permute(places, size, key(1)))


def test_blocks_make_no_difference(monkeypatch):
    """Cut in small blocks, across which stretches go on, the examples are the same."""
    rng = np.random.default_rng(3)
    documents = [rng.integers(1, 90, rng.integers(1, 12)).tolist() for _ in range(400)]
    rows = MemoryRows([[500, 3], *documents, [70] * 40], sentences_a_row=4)

    def all_tables():
        found = [
            cut_spans(units_of(rows.index, 61), 61), cut_sentence_pairs(units_of(rows.index, 61)),
            *(cut_stretches(rows.index, 62, border) for border in (0, 1, 2)),
        ]  # fmt: skip
        return [
            (one.starts.lengths.tolist(), one.one_sentence, getattr(one, "cut_sentences", 0))
            for one in found
        ]

    expected = all_tables()
    monkeypatch.setattr("bert_jax.data.stretches._SENTENCES", 67)
    monkeypatch.setattr("bert_jax.data.spans._ROWS", 5)
    monkeypatch.setattr("bert_jax.data.units._BLOCK", 9)
    monkeypatch.setattr("bert_jax.data.offsets._BLOCK", 64)
    assert all_tables() == expected
    text = [
        build_examples(rows, tiny.vocabulary(50_000), DataConfig(64, 8, form, "none"))
        for form in ("segment-pair", "full-sentences")
    ]
    for examples in text:
        batch = examples.batch(np.arange(len(examples)), key(0, np.arange(len(examples))))
        assert (batch["segment_ids"].sum(axis=1) > 2).all()


def test_what_is_kept_in_memory_changes_nothing(corpus, monkeypatch):
    kept = [tiny.batches(corpus)[step] for step in (0, 0, 7)]
    monkeypatch.setattr("bert_jax.data.spans.KEPT", 0)
    for mine, step in zip(kept, (0, 0, 7), strict=True):
        theirs = tiny.batches(corpus)[step]
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name])


@pytest.mark.parametrize("form", ["segment-pair", "full-sentences", "doc-sentences"])
def test_an_index_may_be_mapped_from_its_files(corpus, form):
    """And is then not sent to another process, which maps it anew."""
    config = replace(tiny.DATA, format=form, packing=form != "segment-pair")
    rows, mapped = Rows(corpus.folder, "train"), Rows(corpus.folder, "train")
    files = (corpus.folder / f"train-{name}.npy" for name in INDEX)
    mapped.index = Index(*(np.load(file, mmap_mode="r") for file in files))
    numbers = np.arange(30)
    expected, found = (
        build_examples(r, tiny.vocabulary(), config).batch(numbers, key(0, numbers))
        for r in (rows, mapped)
    )
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name])
    text = Text(mapped)
    text.read(np.arange(3), np.full(3, 2))
    assert len(pickle.dumps(text)) < 1000
