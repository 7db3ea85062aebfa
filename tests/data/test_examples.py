"""Segment pairs: whole sentences, true and random continuations, nothing lost in silence."""

import numpy as np
import pytest
from etils import epath
from scipy import stats

from bert_jax.data import draws
from bert_jax.data.examples import SegmentPairs, cut_spans
from bert_jax.data.records import Index, Rows
from bert_jax.data.tokenizers import CLS, PAD, SEP
from bert_jax.errors import UserError


class MemoryRows(Rows):
    """Token t of the split has the id 10 + t, so an id tells where it came from. In memory: what
    is on disk is tested in test_prepare.py."""

    def __init__(self, documents: list[list[int]]):
        self.folder, self.split = epath.Path("memory"), "train"
        lengths = [length for document in documents for length in document]
        row_ends = np.cumsum([len(document) for document in documents])
        self.index = Index(np.array(lengths), row_ends, np.arange(len(documents)))
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.sentence_of = np.repeat(np.arange(len(lengths)), lengths)
        self.document_of = np.repeat(np.arange(len(documents)), [sum(d) for d in documents])

    def read(self, rows):
        starts = np.concatenate([[0], self.index.row_ends[:-1]])
        return [
            10 + np.arange(self.offsets[starts[r]], self.offsets[self.index.row_ends[r]])
            for r in rows
        ]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return MemoryRows([rng.integers(3, 20, rng.integers(2, 30)).tolist() for _ in range(200)])


def segments(batch):
    """Ids of A and of B for each row of a batch."""
    for ids, types, real in zip(
        batch["input_ids"], batch["token_type_ids"], batch["segment_ids"], strict=True
    ):
        assert ids[0] == CLS and (ids[real == 0] == PAD).all() and (types[real == 0] == 0).all()
        a, b = ids[(real == 1) & (types == 0)], ids[types == 1]
        assert a[-1] == SEP and b[-1] == SEP
        yield a[1:-1] - 10, b[:-1] - 10


def draw(rows, count, seed=0, short=0.1, length=64):
    pairs = SegmentPairs(rows, length, short)
    examples = np.arange(count) % len(pairs)
    return pairs, examples, pairs.batch(examples, draws.key(seed, np.arange(count)))


def test_spans_cover_every_sentence_once(rows):
    spans = cut_spans(rows.index, 61)
    places = np.concatenate(
        [np.arange(s, e) for s, e in zip(spans.starts, spans.ends, strict=True)]
    )
    np.testing.assert_array_equal(places, np.arange(len(rows.index.sentence_lengths)))
    assert (spans.ends - spans.starts >= 2).all()


def test_true_continuations_go_on_and_random_ones_are_of_another_document(rows):
    _, _, batch = draw(rows, 4000)
    for (a, b), label in zip(segments(batch), batch["nsp_labels"], strict=True):
        assert len(a) and len(b) and len(a) + len(b) <= 61
        assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all()
        other = rows.document_of[a[0]] != rows.document_of[b[0]]
        assert other == (label == 1)
        if label == 0:
            # Between the last of A and the first of B lies what was cut, no sentence of others.
            assert a[-1] < b[0]


def test_half_of_the_pairs_are_random(rows):
    _, _, batch = draw(rows, 50_000)
    share = batch["nsp_labels"].mean()
    assert abs(share - 0.5) < 3 * np.sqrt(0.25 / 50_000)


def test_length_does_not_give_the_label_away(rows):
    """Of rows in which nothing had to be cut, which the label could be read off otherwise."""
    _, _, batch = draw(rows, 20_000, short=0.0)
    lengths = [len(b) for _, b in segments(batch)]
    labels = batch["nsp_labels"]
    true, random = np.array(lengths)[labels == 0], np.array(lengths)[labels == 1]
    assert abs(true.mean() - random.mean()) < 3


def test_some_rows_are_short(rows):
    _, _, batch = draw(rows, 5000, short=0.0)
    _, _, shortened = draw(rows, 5000, short=1.0)
    assert shortened["segment_ids"].sum() < 0.75 * batch["segment_ids"].sum()


def test_an_example_is_its_key_alone(rows):
    pairs, examples, batch = draw(rows, 40)
    part = pairs.batch(examples[13:17], draws.key(0, np.arange(13, 17)))
    for name, value in part.items():
        np.testing.assert_array_equal(value, batch[name][13:17])


def test_where_a_ends_is_uniform():
    rows = MemoryRows([[5] * 8] * 40)
    pairs = SegmentPairs(rows, 64, 0.0)
    batch = pairs.batch(np.zeros(7000, int), draws.key(np.arange(7000)))
    sizes = np.array([len(a) // 5 for a, _ in segments(batch)])
    counts = np.bincount(sizes, minlength=8)[1:8]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_of_one_sentence_get_a_random_b_and_are_counted():
    rows = MemoryRows([[6], [7], [5, 5, 5]])
    pairs = SegmentPairs(rows, 32, 0.1)
    assert pairs.one_sentence == 2
    batch = pairs.batch(np.zeros(50, int), draws.key(np.arange(50)))
    assert (batch["nsp_labels"] == 1).all()


def test_one_document_is_refused():
    with pytest.raises(UserError, match="fewer than two documents"):
        SegmentPairs(MemoryRows([[5, 5, 5]]), 32, 0.0)


def test_on_disk(corpus):
    pairs = SegmentPairs(Rows(corpus.folder, "train"), 32, 0.1)
    batch = pairs.batch(np.arange(len(pairs)), draws.key(np.arange(len(pairs))))
    assert batch["input_ids"].shape == (len(pairs), 32)
    assert (batch["input_ids"][:, 0] == CLS).all()
