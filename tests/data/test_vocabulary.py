"""Which tokens begin a word: the tokenizers' own words, read off the ids."""

import functools
import inspect
import logging
import subprocess

import numpy as np
import pytest
import tokenizers

from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.data.vocabulary import special_ids
from bert_jax.data.words import BYTES, build_vocabulary, byte_level_ends
from bert_jax.errors import UserError

BERT = "[PAD] [UNK] [CLS] [SEP] [MASK]"
TRICKY = [
    "don't DON'T it's I've you'll we're I'm he'd 'shell' rock'n'roll",
    "U.S. 3.14 1,000 1st x1y2 foo_bar(x) __init__ np.float64(3)[0]",
    "well-known co-op a--b ... !!! ?! (a) [b] \"c\" 'd' <e> $5 50% #6 a/b a@b.c",
    "naïve café É Ångström Straße übung",
    "日本語 テスト 한국어 привет мир Ωμέγα",
    "😀 😂😂 👍 ❤ ½ ² §",
    "a",
]


@functools.cache
def lines():
    """Of docstrings of the standard library, white space as prepare leaves it."""
    texts = [
        inspect.getdoc(member) or ""
        for module in (logging, subprocess, inspect, functools)
        for _, member in sorted(inspect.getmembers(module))
        if inspect.isclass(member) or inspect.isfunction(member)
    ]
    return [*dict.fromkeys(s for text in texts for s in split_sentences(text))]


def train(kind, lowercase):
    # Often enough for the contractions to be pieces, which byte-level BPE has its words by.
    sentences = [*lines(), *TRICKY[:1] * 9]
    return train_tokenizer(kind, sentences, 1200, lowercase, BERT)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_words_are_the_tokenizers_own(kind, lowercase):
    ours = train(kind, lowercase)
    theirs = tokenizers.Tokenizer.from_str(ours.to_json())
    inner = 0
    assert len(lines()) > 300
    for text in [*lines(), *TRICKY]:
        encoded = theirs.encode(text, add_special_tokens=False)
        words = np.array(encoded.word_ids, int)
        expected = np.diff(words, prepend=-1) > 0
        found = ours.vocabulary.word_starts(np.array([encoded.ids], int))[0, : len(words)]
        np.testing.assert_array_equal(found, expected, f"{text} {encoded.tokens}")
        inner += (~expected).sum()
    assert inner > 1000


@pytest.mark.parametrize(
    "pieces",
    [
        "▁return s | ' | s | ▁the | ▁U | . | S | .",
        "▁ ( | 3 | . | 14 | ): | ▁well | - | know n",
        "▁na ï ve | ▁cafe \u0301 s | ▁日本 語 | 。",
        "▁ 😀 | x | ▁ é",
        "▁( | foo | _ | bar | () | ▁... !",
    ],
)
def test_words_of_sentencepiece(pieces):
    """It has none of its own: white space begins one, and so does a change of class."""
    row = [piece for piece in pieces.split() if piece != "|"]
    vocabulary = build_vocabulary([*BERT.split(), *row], "Unigram")
    starts = vocabulary.word_starts(5 + np.arange(len(row))[None])[0]
    expected = [i == 0 for word in pieces.split(" | ") for i in range(len(word.split()))]
    assert starts.tolist() == expected


def test_words_of_a_sentencepiece_tokenizer():
    ours = train("sentencepiece", True)
    (ids,) = ours.encode(["Returns the logger's name, if any."])
    starts = ours.vocabulary.word_starts(np.array([ids]))[0]
    text = "".join(" " * int(begins) + ours.piece(i) for i, begins in zip(ids, starts, strict=True))
    assert text.split() == [
        "▁returns",
        "▁the",
        "▁logger",
        "'",
        "s",
        "▁name",
        ",",
        "▁if",
        "▁any",
        ".",
    ]


def test_special_tokens_are_words():
    ours = train("wordpiece", True)
    v = ours.vocabulary
    inner = next(i for i in range(len(v)) if ours.piece(i).startswith("##"))
    row = np.array([[v.cls, inner, inner, v.mask, inner, v.sep, v.pad]])
    assert ours.vocabulary.word_starts(row).tolist() == [
        [True, True, False, True, True, True, True]
    ]
    assert v.special.sum() == 5 and not v.special[v.ordinary].any()
    assert len(v.ordinary) == len(v) - 5


def test_a_character_cut_in_pieces_is_one_word():
    """Its bytes go on with one another, and a letter's with the letters around it."""
    character = {byte: c for c, byte in BYTES.items()}
    first, second = (character[byte] for byte in "é".encode())
    caf, cut, rest = byte_level_ends("Ġcaf"), byte_level_ends(first), byte_level_ends(second)
    assert cut.continues and cut.first == caf.last
    assert rest.continues and rest.first == -1
    assert rest.last == caf.last != byte_level_ends("!").first
    assert byte_level_ends("Ġ" + first) == (False, caf.first, caf.last)


def test_the_table_of_bytes_is_that_of_tokenizers():
    assert sorted(BYTES) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTES.values()) == list(range(256))
    assert BYTES["Ġ"] == ord(" ") and BYTES["Ċ"] == ord("\n") and BYTES["A"] == ord("A")


def test_special_ids_by_either_spelling():
    found = special_ids({"<pad>": 7, "[UNK]": 1, "<s>": 0, "</s>": 2, "[MASK]": 9, "a": 3})
    assert found["pad"] == ("<pad>", 7) and found["mask"] == ("[MASK]", 9)
    with pytest.raises(UserError, match=r"no \[PAD\] or <pad>"):
        special_ids({"[UNK]": 1})
