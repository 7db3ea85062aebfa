"""Examples of every format: whole sentences, true and false partners, nothing lost in silence."""

import hashlib

import numpy as np
import pytest
from etils import epath
from scipy import stats

from bert_jax.data import draws
from bert_jax.data.config import DataConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.index import Index
from bert_jax.data.loader import TrainingBatches
from bert_jax.data.records import Rows
from bert_jax.data.spans import cut_sentence_pairs, cut_spans
from bert_jax.data.units import Units
from bert_jax.errors import UserError
from tests import tiny

VOCABULARY = tiny.vocabulary(50_000)
PAD, CLS, SEP = VOCABULARY.pad, VOCABULARY.cls, VOCABULARY.sep
SHAPES = [
    *((form, pairs) for form in ("segment-pair", "sentence-pair") for pairs in ("nsp", "sop")),
    ("segment-pair", "none"), ("full-sentences", "nsp"), ("doc-sentences", "none"),
]  # fmt: skip


class MemoryRows(Rows):
    """Token t of the split has the id 10 + t, so an id tells where it came from. In memory: what
    is on disk is tested in test_prepare.py."""

    def __init__(self, documents: list[list[int]], sentences_a_row: int = 1000):
        self.folder, self.split = epath.Path("memory"), "train"
        lengths = [length for document in documents for length in document]
        counts = [
            (len(document[start : start + sentences_a_row]), number)
            for number, document in enumerate(documents)
            for start in range(0, len(document), sentences_a_row)
        ]
        sentences = np.array([count for count, _ in counts], int)
        begins = np.diff([number for _, number in counts], prepend=-1) != 0
        self.index = Index(np.array(lengths, int), sentences, begins.astype(int), sentences)
        self.row_ends = np.cumsum(sentences)
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=int)])
        self.sentence_of = np.repeat(np.arange(len(lengths)), lengths)
        self.document_of = np.repeat(np.arange(len(documents)), [sum(d) for d in documents])

    def __reduce__(self):
        return object.__reduce_ex__(self, 2)

    def records(self, numbers):
        starts = np.concatenate([[0], self.row_ends[:-1]])
        return [
            10 + np.arange(self.offsets[starts[r]], self.offsets[self.row_ends[r]]) for r in numbers
        ]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return MemoryRows([rng.integers(3, 20, rng.integers(2, 30)).tolist() for _ in range(200)])


def segments(batch):
    """Numbers of the tokens of A and of B for each row of a batch."""
    for ids, types, real in zip(
        batch["input_ids"], batch["token_type_ids"], batch["segment_ids"], strict=True
    ):
        assert ids[0] == CLS and (ids[real == 0] == PAD).all() and (types[real == 0] == 0).all()
        a, b = ids[(real == 1) & (types == 0)], ids[types == 1]
        assert a[-1] == SEP and (b[-1:] == SEP).all()
        yield a[1:-1] - 10, b[:-1] - 10


def build(rows, form="segment-pair", pairs="nsp", short=0.0, length=64, types=2):
    config = DataConfig(length, 8, form, pairs, short_probability=short)
    return build_examples(rows, VOCABULARY, config, types)


def draw(examples, count, seed=0):
    numbers = np.arange(count) % len(examples)
    return examples.batch(numbers, draws.key(seed, np.arange(count)))


def units_of(rows, room=61):
    return Units(rows, room)


def test_spans_cover_every_sentence_once(rows):
    units = units_of(rows)
    spans = cut_spans(units, 61)
    numbers, starts, ends = spans.at(np.arange(len(spans)), units)
    places = np.concatenate([np.arange(s, e) for s, e in zip(starts, ends, strict=True)])
    np.testing.assert_array_equal(places, np.arange(len(rows.index.sentence_lengths)))
    assert (ends - starts >= 2).all()
    assert (starts >= np.concatenate([[0], rows.row_ends])[numbers]).all()
    assert (ends <= rows.row_ends[numbers]).all()


def test_true_continuations_go_on_and_random_ones_are_of_another_document(rows):
    batch = draw(build(rows, short=0.1), 4000)
    for (a, b), label in zip(segments(batch), batch["nsp_labels"], strict=True):
        assert len(a) and len(b) and len(a) + len(b) <= 61
        assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all()
        other = rows.document_of[a[0]] != rows.document_of[b[0]]
        assert other == (label == 1)
        if label == 0:
            # Between the last of A and the first of B lies what was cut, no sentence of others.
            assert a[-1] < b[0]


@pytest.mark.parametrize("pairs", ["nsp", "sop"])
@pytest.mark.parametrize("form", ["segment-pair", "sentence-pair"])
def test_half_of_the_pairs_are_false(rows, form, pairs):
    examples = build(rows, form, pairs)
    batch = draw(examples, 60_000)
    assert examples.labels == pairs and (batch[f"{pairs}_weights"] == 1).all()
    assert abs(batch[f"{pairs}_labels"].mean() - 0.5) < 3 * np.sqrt(0.25 / 60_000)


@pytest.mark.parametrize("documents, length", [("rows", 64), ("rows", 512), ("mixed", 512)])
def test_length_does_not_give_the_label_away(rows, documents, length):
    """Of what the label can be guessed by from half of the draws, how often it is right in the
    other half: with documents that fill rows, with none that does, and with both."""
    if documents == "mixed":
        rng = np.random.default_rng(1)
        sizes = np.where(rng.random(150) < 0.5, rng.integers(3, 20, 150), 90)
        rows = MemoryRows([rng.integers(3, 40, size).tolist() for size in sizes])
    batch = draw(build(rows, short=0.1, length=length), 20_000)
    random = batch["nsp_labels"] == 1
    sizes = [[len(a) + len(b), len(b)] for a, b in segments(batch)]
    even = np.arange(20_000) % 2 == 0
    for values in np.array(sizes).T:
        bins = np.searchsorted(np.quantile(values, np.linspace(0, 1, 31)[1:-1]), values)
        share = [np.mean(random[even & (bins == b)].tolist() or [0.5]) for b in range(30)]
        right = np.mean((np.array(share)[bins] > 0.5)[~even] == random[~even])
        assert right < 0.53, right  # 0.5 by chance, give or take 0.005


def test_some_rows_are_short(rows):
    batch, shortened = draw(build(rows), 5000), draw(build(rows, short=1.0), 5000)
    assert shortened["segment_ids"].sum() < 0.75 * batch["segment_ids"].sum()


@pytest.mark.parametrize("form, pairs", SHAPES)
def test_an_example_is_its_key_alone(rows, form, pairs):
    examples = build(rows, form, pairs, short=0.5)
    batch = draw(examples, 40)
    part = examples.batch(np.arange(13, 17), draws.key(0, np.arange(13, 17)))
    assert part.keys() == batch.keys()
    for name, value in part.items():
        assert value.dtype == (np.float32 if name.endswith("weights") else np.int32)
        np.testing.assert_array_equal(value, batch[name][13:17])


@pytest.mark.parametrize("form, pairs", SHAPES)
def test_labels_are_of_pairs_and_types_as_many_as_the_model_has(rows, form, pairs):
    examples = build(rows, form, pairs)
    batch, untyped = draw(examples, 40), draw(build(rows, form, pairs, types=1), 40)
    labels = pairs if form.endswith("pair") and pairs != "none" else None
    assert examples.labels == labels
    fields = {"input_ids", "token_type_ids", "segment_ids"}
    assert batch.keys() - fields == ({f"{labels}_labels", f"{labels}_weights"} if labels else set())
    assert batch["token_type_ids"].any() == form.endswith("pair")
    assert not untyped["token_type_ids"].any()
    np.testing.assert_array_equal(untyped["input_ids"], batch["input_ids"])


def test_where_a_ends_is_uniform():
    pairs = build(MemoryRows([[5] * 8] * 40))
    batch = pairs.batch(np.zeros(7000, int), draws.key(np.arange(7000)))
    sizes = np.array([len(a) // 5 for a, _ in segments(batch)])
    counts = np.bincount(sizes, minlength=8)[1:8]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_of_one_sentence_get_a_random_b_and_are_counted():
    pairs = build(MemoryRows([[6], [7], [5, 5, 5]]), length=32)
    assert pairs.one_sentence == 2
    batch = pairs.batch(np.zeros(50, int), draws.key(np.arange(50)))
    assert (batch["nsp_labels"] == 1).all()


@pytest.mark.parametrize("form", ["segment-pair", "sentence-pair"])
def test_swapped_means_that_b_comes_before_a(rows, form):
    batch = draw(build(rows, form, "sop", short=0.1), 2000)
    for (a, b), label in zip(segments(batch), batch["sop_labels"], strict=True):
        assert rows.document_of[a[0]] == rows.document_of[b[0]]
        assert (b[-1] < a[0]) if label else (a[-1] < b[0])


def test_swapped_segments_are_as_long_as_others():
    """A room of an odd number: the first keeps one token more, whichever it is."""
    rows = MemoryRows([[20] * 4] * 3)
    batch = draw(build(rows, pairs="sop", length=64), 200)
    sizes = [(len(a), len(b)) for a, b in segments(batch)]
    for label in (0, 1):
        found = {size for size, one in zip(sizes, batch["sop_labels"], strict=True) if one == label}
        assert found == {(31, 30), (20, 41), (41, 20)}


def test_with_no_pairs_b_goes_on_from_a(rows):
    batch = draw(build(rows, pairs="none"), 500)
    for a, b in segments(batch):
        assert a[-1] < b[0] and rows.document_of[a[0]] == rows.document_of[b[-1]]


@pytest.mark.parametrize("pairs", ["sop", "none"])
def test_a_single_sentence_is_cut_inside(pairs):
    """One document is enough for these."""
    examples = build(MemoryRows([[6]]), pairs=pairs)
    assert examples.one_sentence == 1
    batch = examples.batch(np.zeros(3000, int), draws.key(np.arange(3000)))
    cuts = np.zeros(6, int)
    for a, b in segments(batch):
        assert sorted([*a, *b]) == list(range(6))
        cuts[max(a[0], b[0])] += 1
    assert cuts[0] == 0 and stats.chisquare(cuts[1:]).pvalue > 1e-3


def test_a_single_token_has_no_second_segment():
    examples = build(MemoryRows([[1], [4, 4]]), pairs="sop", length=8)
    batch = examples.batch(np.zeros(20, int), draws.key(np.arange(20)))
    assert (batch["input_ids"] == [CLS, 10, SEP, *[PAD] * 5]).all()
    assert (batch["segment_ids"].sum(axis=1) == 3).all() and not batch["token_type_ids"].any()
    assert not batch["sop_labels"].any() and not batch["sop_weights"].any()


def test_sentence_pairs_are_two_whole_sentences(rows):
    units = units_of(rows)
    spans = cut_sentence_pairs(units)
    _, starts, ends = spans.at(np.arange(len(spans)), units)
    covered = np.concatenate([starts, ends - 1])
    assert set(covered.tolist()) == set(range(len(rows.index.sentence_lengths)))
    odd = np.diff(rows.row_ends, prepend=0) % 2 == 1
    assert len(covered) == len(set(covered.tolist())) + odd.sum()

    batch = draw(build(rows, "sentence-pair"), 2000)
    for (a, b), label in zip(segments(batch), batch["nsp_labels"], strict=True):
        first, second = rows.sentence_of[a[0]], rows.sentence_of[b[0]]
        for tokens, sentence in ((a, first), (b, second)):
            np.testing.assert_array_equal(tokens, np.flatnonzero(rows.sentence_of == sentence))
        other = rows.document_of[a[0]] != rows.document_of[b[0]]
        assert other if label else second == first + 1


def streams(batch):
    """What stands between [CLS] and the last [SEP] of each row: token numbers, −1 for a [SEP]."""
    assert (batch["token_type_ids"] == 0).all()
    for ids, real in zip(batch["input_ids"], batch["segment_ids"].astype(bool), strict=True):
        last = real.sum() - 1
        assert ids[0] == CLS and ids[last] == SEP and (ids[last + 1 :] == PAD).all()
        assert real[: last + 1].all()
        yield np.where(ids[1:last] == SEP, -1, ids[1:last] - 10)


def all_streams(rows, form, length=64):
    examples = build(rows, form, length=length)
    return list(streams(draw(examples, len(examples))))


@pytest.fixture(scope="module")
def cut_rows():
    """Documents of several rows each, some of one token, and sentences longer than an example."""
    rng = np.random.default_rng(1)
    documents = [rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(100)]
    return MemoryRows([[200, 5], [1], [62], *documents, [1], [1], [124, 125]], sentences_a_row=3)


@pytest.mark.parametrize("form", ["full-sentences", "doc-sentences"])
def test_every_token_is_in_one_example(cut_rows, form):
    found = np.concatenate(all_streams(cut_rows, form))
    np.testing.assert_array_equal(found[found >= 0], np.arange(len(cut_rows.sentence_of)))


def test_full_sentences_are_whole_fill_the_row_and_mark_borders(cut_rows):
    rows, room = cut_rows, 62
    long = np.diff(rows.offsets)[rows.sentence_of] > room
    ends = np.append(np.diff(rows.sentence_of) > 0, True)
    found = all_streams(rows, "full-sentences")
    for stream, following in zip(found, [*found[1:], None], strict=True):
        assert stream[0] >= 0 and stream[-1] >= 0 and len(stream) <= room
        assert ends[stream[-1]] or long[stream[-1]]
        (marks,) = np.nonzero(stream < 0)
        documents = rows.document_of[stream]  # wrong at the marks, which are not looked at
        changes = [
            place
            for place in range(1, len(stream) - 1)
            if stream[place] < 0 and documents[place - 1] != documents[place + 1]
        ]
        assert changes == marks.tolist()
        assert len(marks) == rows.document_of[stream[-1]] - rows.document_of[stream[0]]
        if following is not None:  # the next sentence, or the part of one, had no room
            sentence = rows.sentence_of[following[0]]
            size = min(room, rows.offsets[sentence + 1] - following[0])
            border = rows.document_of[following[0]] != rows.document_of[stream[-1]]
            assert len(stream) + border + size > room


def test_doc_sentences_never_cross(cut_rows):
    rows, room = cut_rows, 62
    found = all_streams(rows, "doc-sentences")
    for stream, following in zip(found, [*found[1:], None], strict=True):
        assert (stream >= 0).all() and len(stream) <= room
        assert len(set(rows.document_of[stream].tolist())) == 1
        if following is not None and (
            rows.document_of[following[0]] == rows.document_of[stream[-1]]
        ):
            sentence = rows.sentence_of[following[0]]
            assert len(stream) + min(room, rows.offsets[sentence + 1] - following[0]) > room


def test_long_sentences_are_counted(cut_rows):
    examples = build(cut_rows, "doc-sentences")
    assert examples.cut_sentences == 3
    assert [len(s) for s in all_streams(cut_rows, "doc-sentences")[:4]] == [62, 62, 62, 19]
    assert examples.one_sentence >= 4


@pytest.mark.parametrize("most", [1, 40, 400])
def test_units_are_sentences_and_the_even_pieces_of_long_ones(most):
    rng = np.random.default_rng(most)
    rows = MemoryRows([rng.integers(1, most + 1, rng.integers(1, 9)).tolist() for _ in range(50)])
    units, sizes, firsts, row_ends = units_of(rows, 61), [], [], []
    for row in range(50):
        begin = int(rows.row_ends[row - 1]) if row else 0
        for length in rows.index.sentence_lengths[begin : rows.row_ends[row]].tolist():
            count = 1 if length <= 30 else -(-length // 30)
            firsts.append(len(sizes))
            sizes += np.diff([length * n // count for n in range(count + 1)]).tolist()
        row_ends.append(len(sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    every = np.arange(len(sizes) + 1)
    assert len(units) == len(sizes) and max(sizes) <= 30
    assert units.cut_sentences == np.sum(rows.index.sentence_lengths > 30)
    np.testing.assert_array_equal(units[every], starts)
    asked = np.arange(starts[-1] + 9)
    expected = np.minimum(np.searchsorted(starts, asked), len(sizes))
    np.testing.assert_array_equal(units.first_from(asked), expected)
    np.testing.assert_array_equal(units.of_sentence(np.arange(len(firsts))), firsts)
    np.testing.assert_array_equal(units.row_ends(np.arange(50)), row_ends)
    np.testing.assert_array_equal(
        units.row_of(every[:-1]), np.searchsorted(row_ends, every[:-1], side="right")
    )
    found, of_sentence = units.offsets(int(rows.row_ends[9]), int(rows.row_ends[30]))
    begin, end = row_ends[9], row_ends[30]
    np.testing.assert_array_equal(found, starts[begin : end + 1] - starts[begin])
    inner = slice(rows.row_ends[9], rows.row_ends[30])
    np.testing.assert_array_equal(of_sentence, np.append(firsts[inner], end) - begin)


@pytest.mark.parametrize("pairs", ["nsp", "sop", "none"])
@pytest.mark.parametrize("form", ["segment-pair", "sentence-pair"])
@pytest.mark.parametrize("sentence", [200, 60, 40])
def test_every_token_of_long_sentences_comes_into_a_pair(form, pairs, sentence):
    """Of sentences longer than a row, longer than half of one, and of both that make a pair."""
    rows = MemoryRows([[sentence] * 5, [sentence, 7] * 3])
    examples = build(rows, form, pairs, short=0.1)
    assert examples.cut_sentences == 8
    seen = np.zeros(len(rows.sentence_of), bool)
    for epoch in range(60):
        for segment in segments(draw(examples, len(examples), epoch)):
            seen[np.concatenate(segment)] = True
    assert seen.all()


def test_what_has_no_room_is_counted(rows):
    examples = build(rows)
    numbers = np.arange(len(examples))
    left_out, tokens = examples.left_out(numbers, draws.key(0, numbers))
    shown = sum(len(a) + len(b) for a, b in segments(draw(examples, len(examples))))
    assert left_out > 0 and shown == tokens - left_out
    for form in ("full-sentences", "doc-sentences"):
        examples = build(rows, form)
        numbers = np.arange(len(examples))
        assert examples.left_out(numbers, draws.key(numbers)) == (0, len(rows.sentence_of))


def test_too_little_is_refused():
    with pytest.raises(UserError, match="fewer than two documents"):
        build(MemoryRows([[5, 5, 5]]))
    for form in ("segment-pair", "full-sentences"):
        with pytest.raises(UserError, match="split is empty"):
            build(MemoryRows([]), form, "none")


@pytest.mark.parametrize("form, pairs", SHAPES)
def test_on_disk(corpus, form, pairs):
    examples = build(Rows(corpus.folder, "train"), form, pairs, length=32)
    batch = draw(examples, len(examples))
    assert batch["input_ids"].shape == (len(examples), 32)
    assert (batch["input_ids"][:, 0] == CLS).all()


def test_golden():
    """Pairs, order and masks of the default switches as this version draws them."""
    documents = [[3 + i * j % 17 for j in range(2 + i % 13)] for i in range(60)]
    rows = MemoryRows([*documents, [50], [120, 4]])
    config = DataConfig(sequence_length=64, batch_size=32, max_predictions=9)
    batches = TrainingBatches(
        build_examples(rows, VOCABULARY, config), config, VOCABULARY, seed=3, steps=100
    )
    digest = hashlib.sha256()
    for step in (0, 7, 50):
        for name, value in sorted(batches[step].items()):
            digest.update(name.encode() + value.tobytes())
    assert digest.hexdigest()[:16] == "a4d22ba3030002d9"
