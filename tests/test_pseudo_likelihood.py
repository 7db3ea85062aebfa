"""The pseudo-log-likelihood of texts, beside one computed a token at a time."""

import json
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import pseudo_likelihood
from bert_jax.errors import UserError
from bert_jax.objectives.mlm import word_embedding
from tests import tiny
from tests.test_programs import refused, start


@pytest.fixture(scope="module")
def source(encoder):
    return pseudo_likelihood.load_masked_model(encoder)


def direct(source, text, masked):
    """One row a token, none of it padding, through the softmax."""
    words = source.tokenizer.vocabulary
    ids = np.array([words.cls, *source.tokenizer.encode([text])[0], words.sep])
    module, nats = source.module(source.parameters), 0.0
    pieces = [source.tokenizer.piece(token) for token in ids.tolist()]
    for place in range(1, len(ids) - 1):
        end = place + 1
        while masked == "word" and pieces[end].startswith("##"):
            end += 1
        row = jnp.array([ids]).at[0, place:end].set(words.mask)
        hidden = module.encoder(row, jnp.zeros_like(row), jnp.ones_like(row))
        at = jnp.array([[place]])
        logits = module.heads["mlm"](hidden, at, word_embedding(module.encoder))
        nats -= float(jax.nn.log_softmax(logits[0, 0])[ids[place]])
    return nats, len(ids) - 2


@pytest.mark.parametrize("masked", pseudo_likelihood.MASKS)
def test_each_token_is_masked_in_turn(source, masked):
    texts = ["A  table.", *tiny.sentences(3, seed=7), "\u2603 no"]
    found = pseudo_likelihood.score(source, texts, masked)
    for number, text in enumerate(texts):
        nats, tokens = direct(source, text, masked)
        assert found.nats[number] == pytest.approx(nats, rel=1e-5)
        assert found.tokens[number] == tokens
    assert found.unknown.tolist() == [0, 0, 0, 0, 1]
    assert found.words.tolist()[::4] == [2, 2] and found.characters.tolist()[::4] == [8, 4]
    scores = {name: one.score for name, one in found.intervals().items()}
    total = found.nats.sum()
    assert scores == {
        "pseudo_perplexity": pytest.approx(np.exp(total / found.tokens.sum())),
        "pseudo_perplexity_by_word": pytest.approx(np.exp(total / found.words.sum())),
        "bits_by_character": pytest.approx(total / found.characters.sum() / np.log(2)),
    }
    for one in found.intervals().values():
        assert one.low < one.score < one.high


def test_words_are_masked_to_their_ends(source):
    """What a masked token of a word has beside it are the pieces before it alone."""
    text = tiny.sentences(1, seed=3)[0]
    by_token, by_word = (
        pseudo_likelihood.score(source, [text], masked).nats[0]
        for masked in pseudo_likelihood.MASKS
    )
    assert by_token != pytest.approx(by_word, abs=1e-3)


def test_a_score_does_not_depend_on_the_other_texts(source):
    texts = [" ".join(tiny.sentences(n, seed=n)) for n in (1, 2, 3)]  # rows of two lengths
    together = pseudo_likelihood.score(source, texts, "token")
    alone = [pseudo_likelihood.score(source, [text], "token").nats[0] for text in texts]
    np.testing.assert_allclose(together.nats, alone, rtol=1e-6)


def test_long_texts_stand_in_windows(source):
    words = " ".join(tiny.sentences(30)).lower().replace(".", " .").split()
    text = " ".join(w for w in words if len(source.tokenizer.encode([w])[0]) == 1)
    ids = source.tokenizer.encode([text])[0]
    count = -(-len(ids) // (source.config.max_positions - 2))
    assert count > 1
    borders = np.linspace(0, len(ids), count + 1).astype(int)
    parts = [source.tokenizer.decode(ids[a:b]) for a, b in zip(borders, borders[1:], strict=False)]
    reported = []
    whole = pseudo_likelihood.score(source, [text], "token", lambda *n: reported.append(n))
    each = pseudo_likelihood.score(source, parts, "token")
    assert whole.nats[0] == pytest.approx(each.nats.sum()) and whole.tokens[0] == len(ids)
    assert reported[-1] == (len(ids), len(ids))


def test_files_of_texts(tmp_path):
    plain = tmp_path / "a.txt"
    plain.write_bytes("\ufeffone\r\n\n  two  \nthree".encode())
    packed = tmp_path / "a.txt.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    for path in (plain, packed):
        assert pseudo_likelihood.read_texts(str(path)) == ("one", "two", "three")
        assert pseudo_likelihood.read_texts(str(path), 2) == ("one", "two")
    plain.write_bytes(b"one\n\xff\xfe\n")
    for content, said in ((None, "line 2 is not UTF-8"), (b" \n\n", "has no text")):
        if content is not None:
            plain.write_bytes(content)
        with pytest.raises(UserError, match=said):
            pseudo_likelihood.read_texts(str(plain))
    with pytest.raises(UserError, match="is a folder"):
        pseudo_likelihood.read_texts(str(tmp_path))


def test_the_program(encoder, fine_tuned, tmp_path):
    texts = tiny.sentences(6, seed=9)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    done = start(
        "evaluate", f"--model={encoder}", f"--text={tmp_path / 'texts.txt'}", "--limit=4",
        f"--output={tmp_path / 'out'}", "--mask=word",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "out" / "scores.json").read_text())
    told = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert [one["text"] for one in told] == texts[:4] and values["masked"] == "word"
    nats = -sum(one["pll"] for one in told)
    assert values["scores"]["pseudo_perplexity"] == pytest.approx(np.exp(nats / values["tokens"]))
    assert f"pseudo_perplexity {values['scores']['pseudo_perplexity']:.4f}  95% " in done.stdout
    piped = start(
        "evaluate", f"--model={encoder}", "--text=-", "--mask=word", input="\n".join(texts[:4])
    )
    assert piped.stdout.splitlines()[1:] == done.stdout.splitlines()[1:5]
    workdir = fine_tuned("tag")
    for words, said in (
        ([f"--model={workdir}", "--text=-"], "has no mlm head, so it cannot score a text"),
        ([f"--model={encoder}", "--text=nowhere"], "--text=nowhere: no such file"),
        ([f"--model={encoder}", "--text=-", "--file=x"], "--file is not for plain text"),
        ([f"--model={workdir}", "--limit=3"], "--limit is not for labelled data"),
        ([f"--model={encoder}", "--text=-", "--limit=-1"], "--limit=-1: must be 0"),
        ([f"--model={encoder}"], "give --text=FILE for a pseudo-perplexity"),
    ):
        refused(start("evaluate", *words, input="x"), said)
