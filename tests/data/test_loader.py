"""Global batch s is a function of (seed, s): of no host, worker or starting point."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import EvaluationBatches, read
from bert_jax.data.records import Rows
from bert_jax.data.share import Share
from bert_jax.data.unigram import unigram_loss
from tests import tiny


def assert_equal(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_take_slices_of_the_same_batch(corpus, hosts):
    whole = tiny.batches(corpus)
    parts = [tiny.batches(corpus, share=Share((host,), hosts)) for host in range(hosts)]
    for step in (0, 7, 400):  # the last in a later epoch
        together = [part[step] for part in parts]
        assert_equal(
            {name: np.concatenate([p[name] for p in together]) for name in together[0]},
            whole[step],
        )


def test_a_host_may_have_parts_that_lie_apart(corpus):
    """As where the mesh follows the wires of a pod."""
    mine = tiny.batches(corpus, share=Share((0, 2), 4))[3]
    whole = tiny.batches(corpus)[3]
    assert_equal(mine, {name: values[[0, 1, 4, 5]] for name, values in whole.items()})


@pytest.mark.parametrize(("start", "workers"), [(0, 0), (30, 0), (0, 2), (30, 2), (30, 8)])
def test_workers_and_start_change_nothing(corpus, workers, start):
    batches = tiny.batches(corpus)
    found = itertools.islice(read(batches, start, workers), 12)
    for step, batch in enumerate(found, start):
        assert_equal(batch, batches[step])


def test_an_epoch_is_every_example_once(corpus, monkeypatch):
    batches, asked = tiny.batches(corpus), []
    kind = type(batches._examples)
    batch = kind.batch

    def listening(self, numbers, keys):
        asked.extend(numbers.tolist())
        return batch(self, numbers, keys)

    monkeypatch.setattr(kind, "batch", listening)
    count = len(batches._examples)
    for step in range(-(-2 * count // tiny.DATA.batch_size)):
        batches[step]
    first, second = asked[:count], asked[count : 2 * count]
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second


def test_seeds_differ(corpus):
    mine, theirs = tiny.batches(corpus)[0], tiny.batches(corpus, seed=1)[0]
    assert not np.array_equal(mine["input_ids"], theirs["input_ids"])


def by_example(batches, epoch):
    """The masked ids and slots of each example in one epoch, in the order of their numbers."""
    count, size = len(batches._examples), tiny.DATA.batch_size
    places = np.arange(count)
    numbers = permute(places, count, key(0, Purpose.ORDER, epoch))
    steps, rows = np.divmod(places + epoch * count, size)
    found = {step: batches[step] for step in set(steps.tolist())}
    out = {}
    for name in ("input_ids", "mlm_labels", "nsp_labels"):
        values = np.stack([found[s][name][r] for s, r in zip(steps, rows, strict=True)])
        out[name] = values[np.argsort(numbers)]
    return numbers, out


def test_static_masks_come_round_and_the_order_does_not(corpus):
    dynamic = tiny.batches(corpus)
    static = tiny.batches(corpus, replace(tiny.DATA, static_copies=2))
    orders, drawn = zip(*(by_example(static, epoch) for epoch in range(4)), strict=True)
    for epoch in (0, 1):
        assert_equal(drawn[epoch], drawn[epoch + 2])
        assert_equal(drawn[epoch], by_example(dynamic, epoch)[1])
    for one, other in itertools.combinations(range(4), 2):
        assert (orders[one] != orders[other]).any()
    new = [drawn[0], drawn[1], *(by_example(dynamic, epoch)[1] for epoch in (2, 3))]
    for one, other in itertools.combinations(new, 2):
        same = (one["input_ids"] == other["input_ids"]).all(axis=1)
        assert same.mean() < 0.05


def held_out(corpus, **switches):
    config = replace(tiny.DATA, **switches)
    rows, vocabulary = Rows(corpus.folder, "held_out"), tiny.vocabulary()
    return build_examples(rows, vocabulary, config, short_probability=0.0), config, vocabulary


def test_evaluation_is_fixed_whatever_training_masks(corpus):
    examples, config, vocabulary = held_out(corpus)
    usual = EvaluationBatches(examples, config, vocabulary)
    odd = replace(
        config, mask_rate=0.6, mask_token_share=1.0, random_token_share=0.0, max_predictions=2,
        mask_units="span", static_copies=3,
    )  # fmt: skip
    other = EvaluationBatches(examples, odd, vocabulary)
    for step in range(len(usual)):
        assert_equal(usual[step], other[step])
        assert usual[step]["mlm_overflow"].sum() == 0


@pytest.mark.parametrize("form, pairs", [
    ("segment-pair", "nsp"), ("sentence-pair", "sop"), ("segment-pair", "none"),
    ("full-sentences", "nsp"), ("doc-sentences", "none"),
])  # fmt: skip
def test_evaluation_is_every_example_once(corpus, form, pairs):
    count = len(held_out(corpus, format=form, pairs=pairs)[0])
    size = next(size for size in (7, 8, 9, 10, 11) if count % size)
    examples, config, vocabulary = held_out(corpus, format=form, pairs=pairs, batch_size=size)
    batches = EvaluationBatches(examples, config, vocabulary)
    found = [batches[step] for step in range(len(batches))]
    whole = {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}
    np.testing.assert_array_equal(whole["rows"], np.arange(len(found) * config.batch_size))
    unused = whole["rows"] >= len(examples)
    assert unused.any(), "the last batch is to be filled"
    weights = {name for name in whole if name.endswith("_weights")}
    assert weights == {"mlm_weights", *([f"{examples.labels}_weights"] if examples.labels else [])}
    for name in (*weights, "segment_ids"):
        assert not whole[name][unused].any() and whole[name][~unused].any()
    drawn = examples.batch(np.arange(len(examples)), key(0, 0, np.arange(len(examples))))
    np.testing.assert_array_equal(whole["segment_ids"][~unused], drawn["segment_ids"])


def test_evaluation_of_a_part(corpus):
    examples, config, vocabulary = held_out(corpus)
    whole = EvaluationBatches(examples, config, vocabulary)
    assert len(examples) > 20
    for enough in (len(examples), 10**6):
        batches = EvaluationBatches(examples, config, vocabulary, limit=enough)
        assert len(batches) == len(whole)
        assert_equal(batches[1], whole[1])

    def rows_of(batches):
        found = [batches[step] for step in range(len(batches))]
        return [
            (ids.tobytes(), labels.tobytes())
            for batch in found
            for ids, labels, weight in zip(
                batch["input_ids"], batch["mlm_labels"], batch["nsp_weights"], strict=True
            )
            if weight
        ]

    small, large = (EvaluationBatches(examples, config, vocabulary, limit=n) for n in (5, 20))
    assert len(small) == 1 and len(large) == 3
    assert rows_of(small) == rows_of(large)[:5] and len(rows_of(large)) == 20
    assert set(rows_of(large)) < set(rows_of(whole)) and rows_of(large) != rows_of(whole)[:20]
    hosts = [
        EvaluationBatches(examples, config, vocabulary, 20, share=Share((host,), 2))[2]
        for host in range(2)
    ]
    assert_equal({n: np.concatenate([h[n] for h in hosts]) for n in hosts[0]}, large[2])


def test_unigram_loss(corpus):
    batches = EvaluationBatches(*held_out(corpus))
    assert unigram_loss(batches, np.zeros(tiny.VOCAB, int)) == pytest.approx(np.log(tiny.VOCAB))
    counts = np.arange(tiny.VOCAB)
    labels = np.concatenate(
        [batches[s]["mlm_labels"][batches[s]["mlm_weights"] > 0] for s in range(len(batches))]
    )
    expected = -np.mean(np.log((counts[labels] + 1) / (counts.sum() + tiny.VOCAB)))
    assert unigram_loss(batches, counts) == pytest.approx(expected)


def test_data_brings_no_jax(corpus):
    """All of bert_jax.data but the loader, which needs grain, which brings jax."""
    code = f"""
import sys, pkgutil, importlib
import bert_jax.data
for module in pkgutil.walk_packages(bert_jax.data.__path__, "bert_jax.data."):
    if module.name != "bert_jax.data.loader":
        importlib.import_module(module.name)
assert "jax" not in sys.modules and "flax" not in sys.modules
from tests import tiny
from bert_jax.data.loader import read
from pathlib import Path
batches = tiny.batches(tiny.Corpus(Path({str(corpus.text)!r}), Path({str(corpus.folder)!r})))
next(read(batches, 0, workers=1))
import jax
assert not jax._src.xla_bridge.backends_are_initialized()
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("fine\n"), done.stderr
