"""What takes a MODEL: workdirs and Hugging Face folders, converted, used and begun from."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from bert_jax import pretrained
from bert_jax.convert import convert
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.errors import UserError
from bert_jax.objectives import build_pretrained
from tests import tiny
from tests.test_programs import pretrain, refused, start

SIZES = [
    "--config.model.embedding_size=24", "--config.train.eval_every=2",
    "--config.generator.width=0.5", "--config.generator.tie=embeddings",
]  # fmt: skip
CONFIG = "configs/electra.py:tiny"
BRACKETS = "[PAD] [UNK] [CLS] [SEP] [MASK]"


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """Four steps of a generator and a discriminator."""
    workdir = tmp_path_factory.mktemp("rtd") / "workdir"
    done = pretrain(
        workdir, corpus, "--config.train.steps=4", "--config.train.save_every=2", *SIZES,
        config=CONFIG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "RTD loss" in done.stdout and "replaced tokens found" in done.stdout
    return workdir


@pytest.fixture(scope="module")
def folders(run, tmp_path_factory):
    """Both parts of it in the Hugging Face layout."""
    out = tmp_path_factory.mktemp("hf")
    for part, kind in (("discriminator", "ForPreTraining"), ("generator", "ForMaskedLM")):
        done = start("convert", f"--model={run}", f"--output={out / part}", f"--part={part}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(f"Electra{kind}")
    return out


def test_a_folder_has_what_transformers_reads(folders):
    for part in ("discriminator", "generator"):
        assert {path.name for path in (folders / part).iterdir()} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        }  # fmt: skip
    mine, theirs = (
        load_file(folders / part / "model.safetensors") for part in ("discriminator", "generator")
    )
    words = "electra.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(mine[words], theirs[words])  # tied
    values = json.loads((folders / "generator" / "config.json").read_text())
    assert (values["hidden_size"], values["embedding_size"]) == (16, 24)
    assert values["vocab_size"] == tiny.VOCAB == len(mine[words])


def test_the_generator_fills_masks_from_either(run, folders):
    answers = []
    for model in (run, folders / "generator"):
        done = start("predict", "fill-mask", f"--model={model}", "The [MASK] on the table.")
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] and len(answers[0]["masks"][0]) == 5


def test_a_discriminator_cannot_fill_masks(folders):
    done = start("predict", "fill-mask", f"--model={folders / 'discriminator'}", "A [MASK].")
    refused(done, "has no mlm head", "heads: rtd")


def test_parts_that_are_not_there_are_named(run, folders, tmp_path):
    out = tmp_path / "out"
    refused(
        start("convert", f"--model={run}", f"--output={out}", "--part=teacher"), "discriminator"
    )
    refused(
        start("convert", f"--model={folders / 'generator'}", f"--output={out}", "--part=generator"),
        "no part",
    )
    refused(start("convert", f"--model={tmp_path}", f"--output={out}"), "config.json: cannot be")
    refused(start("convert", f"--model={tmp_path / 'none'}", f"--output={out}"), "no such folder")
    assert not out.exists()


def test_a_checkpoint_is_a_model_of_its_own(run, mesh):
    def parameters(model):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(pretrained.load(model).parameters)]

    newest, named, older = map(
        parameters, (run, run / "checkpoints" / "4", run / "checkpoints" / "2")
    )
    assert all(map(np.array_equal, newest, named))
    assert not all(map(np.array_equal, newest, older))
    with pytest.raises(UserError, match="no such folder"):
        pretrained.load(run / "checkpoints" / "3")


def test_a_folder_is_the_same_model_again(run, folders, mesh):
    expected, found = pretrained.load(run), pretrained.load(folders / "discriminator")
    assert replace(expected.config, hidden_dropout=0.0, attention_dropout=0.0) == replace(
        found.config, hidden_dropout=0.0, attention_dropout=0.0, scan_layers=False
    )
    assert found.heads == expected.heads == ("rtd",)
    for (path, mine), (_, theirs) in zip(
        nnx.to_flat_state(expected.parameters), nnx.to_flat_state(found.parameters), strict=True
    ):
        mine, theirs = np.asarray(mine.get_value()), np.asarray(theirs.get_value())
        if path[-1] == "word":
            mine, theirs = mine[: tiny.VOCAB], theirs[: tiny.VOCAB]
        np.testing.assert_array_equal(mine, theirs, err_msg=str(path))
    texts = tiny.sentences(20)
    assert expected.tokenizer.encode(texts) == found.tokenizer.encode(texts)


STILL = [
    "--config.train.steps=1", "--config.optimizer.warmup_steps=0",
    "--config.optimizer.learning_rate=1e-30", "--config.optimizer.weight_decay=0.0",
]  # fmt: skip


def begun(workdir, init, corpus, *arguments, config=CONFIG):
    """A run of one step that changes nothing, from a model."""
    return pretrain(workdir, corpus, *STILL, *SIZES, f"--init={init}", *arguments, config=config)


def parameters(model, part=""):
    found = nnx.to_flat_state(pretrained.load(model, part).parameters)
    return {
        path: np.asarray(v.get_value())[: tiny.VOCAB if path[-1] == "word" else None]
        for path, v in found
    }


def assert_same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for path, value in mine.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=str(path))


def test_a_run_begins_from_both_parts_of_a_run(run, corpus, tmp_path):
    done = begun(tmp_path / "next", run, corpus)
    assert done.returncode == 0, done.stderr
    for part in ("discriminator", "generator"):
        assert f"the {part} begins from" in done.stdout
        assert_same(parameters(run, part), parameters(tmp_path / "next", part))
    # It goes on as it began, and from nothing else.
    again = pretrain(tmp_path / "next", corpus, *STILL, *SIZES, config=CONFIG)
    refused(again, "was begun with --init=", "now it is nothing")


def test_a_run_begins_from_a_folder(folders, corpus, tmp_path):
    done = begun(tmp_path / "next", folders / "discriminator", corpus)
    assert done.returncode == 0, done.stderr
    assert "the discriminator begins from" in done.stdout
    assert "the generator begins anew" in done.stdout
    assert_same(parameters(folders / "discriminator"), parameters(tmp_path / "next"))


def test_two_stages(run, corpus, tmp_path):
    """A generator first; then a discriminator that begins from it, beside it, frozen."""
    first = pretrain(
        tmp_path / "first", corpus, "--config.train.steps=2", "--config.optimizer.warmup_steps=1",
        "--config.objective.rtd=0", *SIZES, config=CONFIG,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    second = [
        "--config.generator.width=1.0", "--config.generator.tie=none", "--config.objective.mlm=0",
        "--config.train.natural_bias=false",
    ]  # fmt: skip
    alone = pretrain(tmp_path / "alone", corpus, *STILL, *SIZES, *second, config=CONFIG)
    refused(alone, "objective.mlm=0 leaves the generator as it is", "--init")
    refused(begun(tmp_path / "odd", run, corpus, *second), "the generator", "give the config")
    moving = ["--config.optimizer.learning_rate=0.01", "--config.optimizer.weight_decay=0.1"]
    done = begun(tmp_path / "second", tmp_path / "first", corpus, *second, *moving)
    assert done.returncode == 0, done.stderr
    expected = parameters(tmp_path / "first")
    assert_same(expected, parameters(tmp_path / "second", "generator"))
    discriminator = parameters(tmp_path / "second", "discriminator")
    word = ("encoder", "embeddings", "word")
    assert not np.array_equal(discriminator[word], expected[word])
    np.testing.assert_allclose(discriminator[word], expected[word], atol=0.02)


def test_what_cannot_begin_is_refused(run, corpus, tmp_path):
    out = tmp_path / "out"
    refused(
        begun(out, run, corpus, "--config.model.hidden_size=48"), "give the config of that model"
    )
    refused(begun(out, run, corpus, "--config.model.activation=relu"), "activation=gelu")
    other = tiny.prepare(tmp_path, vocab_size=150)
    size = "--config.model.vocab_size=150"
    refused(begun(out, run, other, size), "its tokenizer gives other ids")


def test_a_fine_tuned_model_keeps_its_labels(tmp_path, mesh):
    config = replace(tiny.MODEL, num_labels=3)
    words = train_tokenizer("wordpiece", iter(tiny.sentences(300)), tiny.VOCAB, True, BRACKETS)
    config = replace(config, vocab_size=words.vocab_size)
    module = build_pretrained(config, ("classify",), nnx.Rngs(0))
    labels, state = ("no", "so so", "yes"), nnx.state(module, nnx.Param)
    mine = pretrained.Pretrained("random", config, ("classify",), state, words, labels)
    assert convert(mine, tmp_path / "hf") == []
    found = pretrained.load(tmp_path / "hf")
    assert (found.heads, found.labels, found.config) == (("classify",), labels, config)
    jax.tree.map(np.testing.assert_array_equal, found.parameters["heads"], state["heads"])
