"""Global batch s is a function of (seed, s): of no host, worker or starting point."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import SegmentPairs
from bert_jax.data.loader import EvaluationBatches, read
from bert_jax.data.records import Rows
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
    parts = [tiny.batches(corpus, host=host, hosts=hosts) for host in range(hosts)]
    for step in (0, 7, 400):  # the last in a later epoch
        together = [part[step] for part in parts]
        assert_equal(
            {name: np.concatenate([p[name] for p in together]) for name in together[0]},
            whole[step],
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 5])
def test_workers_and_start_change_nothing(corpus, workers, start):
    batches = tiny.batches(corpus)
    found = itertools.islice(read(batches, start, workers), 12)
    for step, batch in enumerate(found, start):
        assert_equal(batch, batches[step])


def test_an_epoch_is_every_example_once(corpus):
    batches = tiny.batches(corpus)
    count = len(batches._examples)
    numbers = np.arange(3 * count)
    epochs, places = np.divmod(numbers, count)
    order = permute(places, count, key(0, Purpose.ORDER, epochs)).reshape(3, count)
    for epoch in order:
        assert sorted(epoch) == list(range(count))
    assert not np.array_equal(order[0], order[1])


def test_seeds_differ(corpus):
    mine, theirs = tiny.batches(corpus)[0], tiny.batches(corpus, seed=1)[0]
    assert not np.array_equal(mine["input_ids"], theirs["input_ids"])


def test_evaluation_is_fixed_whatever_training_masks(corpus):
    pairs = SegmentPairs(Rows(corpus.folder, "held_out"), 32, 0.0)
    usual = EvaluationBatches(pairs, tiny.DATA, tiny.VOCAB)
    odd = replace(
        tiny.DATA, mask_rate=0.6, mask_token_share=1.0, random_token_share=0.0, max_predictions=2
    )
    other = EvaluationBatches(pairs, odd, tiny.VOCAB)
    real = 0
    for step in range(len(usual)):
        assert_equal(usual[step], other[step])
        assert usual[step]["mlm_overflow"].sum() == 0
        real += usual[step]["nsp_weights"].sum()
    assert real == len(pairs)
    last = usual[len(usual) - 1]
    unused = last["nsp_weights"] == 0
    assert not last["mlm_weights"][unused].any() and not last["segment_ids"][unused].any()


def test_unigram_loss(corpus):
    pairs = SegmentPairs(Rows(corpus.folder, "held_out"), 32, 0.0)
    batches = EvaluationBatches(pairs, tiny.DATA, tiny.VOCAB)
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
for module in pkgutil.iter_modules(bert_jax.data.__path__):
    if module.name not in ("loader", "unigram"):
        importlib.import_module("bert_jax.data." + module.name)
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
