"""Text to ids, and what a typed [MASK] means: the same promises of every kind of tokenizer."""

import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from bert_jax.data import tokenizer_json
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from bert_jax.data.tokenizers import load_tokenizer, train_tokenizer
from bert_jax.errors import UserError
from tests import tiny

BERT = "[PAD] [UNK] [CLS] [SEP] [MASK]"
ROBERTA = "<s> <pad> </s> <unk> ... <mask>"
SIZES = {"sentencepiece": 200, "wordpiece": 200, "bpe": 400}
ODD = [
    "", " ", "  two  spaces  ", "\ttab\r\n", "no\u00a0break\u200bzero", "\u3000wide", "a\u2028b",
    "Café naïve ÉCOLE", "e\u0301te\u0301 E\u0301", "А\u0301 q\u0303", "ＦＵＬＬ　ｗｉｄｔｈ １２３",
    "か\u3099 カﾞ 한국어", "日本語のテスト", "😀😂 👩‍👩‍👧 👍🏽 🇫🇷 ❤\ufe0f", "½ ² ﬁ … “q” ‘s’ ß İ ς",
    "a▁b ▁ c", "\x00nul\x7f\ufeff", "the garden\u0301s", "1\u20e3 x\u0336",
]  # fmt: skip


@functools.cache
def train(kind, special_tokens=BERT, lowercase=True):
    return train_tokenizer(kind, tiny.sentences(400), SIZES[kind], lowercase, special_tokens)


@pytest.fixture(scope="module", params=SIZES)
def tokenizer(request):
    return train(request.param)


@pytest.fixture(scope="module")
def sentencepiece():
    return train("sentencepiece")


@pytest.fixture(scope="module")
def bpe():
    return train("bpe", ROBERTA)


@pytest.mark.parametrize("kind", SIZES)
def test_special_tokens_have_the_ids_that_were_asked_for(kind, tokenizer):
    names = BERT.split()
    assert tokenizer.vocabulary.names == tuple(names)
    assert [tokenizer.piece(i) for i in range(5)] == names
    found = tokenizer.vocabulary
    assert [found.pad, found.unk, found.cls, found.sep, found.mask] == [0, 1, 2, 3, 4]

    last = train(kind, ROBERTA)
    size = SIZES[kind]
    assert last.vocab_size == len(last.vocabulary) == size
    assert [last.piece(i) for i in (0, 1, 2, 3, size - 1)] == "<s> <pad> </s> <unk> <mask>".split()
    found = last.vocabulary
    assert [found.pad, found.unk, found.cls, found.sep, found.mask] == [1, 3, 0, 2, size - 1]
    assert last.encode_prompt("<mask>") == last.encode_prompt("[MASK]") == [size - 1]
    assert len({last.piece(i) for i in range(size)}) == size


def test_the_vocabulary_has_the_size_that_was_asked_for(tokenizer):
    assert tokenizer.vocab_size == len(tokenizer.vocabulary) in SIZES.values()
    ids = [i for row in tokenizer.encode(tiny.sentences(50, seed=3)) for i in row]
    assert max(ids) < tokenizer.vocab_size and tokenizer.vocabulary.unk not in ids


@pytest.mark.parametrize("special_tokens", [BERT, ROBERTA])
@pytest.mark.parametrize("kind", SIZES)
def test_text_never_gives_a_special_id(kind, special_tokens, tmp_path):
    """Not even where its case is kept, and read back from tokenizer.json."""
    tokenizer = train(kind, special_tokens, lowercase=False)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    texts = []
    for name in [*BERT.split(), *ROBERTA.replace("...", "").split(), "［MASK］", "＜s＞"]:
        texts += [f"the {name} garden", name, name + name, f"x{name}x"]
    for each in (tokenizer, load_tokenizer(tmp_path)):
        ids = [*each.encode(texts), *(each.encode_with_offsets(text)[0] for text in texts)]
        special = {*np.flatnonzero(each.vocabulary.special).tolist()} - {each.vocabulary.unk}
        assert all(ids) and not special & {i for row in ids for i in row}


@pytest.mark.parametrize("special_tokens", [BERT, ROBERTA])
@pytest.mark.parametrize("kind", ["sentencepiece", "bpe"])
def test_a_typed_mask_gives_the_ids_of_a_masked_word(kind, special_tokens):
    """However many pieces a word has, and whatever follows it without a space."""
    tokenizer = train(kind, special_tokens)
    mask, name = tokenizer.vocabulary.mask, tokenizer.vocabulary.mask_token
    words = 0
    for sentence in tiny.sentences(60, seed=1):
        ids, offsets = tokenizer.encode_with_offsets(sentence)
        pieces = [tokenizer.piece(token) for token in ids]
        starts = [place for place, piece in enumerate(pieces) if piece[0] in "▁Ġ"]
        for first, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            while pieces[end - 1] in ".,":
                end -= 1
            count = end - first
            typed = (
                sentence[: offsets[first][0]].rstrip()
                + (" " if first else "")
                + name * count
                + sentence[offsets[end - 1][1] :]
            )
            hidden = [*ids[:first], *[mask] * count, *ids[end:]]
            assert tokenizer.encode_prompt(typed) == hidden, (sentence, typed)
            words += 1
    assert words > 300


def test_a_typed_mask_among_words(tokenizer):
    mask = tokenizer.vocabulary.mask
    before, after = tokenizer.encode(["the garden", "on its table."])
    assert tokenizer.encode_prompt("the garden [MASK] on its table.") == [*before, mask, *after]


def test_after_a_mask_a_word_goes_on_unless_there_is_a_space(bpe):
    mask = bpe.vocabulary.mask
    ids = bpe.encode_prompt("a <mask>s on")
    assert [bpe.piece(i) for i in ids] == ["Ġa", "<mask>", "s", "Ġon"]
    assert bpe.encode_prompt("a   <mask> on") == bpe.encode_prompt("a<mask> on")
    assert bpe.encode_prompt("<mask>  <mask>") == [mask, mask]


def test_prompt_without_a_mask_is_plain_text(tokenizer):
    mask = tokenizer.vocabulary.mask
    text = "The small garden."
    assert tokenizer.encode_prompt(text) == tokenizer.encode([text])[0]
    assert tokenizer.encode_prompt("[MASK]") == [mask]
    assert tokenizer.encode_prompt("[MASK][MASK] river") == [
        mask,
        mask,
        *tokenizer.encode(["river"])[0],
    ]


def test_offsets_cover_the_text(tokenizer):
    text = "Every quiet window forgets its table."
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode([text])[0]
    found = "".join(text[start:end] for start, end in offsets)
    assert found.replace(" ", "") == text.replace(" ", "")


def test_lower_case_and_back(tokenizer):
    assert tokenizer.encode(["THE GARDEN"]) == tokenizer.encode(["the garden"])
    found = tokenizer.vocabulary
    ids = tokenizer.encode(["the garden"])[0]
    assert tokenizer.decode([found.cls, *ids, found.mask, found.sep]) == (
        "[CLS] the garden [MASK] [SEP]"
    )


@pytest.mark.parametrize("kind", SIZES)
def test_case_can_be_kept(kind):
    cased = train(kind, lowercase=False)
    assert cased.encode(["The"]) != cased.encode(["the"])
    assert cased.decode(cased.encode(["The table."])[0]) == "The table."


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.sha256 == tokenizer.sha256 and type(again) is type(tokenizer)
    assert again.encode(ODD) == tokenizer.encode(ODD)
    again.save(tmp_path / "again")
    (file,) = (tmp_path / "again").iterdir()
    assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def run_apart(program, *arguments, **environment):
    """The output of a program in a Python of its own, without jax."""
    inherited = {name: v for name, v in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    out = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        env=inherited | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (out.returncode, out.stderr) == (0, "")
    return out.stdout


def test_training_repeats_in_another_process():
    """Whatever hashes are drawn there, and however many threads count."""
    program = """
import json, sys
from bert_jax.data.tokenizers import train_tokenizer
sentences, sizes, special_tokens = json.loads(sys.argv[1])
for kind, size in sizes.items():
    print(train_tokenizer(kind, iter(sentences), size, True, special_tokens).sha256)
"""
    facts = json.dumps([tiny.sentences(400), SIZES, BERT])
    out = run_apart(program, facts, PYTHONHASHSEED="7", RAYON_NUM_THREADS="3")
    assert out.split() == [train(kind).sha256 for kind in SIZES]


@pytest.mark.parametrize("kind", SIZES)
def test_what_reading_sentences_raises_comes_through(kind):
    class Interrupted(Exception):
        pass

    def sentences():
        yield from tiny.sentences(10)
        raise Interrupted

    with pytest.raises(Interrupted):
        train_tokenizer(kind, sentences(), SIZES[kind], True, BERT)


def test_a_process_that_used_threads_can_fork(tokenizer, tmp_path):
    """As loader workers do: no warning, and a child that tokenizes does not hang."""
    program = """
import os, sys
from bert_jax.data.tokenizers import load_tokenizer
tokenizer = load_tokenizer(sys.argv[1])
expected = tokenizer.encode(["the garden"] * 100)
child = os.fork()
if not child:
    os._exit(tokenizer.encode(["the garden"] * 100) != expected)
sys.exit(os.waitpid(child, 0)[1])
"""
    tokenizer.save(tmp_path)
    run_apart(program, str(tmp_path), RAYON_NUM_THREADS="3")


# tokenizer.json


def test_the_json_gives_our_ids(tokenizer):
    found = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    vocabulary = tokenizer.vocabulary
    texts = [*tiny.sentences(200, seed=2), *ODD, " ".join(ODD)]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert found.encode(text).ids == [vocabulary.cls, *ids, vocabulary.sep], repr(text)
    masked = found.encode(f"the {vocabulary.mask_token} on its table").ids[1:-1]
    assert masked == tokenizer.encode_prompt("the [MASK] on its table")


def test_the_json_joins_pairs(tokenizer):
    found = tokenizers.Tokenizer.from_str(tokenizer.to_json()).encode("the garden", "a table")
    first, second = tokenizer.encode(["the garden", "a table"])
    names = tokenizer.vocabulary
    if names.names[2] == "<s>":
        joined = [names.cls, *first, names.sep, names.sep, *second, names.sep]
        assert (found.ids, found.type_ids) == (joined, [0] * len(joined))
    else:
        assert found.ids == [names.cls, *first, names.sep, *second, names.sep]
        assert found.type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_a_control_symbol_that_was_made_a_common_piece_stays_out_of_text(sentencepiece):
    """As ALBERT's and others' models may have it."""
    proto = SentencePieceTokenizer(sentencepiece.model)._proto
    for piece in proto.pieces[2:5]:
        piece.type = piece.USER_DEFINED
    found = SentencePieceTokenizer(proto.SerializeToString())
    assert not {2, 3, 4} & set(found.encode(["a [MASK] [SEP] [CLS]"])[0])


# Folders of others.


def test_berts_files(tmp_path):
    ours = train("wordpiece")
    pieces = [ours.piece(i) for i in range(ours.vocab_size)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    texts = [*tiny.sentences(20), "GARDEN ÉCOLE", "日本"]
    found = load_tokenizer(tmp_path)
    assert found.vocab_size == 200 and found.encode(texts) == ours.encode(texts)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = load_tokenizer(tmp_path)
    assert cased.encode(["garden"]) == ours.encode(["garden"])
    assert cased.encode(["GARDEN"]) == [[cased.vocabulary.unk]]


def test_robertas_files(bpe, tmp_path):
    model = json.loads(bpe.to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    found = load_tokenizer(tmp_path)
    assert found.encode([" the garden"]) == bpe.encode(["the garden"])
    assert [found.piece(i) for i in found.encode(["a a"])[0]] == ["a", "Ġa"]
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert load_tokenizer(tmp_path).encode(["the garden"]) == bpe.encode(["the garden"])


def test_alberts_files(sentencepiece, tmp_path):
    cased = train("sentencepiece", "<pad> <unk> [CLS] [SEP] [MASK]", lowercase=False)
    (tmp_path / "spiece.model").write_bytes(cased.model)
    found = load_tokenizer(tmp_path)
    assert found.vocabulary.names == ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    assert found.encode(["THE gardén"]) == cased.encode(["the garden"])
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(tmp_path).encode(["THE gardén"]) == cased.encode(["THE garden"])


def test_a_json_of_others(tmp_path):
    """One without the model's type, with padding switched on and a token of its own."""
    description = json.loads(train("wordpiece").to_json())
    del description["model"]["type"]
    description["post_processor"] = None
    description["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    own = dict(description["added_tokens"][0], id=200, content="<<x>>", special=False)
    description["added_tokens"] = [own]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    found = load_tokenizer(tmp_path)
    assert found.vocab_size == 201
    before, after = found.encode(["the", "table"])
    (ids,) = found.encode(["the<<x>>table"])
    assert ids == [*before, 200, *after]
    starts = found.vocabulary.word_starts(np.array([ids]))[0]
    assert starts[len(before)] and starts[len(before) + 1]


def test_what_cannot_be_read_is_named(tmp_path, sentencepiece, bpe):
    def refused(match, **files):
        folder = tmp_path / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            name = name.replace("__", ".")
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=match) as caught:
            load_tokenizer(folder)
        assert "\n" not in str(caught.value) and "folder" in str(caught.value)

    whole = json.loads(bpe.to_json())

    def changed(**changes):
        return json.dumps(whole | changes)

    model = whole["model"]
    vocab = {piece: number for piece, number in model["vocab"].items() if piece != "<mask>"}
    refused("no tokenizer can be read here")
    refused("no tokenizer can be read", tokenizer__model=b"nonsense")
    refused("no tokenizer can be read", tokenizer__model=b"")
    refused("no tokenizer can be read", tokenizer__model=sentencepiece.model[:2000])
    refused("JSONDecodeError", tokenizer__json="{")
    refused("JSONDecodeError", tokenizer__json=bpe.to_json()[:5000])
    refused("UnicodeDecodeError", tokenizer__json=b"\xff\xfe")
    refused("no tokenizer can be read", tokenizer__json="[]")
    refused("no tokenizer can be read", tokenizer__json="{}")
    refused("no tokenizer can be read", tokenizer__json='{"model": {"type": "BPE"}}')
    refused("WordLevel", tokenizer__json=changed(model={"type": "WordLevel", "vocab": {}}))
    refused("WordLevel", tokenizer__json=changed(model={"unk_token": "", "vocab": {}}))
    refused("not byte-level", tokenizer__json=changed(pre_tokenizer=None))
    refused(
        r"no \[MASK\] or <mask>",
        tokenizer__json=changed(model=model | {"vocab": vocab}, added_tokens=[]),
    )
    refused("package says", tokenizer__json=changed(normalizer={"type": "Nothing"}))
    refused(r"no \[PAD\] or <pad>", vocab__txt="a\nb\n")
    refused("no JSON object", vocab__txt="a\nb\n", tokenizer_config__json="[]")
    refused(
        "package says",
        vocab__json=json.dumps(model["vocab"]),
        merges__txt="#version\nno pair here\n",
    )
    refused("save tokenizer.json", sentencepiece__bpe__model=sentencepiece.model)


# Mistakes in a config.


@pytest.mark.parametrize("kind", SIZES)
def test_a_size_that_does_not_fit_the_text_is_named(kind):
    with pytest.raises(UserError, match="model.vocab_size=5000.* pieces at the most"):
        train_tokenizer(kind, tiny.sentences(40), 5000, True, BERT)
    with pytest.raises(UserError, match="model.vocab_size=20: .*raise it"):
        train_tokenizer(kind, tiny.sentences(40), 20, True, BERT)


@pytest.mark.parametrize("kind", SIZES)
def test_the_most_that_a_text_gives_can_be_had(kind):
    with pytest.raises(UserError) as caught:
        train_tokenizer(kind, tiny.sentences(40), 5000, True, ROBERTA)
    most = int(str(caught.value).split(" gives ")[1].split()[0])
    assert train_tokenizer(kind, tiny.sentences(40), most, True, ROBERTA).vocab_size == most


@pytest.mark.parametrize(
    "special_tokens, match",
    [
        ("[PAD] [UNK] [CLS] [SEP]", r"\[MASK\] and <mask>"),
        ("[PAD] [UNK] [CLS] [SEP] [MASK] <mask>", r"\[MASK\] and <mask>"),
        ("[PAD] [PAD] [UNK] [CLS] [SEP] [MASK]", r"\[PAD\] and <pad>"),
        ("[PAD] [UNK] [CLS] [SEP] [MASK] [unused]", r"\[unused\] is none of"),
        ("[PAD] ... [UNK] ... [CLS] [SEP] [MASK]", "write it once"),
    ],
)
def test_special_tokens_that_are_not_the_five_are_named(special_tokens, match):
    with pytest.raises(UserError, match=match) as caught:
        train("wordpiece", special_tokens)
    assert "corpus.special_tokens" in str(caught.value)


def test_sentencepiece_has_its_mask_at_an_end():
    names = "<unk> [MASK] ... [PAD] [SEP] [CLS]"
    found = train("sentencepiece", names).vocabulary
    assert [found.unk, found.mask, found.pad, found.sep, found.cls] == [0, 1, 197, 198, 199]
    with pytest.raises(UserError, match="corpus.special_tokens"):
        train("sentencepiece", "[UNK] ... [MASK] [PAD] [CLS] [SEP]")


def test_a_description_is_completed_once():
    description = json.loads(train("bpe").to_json())
    assert tokenizer_json.complete(description) == description
    assert FastTokenizer(description).to_json() == json.dumps(description, ensure_ascii=False)
