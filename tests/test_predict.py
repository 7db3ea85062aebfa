"""What fine-tuned models and encoders say of texts, in the process of the tests."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax import pretrained
from bert_jax.errors import UserError
from bert_jax.predict import parse, predict
from bert_jax.predictions import base, lines
from bert_jax.predictions.embed import first_layers
from bert_jax.predictions.lines import Line
from tests import tiny
from tests.test_programs import refused, start

ODD = [
    "", " ", "\u2603 \u2603", "\U0001f642\U0001f469\u200d\U0001f467 no", "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 the", "a\u0301 e\u0301", "\x00\x07", "x" * 500,
]  # fmt: skip


OPENED = {}  # by what they were asked for; a model takes a second to load


def ask(task, model, *words, stdin=None):
    """The answers, of words on the command line or of the lines."""
    kind, arguments = parse([task, f"--model={model}", *words])
    key = (task, str(model), *(word for word in words if word.startswith("--")))
    opened = OPENED.setdefault(key, None) or kind(arguments)
    OPENED[key] = opened
    chunk = [Line(text, f"stdin:{number}") for number, text in enumerate(stdin or [], 1)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        predict(opened, [kind.given(arguments.texts) if stdin is None else chunk])
    return [json.loads(line) for line in out.getvalue().splitlines()]


def told(workdir):
    return [json.loads(line) for line in (workdir / "predictions.jsonl").open()]


def same(mine, theirs):
    """Equal, and numbers to a unit of the sixth digit: a row that is alone goes through another
    product than many do, and that is rounded in another way."""
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for name in mine:
            same(mine[name], theirs[name])
    elif isinstance(mine, list):
        for a, b in zip(mine, theirs, strict=True):
            same(a, b)
    else:
        assert mine == (pytest.approx(theirs, abs=1.5e-6) if type(mine) is float else theirs)


def rows(labelled):
    return [json.loads(line) for line in (labelled / "dev.jsonl").open()]


def test_classes_are_those_of_the_training(fine_tuned, labelled):
    workdir = fine_tuned("classify")
    said = ask("classify", workdir, stdin=[row["sentence"] for row in rows(labelled)])
    for mine, theirs in zip(said, told(workdir), strict=True):
        assert [mine["text"]] == theirs["texts"] and mine["label"] == theirs["label"]
        assert mine["probability"] == pytest.approx(theirs["probability"], abs=2e-5)
        assert mine["probabilities"].keys() == {"no", "yes"}
        assert sum(mine["probabilities"].values()) == pytest.approx(1, abs=2e-6)


def test_pairs_and_numbers_are_those_of_the_training(fine_tuned, labelled):
    workdir = fine_tuned("pairs")
    pairs = [{"texts": [row["sentence"], row["context"]]} for row in rows(labelled)]
    said = ask("classify", workdir, "--json", stdin=list(map(json.dumps, pairs)))
    for mine, theirs, pair in zip(said, told(workdir), pairs, strict=True):
        assert mine["texts"] == pair["texts"] and mine["label"] == theirs["label"]
        assert mine["probability"] == pytest.approx(theirs["probability"], abs=2e-5)
    said = ask("classify", fine_tuned("regress"), *(row["sentence"] for row in rows(labelled)))
    numbers = [one["number"] for one in told(fine_tuned("regress"))]
    np.testing.assert_allclose([one["number"] for one in said], numbers, atol=2e-5)
    with pytest.raises(UserError, match="argument 1: 1 text.*sentence and context"):
        ask("classify", workdir, "one text")
    with pytest.raises(UserError, match='stdin:1: 2 text.*write {"text"'):
        ask("classify", fine_tuned("classify"), "--json", stdin=[json.dumps(pairs[0])])


def test_tags_are_those_of_the_training(fine_tuned):
    workdir = fine_tuned("tag")
    theirs = told(workdir)
    texts = [" ".join(one["words"]) for one in theirs]
    given = [json.dumps({"words": one["words"]}) for one in theirs]
    for said in (ask("tag", workdir, stdin=texts), ask("tag", workdir, "--json", stdin=given)):
        assert [[one["tag"] for one in mine["words"]] for mine in said] == [
            one["tags"] for one in theirs
        ]
        assert any(one["entities"] for one in said)
        for mine in said:
            for one in (*mine["words"], *mine["entities"]):
                at = mine["text"][one["begin"] : one["end"]]
                assert at == one.get("word", one.get("text"))
            assert {one["type"] for one in mine["entities"]} <= {"NO"}


def test_words_are_told_from_punctuation(fine_tuned):
    (said,) = ask("tag", fine_tuned("tag"), "  (No U.K. don't) ... שלום! 🙂")
    assert [one["word"] for one in said["words"]] == [
        "(", "No", "U.K", ".", "don't", ")", ".", ".", ".", "שלום", "!", "🙂",
    ]  # fmt: skip
    assert [said["text"][one["begin"] : one["end"]] for one in said["words"]] == [
        one["word"] for one in said["words"]
    ]


def test_answers_are_those_of_the_training(fine_tuned, labelled):
    workdir = fine_tuned("answer")
    articles = json.loads((labelled / "dev.json").read_text())["data"]
    contexts = [one["context"] for article in articles for one in article["paragraphs"]]
    given = [json.dumps({"question": "which", "context": context}) for context in contexts]
    said = ask("answer", workdir, stdin=given)
    for mine, theirs, context in zip(said, told(workdir), contexts, strict=True):
        assert (mine["answer"] or "") == theirs["answer"]
        assert mine["null_difference"] == pytest.approx(theirs["null_difference"], abs=2e-3)
        if mine["answer"]:
            assert context[mine["begin"] : mine["end"]] == mine["answer"]
    always = ask("answer", workdir, "--threshold=1e9", stdin=given)
    assert [one["answer"] for one in always] == [one["best"][0]["text"] for one in told(workdir)]
    none = ask("answer", workdir, "--threshold=-1e9", "which", contexts[0])
    assert none[0]["answer"] is none[0]["begin"] is none[0]["score"] is None
    (empty,) = ask("answer", workdir, "which", "")
    assert empty["answer"] is None
    (long,) = ask("answer", workdir, "which " * 99, "the table " * 2000)
    assert long["question"].startswith("which which")
    with pytest.raises(UserError, match="the question and the context"):
        ask("answer", workdir, "alone")


def test_embeddings_are_pooled_hidden_states(encoder):
    text = "No table on the table."
    source = pretrained.load(encoder)
    ids = source.tokenizer.encode([text])[0]
    ids = jnp.array([[source.tokenizer.vocabulary.cls, *ids, source.tokenizer.vocabulary.sep]])
    whole = source.module(source.parameters).encoder
    segments = jnp.ones_like(ids)
    hidden = np.asarray(whole(ids, jnp.zeros_like(ids), segments))[0]
    for words, expected in (
        ([], hidden.mean(0)),
        (["--pool=cls"], hidden[0]),
        (["--pool=max"], hidden.max(0)),
        (["--layer=2"], hidden.mean(0)),
        (["--layer=-1", "--normalize"], hidden.mean(0) / np.linalg.norm(hidden.mean(0))),
    ):
        (said,) = ask("embed", encoder, *words, text)
        np.testing.assert_allclose(said["embedding"], expected, atol=1e-5)
    # What layer 1 gives goes through the second block of the whole model to the same end.
    (first,) = ask("embed", encoder, "--layer=1", "--pool=cls", text)
    below = first_layers(source, -2)
    middle = below.module(below.parameters).encoder(ids, jnp.zeros_like(ids), segments)
    np.testing.assert_allclose(first["embedding"], middle[0, 0], atol=1e-5)
    graphdef, blocks = nnx.split(whole.layers)
    block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[1], blocks))
    np.testing.assert_allclose(block(middle, segments, None)[0], hidden, atol=1e-4)
    with pytest.raises(UserError, match="--layer=3: must be from 1 to 2"):
        ask("embed", encoder, "--layer=3", text)


def test_rerank(encoder, fine_tuned, labelled):
    texts = ["the table", "no gardens here", "every table"]
    (said,) = ask("rerank", encoder, "no gardens here", *texts)
    assert [one["index"] for one in said["ranking"]][0] == 1
    assert said["ranking"][0]["score"] == pytest.approx(1, abs=1e-5)
    vectors = [one["embedding"] for one in ask("embed", encoder, "--normalize", *texts)]
    for one in said["ranking"]:
        assert one["text"] == texts[one["index"]]
        assert one["score"] == pytest.approx(np.dot(vectors[1], vectors[one["index"]]), abs=1e-4)
    pairs = fine_tuned("pairs")
    line = json.dumps({"query": "no", "texts": texts})
    other = json.dumps({"query": "the", "texts": []})
    said, empty = ask("rerank", pairs, "--label=yes", stdin=[line, "", other])
    assert empty == {"query": "the", "ranking": []}
    scores = [one["score"] for one in said["ranking"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    for one in said["ranking"]:
        (alone,) = ask("classify", pairs, "--json", json.dumps({"texts": ["no", one["text"]]}))
        same(one["score"], alone["probabilities"]["yes"])
    row = rows(labelled)[0]
    (said,) = ask("rerank", fine_tuned("choose"), row["context"], row["right"], row["wrong"])
    assert said["ranking"][0]["index"] == told(fine_tuned("choose"))[0]["choice"]
    for model, words, message in (
        (pairs, [], "--label=: name the class of texts that fit, one of no, yes"),
        (pairs, ["--label=yes", "--pool=cls"], "--pool"),
        (fine_tuned("classify"), ["--label=yes"], "fine-tuned on single texts"),
        (encoder, ["--label=yes"], "has no classes"),
    ):
        with pytest.raises(UserError, match=message):
            ask("rerank", model, *words, "no", "the")


def test_an_answer_does_not_depend_on_what_stands_around_it(fine_tuned):
    rng = np.random.default_rng(0)
    words = " ".join(tiny.sentences(40)).split()
    texts = [" ".join(rng.choice(words, rng.integers(0, 60))) for _ in range(90)] + ODD
    for task in ("classify", "tag"):
        together = ask(task, fine_tuned(task), stdin=texts)
        assert [one["text"] for one in together] == texts
        for number in (0, 17, 89, *range(90, len(texts))):
            (alone,) = ask(task, fine_tuned(task), stdin=[texts[number]])
            same(alone, together[number])


def test_odd_texts_are_answered(fine_tuned, encoder):
    """Empty, unknown, of other scripts and directions, and far longer than the model's rows."""
    texts = [*ODD, " ".join(["the", "☃", "🙂", "שלום"] * 2000)]
    said = ask("embed", encoder, stdin=texts)
    assert [one["text"] for one in said] == texts
    assert all(np.isfinite(one["embedding"]).all() for one in said)
    prompts = [f"{text} [MASK]".strip() for text in ODD if len(text) < 100]
    for prompt, one in zip(prompts, ask("fill-mask", encoder, stdin=prompts), strict=True):
        assert one["text"] == prompt and len(one["masks"]) == 1 and len(one["masks"][0]) == 5
    with pytest.raises(UserError, match="positions; shorten the text"):
        ask("fill-mask", encoder, texts[-1] + " [MASK]")
    texts = [text for text in texts if "\0" not in text]  # which JSON is refused for
    given = [json.dumps({"question": "which", "context": text}) for text in texts]
    for text, one in zip(texts, ask("answer", fine_tuned("answer"), stdin=given), strict=True):
        assert one["answer"] is None or text[one["begin"] : one["end"]] == one["answer"]
    ranked = {"query": "", "texts": texts}
    for model, words in ((encoder, []), (fine_tuned("pairs"), ["--label=yes"])):
        (one,) = ask("rerank", model, *words, stdin=[json.dumps(ranked)])
        assert sorted(place["index"] for place in one["ranking"]) == [*range(len(texts))]


def test_long_texts_are_read_in_parts(fine_tuned, encoder, capsys):
    base.note.cache_clear()
    source = pretrained.load(encoder)
    words = " ".join(tiny.sentences(60)).lower().replace(".", " .").split()
    text = " ".join(word for word in words if len(source.tokenizer.encode([word])[0]) == 1)
    form = base.row_form(source)
    examples = base.windowed_texts([(text,)], source.tokenizer, form)
    assert len(examples) > 2
    parts = [
        source.tokenizer.decode(examples.input_ids[examples.row(n)][1:-1].tolist())
        for n in range(len(examples))
    ]
    weights = examples.lengths
    said = {
        long: ask("classify", fine_tuned("classify"), f"--long={long}", text)[0]["probabilities"]
        for long in ("mean", "max", "first")
    }
    alone = ask("classify", fine_tuned("classify"), stdin=parts)
    each = np.array([one["probabilities"]["yes"] for one in alone])
    assert said["first"]["yes"] == pytest.approx(each[0], abs=1e-5)
    assert said["mean"]["yes"] == pytest.approx(np.average(each, weights=weights), abs=1e-5)
    surest = each[np.argmax(np.maximum(each, 1 - each))]
    assert said["max"]["yes"] == pytest.approx(surest, abs=1e-5)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3 and all("64 positions" in note for note in notes)
    ask("classify", fine_tuned("classify"), text, text)
    assert "note: " not in capsys.readouterr().err
    vectors = np.array([one["embedding"] for one in ask("embed", encoder, stdin=parts)])
    for long, expected in (
        ("first", vectors[0]),
        ("max", vectors.max(0)),
        ("mean", np.average(vectors, axis=0, weights=weights)),
    ):
        (whole,) = ask("embed", encoder, f"--long={long}", text)
        np.testing.assert_allclose(whole["embedding"], expected, atol=1e-5)
    (tagged,) = ask("tag", fine_tuned("tag"), text)
    assert [one["word"] for one in tagged["words"]] == text.split()


def test_what_stands_before_a_broken_line_is_answered(fine_tuned, capsys):
    kind, arguments = parse(["classify", f"--model={fine_tuned('classify')}", "--json"])
    texts = ['{"text": "no"}', "", "no JSON", '{"text": "the"}']
    chunk = [Line(text, f"stdin:{number}") for number, text in enumerate(texts, 1)]
    with pytest.raises(UserError, match="stdin:3: is no JSON"):
        predict(kind(arguments), [chunk])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_converted_model_says_the_same(fine_tuned, tmp_path):
    """`make oracle` has transformers load such folders."""
    texts = ["no table", "the table", ""]
    done = start("convert", f"--model={fine_tuned('classify')}", f"--output={tmp_path / 'hf'}")
    assert done.returncode == 0 and "BertForSequenceClassification" in done.stdout, done.stderr
    assert ask("classify", tmp_path / "hf", *texts) == ask(
        "classify", fine_tuned("classify"), *texts
    )


def test_a_head_that_is_missing_is_named(encoder, fine_tuned):
    for task, words in (("classify", ["x"]), ("tag", ["x"]), ("answer", ["x", "y"])):
        with pytest.raises(UserError, match=f"has no {task} head"):
            ask(task, encoder, *words)
    with pytest.raises(UserError, match="has no mlm head"):
        ask("fill-mask", fine_tuned("tag"), "[MASK]")
    assert ask("fill-mask", encoder, "--top-k=2", "The [MASK].")[0]["masks"]
    assert lines.LINES > base.BATCH


def test_the_program(fine_tuned):
    workdir = fine_tuned("classify")
    texts = ["no table", "", "the table"] * 3334  # many chunks of lines
    done = start("predict", "classify", f"--model={workdir}", input="\n".join(texts))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == texts
    refused(start("predict", "classify", f"--model={workdir}", "--top-k=3", "x"), "--top-k=3")
    refused(start("predict"), "the task is missing: one of fill-mask, classify")
