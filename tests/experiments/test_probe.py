"""The questions that a frozen encoder is asked."""

import numpy as np
import pytest

from experiments.probe import pairs_of, requests, scores


def test_pairs_are_neighbours_and_others_are_not(corpus):
    prepared, source = corpus.folder, corpus.text.read_text().lower()
    pairs = list(pairs_of(prepared))
    assert len(pairs) > 20 and {pair["half"] for pair in pairs} == {0, 1}
    assert pairs == list(pairs_of(prepared))
    following = {(pair["a"], pair["b"]) for pair in pairs}
    assert not any((pair["a"], pair["other"]) in following for pair in pairs)
    texts = [text for pair in pairs for text in (pair["a"], pair["b"])]
    assert len(requests(pairs)) == 6 * len(pairs)
    assert all(text in source for text in texts)


def test_a_vector_that_knows_is_right_and_one_that_does_not_is_at_chance():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((800, 6, 8))
    halves = np.arange(800) % 2
    blind = scores(vectors, halves)
    assert all(abs(value - 0.5) < 0.06 for value in blind.values())
    knowing = vectors.copy()
    knowing[:, 3, 0] += 8  # of A B: what stands in the right order
    seen = scores(knowing, halves)
    assert seen["order"] > 0.95 and seen["continuation"] > 0.95
    assert seen["mean"] == pytest.approx((seen["order"] + seen["continuation"]) / 2)
