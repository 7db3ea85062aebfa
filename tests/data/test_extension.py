"""Pieces behind a tokenizer's own: old ids keep their meaning, new ones are what saves pieces."""

import functools
import json

import numpy as np
import pytest

from bert_jax.data import tokenizer_json
from bert_jax.data.config import CorpusConfig
from bert_jax.data.extension import extend, learn
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.prepare import prepare
from bert_jax.data.tokenizers import load_tokenizer, train_tokenizer
from bert_jax.errors import UserError
from tests import tiny

BERT = "[PAD] [UNK] [CLS] [SEP] [MASK]"
ROBERTA = "<s> <pad> </s> <unk> ... <mask>"
SIZES, NEW = {"wordpiece": 120, "bpe": 320}, 40
KINDS = pytest.mark.parametrize("kind", SIZES)


@functools.cache
def old(kind):
    special = ROBERTA if kind == "bpe" else BERT
    return train_tokenizer(kind, tiny.sentences(200), SIZES[kind], True, special)


@functools.cache
def domain():
    """Sentences with words that the old text does not have."""
    rng = np.random.default_rng(5)
    words = ["".join(rng.choice(["cyto", "gly", "myo", "plas", "rin", "ster"], 3))
             for _ in range(12)]  # fmt: skip
    return [f"{line[:-1]} {rng.choice(words)}." for line in tiny.sentences(150, seed=4)]


@functools.cache
def longer(kind):
    return extend(old(kind), domain(), NEW)


@KINDS
def test_old_ids_keep_their_meaning(kind):
    before, after = old(kind), longer(kind)
    size = before.vocab_size
    assert after.vocab_size == size + NEW == len({after.piece(n) for n in range(size + NEW)})
    assert [after.piece(n) for n in range(size)] == [before.piece(n) for n in range(size)]
    assert after.vocabulary.special_names == before.vocabulary.special_names
    words = {word for line in [*tiny.sentences(200), *domain()] for word in line.split()}
    kept = changed = 0
    for word in sorted(words):
        (was,), (now,) = before.encode([word]), after.encode([word])
        if max(now) < size:
            assert now == was
            kept += 1
        else:
            assert after.decode(now) == before.decode(was)
            changed += 1
    assert kept > 100 and changed > 12


@KINDS
def test_new_pieces_are_what_the_domain_is_made_of(kind):
    before, after = old(kind), longer(kind)
    was, now = before.encode(domain()), after.encode(domain())
    assert sum(map(len, now)) < 0.8 * sum(map(len, was))
    found = {token for ids in now for token in ids}
    used = sum(n in found for n in range(before.vocab_size, after.vocab_size))
    assert (
        used > {"wordpiece": 0.9, "bpe": 0.4}[kind] * NEW
    )  # a merge may only lead to a longer one
    for number in range(before.vocab_size, after.vocab_size):
        parts = before.parts_of(after.piece(number))
        spelled = "".join(before.piece(part).removeprefix("##") for part in parts)
        assert len(parts) > 1 and spelled == after.piece(number).removeprefix("##")


@KINDS
def test_the_same_text_gives_the_same_bytes_that_are_read_again(kind, tmp_path):
    after = longer(kind)
    assert extend(old(kind), iter(domain()), NEW).sha256 == after.sha256
    after.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(domain()) == after.encode(domain()) and again.sha256 == after.sha256
    (fewer,) = (extend(old(kind), domain(), NEW - 10),)
    assert [fewer.piece(n) for n in range(fewer.vocab_size)] == [
        after.piece(n) for n in range(fewer.vocab_size)
    ]


def test_merges_in_lines_as_older_files_have_them():
    description = json.loads(old("bpe").to_json())
    merges = description["model"]["merges"]
    in_lines = description | {
        "model": description["model"] | {"merges": list(map(" ".join, merges))}
    }
    after = extend(FastTokenizer(in_lines), domain(), NEW)
    assert after.encode(domain()) == longer("bpe").encode(domain())


def test_what_saves_most_comes_first():
    split = {"abcd": ["a", "##b", "##c", "##d"], "abx": ["a", "##b", "##x"], "xy": ["x", "##y"]}
    counts = {"abcd": 3, "abx": 4, "xy": 1}
    # abcd saves 3 · 3, abx then 4 · 2; the run a ##b, in both, would have saved 7 alone.
    assert list(learn(split, counts, (), "WordPiece")) == [
        ("a", "##b", "##c", "##d"), ("a", "##b", "##x"),
    ]  # fmt: skip
    assert list(learn(split, counts, ["abcd"], "WordPiece"))[0] == ("a", "##b", "##x")
    bare = {word: [piece.removeprefix("##") for piece in pieces] for word, pieces in split.items()}
    pairs = list(learn(bare, counts, (), "BPE"))
    assert pairs == [("a", "b"), ("ab", "x"), ("ab", "c"), ("abc", "d")]


def test_no_word_becomes_unknown():
    """q has no piece of its own inside a word: what ends before it would leave it alone."""
    pieces = [*BERT.split(), "a", "b", "##b", "##c", "##cq", "x", "##a", "##x"]
    before = FastTokenizer(
        tokenizer_json.wordpiece({piece: number for number, piece in enumerate(pieces)}, True)
    )
    sentences = ["abc abc abc abx", "abcq bx bx bx"]
    assert before.parts_of("abcq") == [5, 7, 9] and before.parts_of("abq") == []
    with pytest.raises(UserError, match="gives 2 new pieces at the most; lower it"):
        extend(before, sentences, 3)
    after, size = extend(before, sentences, 2), len(pieces)  # abc would save most
    assert [after.piece(size), after.piece(size + 1)] == ["ab", "bx"]
    assert after.encode(["abcq", "abc"]) == [[size, 9], [size, 8]]


def corpus_config(text, **changes):
    return CorpusConfig(**{"source": str(text), "held_out": 0.3} | changes)


def test_prepare_appends_pieces(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join("\n".join(domain()[n : n + 10]) for n in range(0, 150, 10)))
    old("wordpiece").save(tmp_path / "base" / "tokenizer")
    config = corpus_config(text, tokenizer=str(tmp_path / "base"), new_pieces=20)
    manifest = prepare(config, 140, tmp_path / "out", lambda *_: None)
    found = load_tokenizer(tmp_path / "out" / "tokenizer")
    assert found.vocab_size == manifest["vocab_size"] == 140 and manifest["new_pieces"] == 20
    assert found.piece(119) == old("wordpiece").piece(119)
    train_tokenizer("sentencepiece", tiny.sentences(200), 120, True, BERT).save(tmp_path / "spm")
    description = json.loads(old("wordpiece").to_json())
    beside = {"id": 120, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": False}  # fmt: skip
    (tmp_path / "beside").mkdir()
    description["added_tokens"].append(beside)
    (tmp_path / "beside" / "tokenizer.json").write_text(json.dumps(description))
    for changes, size, said in (
        (
            {"tokenizer": "wordpiece"},
            140,
            "corpus.new_pieces=20: come behind the pieces of a model",
        ),
        ({}, 120, "has 120 ids, with corpus.new_pieces=20 140, but .* set model.vocab_size=140"),
        ({"tokenizer": str(tmp_path / "spm")}, 140, "and this is SentencePiece"),
        ({"tokenizer": str(tmp_path / "beside")}, 141, "'<x>' stands beside its pieces"),
        ({"new_pieces": 9999}, 120 + 9999, "corpus.new_pieces=9999: this corpus gives"),
    ):
        with pytest.raises(UserError, match=said):
            values = {"tokenizer": str(tmp_path / "base"), "new_pieces": 20} | changes
            prepare(corpus_config(text, **values), size, tmp_path / "no", lambda *_: None)
    with pytest.raises(UserError, match="corpus.new_pieces=-1: must be 0 or more"):
        corpus_config(text, new_pieces=-1)
