"""The questions that a frozen encoder is asked."""

import numpy as np
import pytest

from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.errors import UserError
from experiments.probe import pair_scores, requests, word_score
from experiments.questions import pairs_of, read_texts, sentences_of, shuffled_of, write_texts


@pytest.fixture(scope="module")
def documents(corpus):
    return sentences_of(corpus.folder)


def test_pairs_are_neighbours_and_others_are_not(corpus, documents):
    source = corpus.text.read_text().lower()
    pairs = list(pairs_of(documents, 64))
    assert len(pairs) > 20 and {pair["half"] for pair in pairs} == {0, 1}
    assert pairs == list(pairs_of(documents, 64))
    following = {(pair["a"], pair["b"]) for pair in pairs}
    assert not any((pair["a"], pair["other"]) in following for pair in pairs)
    texts = [text for pair in pairs for text in (pair["a"], pair["b"])]
    assert len(requests(pairs)) == 6 * len(pairs)
    assert all(text in source for text in texts)


def test_words_are_shuffled_and_stay_the_same_words(documents):
    found = list(shuffled_of(documents, 64))
    assert len(found) > 20 and found == list(shuffled_of(documents, 64))
    assert len({one["text"] for one in found}) == len(found)
    for one in found:
        words, others = one["text"].split(), one["shuffled"].split()
        assert sorted(words) == sorted(others) and words != others
        assert (words[0], words[-1]) == (others[0], others[-1])


@pytest.mark.parametrize("length", [48, 64])
def test_no_question_is_longer_than_the_rows_of_training(corpus, length, tmp_path):
    """Positions beyond are untrained. RoBERTa's pair has four special tokens."""
    write_texts(corpus.folder, tmp_path / "texts", length)
    sentences, pairs = read_texts(tmp_path / "texts")
    tokenizer = load_tokenizer(corpus.folder / "tokenizer")
    for one in sentences:
        for text in (one["text"], one["shuffled"]):
            assert len(tokenizer.encode([text])[0]) <= length - 2
    for request in requests(pairs):
        ids = tokenizer.encode(request.get("texts") or [request["text"]])
        assert sum(map(len, ids)) <= length - 4


def test_too_little_text_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="raise corpus.held_out"):
        write_texts(corpus.folder, tmp_path / "texts", 12)


def test_a_vector_that_knows_is_right_and_one_that_does_not_is_at_chance():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((800, 6, 8))
    halves = np.arange(800) % 2
    blind = pair_scores(vectors, halves) | {"words": word_score(vectors[:, :2], halves)}
    assert all(abs(value - 0.5) < 0.06 for value in blind.values())
    knowing = vectors.copy()
    knowing[:, 3, 0] += 8  # of A B: what stands in the right order
    seen = pair_scores(knowing, halves)
    assert seen["order"] > 0.95 and seen["continuation"] > 0.95
    knowing[:, 0, 1] += 8  # of a sentence as it was
    assert word_score(knowing[:, :2], halves) > 0.95
