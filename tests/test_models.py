"""What takes a MODEL: workdirs and Hugging Face folders, converted, used and begun from."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from bert_jax import config as configs, pretrained
from bert_jax.errors import UserError
from bert_jax.objectives import build_objective
from bert_jax.training.step import init_parameters
from tests import tiny
from tests.test_programs import pretrain, refused, start

SIZES = ["--config.model.embedding_size=24", "--config.train.eval_every=2"]
CONFIG = "configs/electra.py:tiny"


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
    refused(start("convert", f"--model={tmp_path}", f"--output={out}"), "not a workdir")
    refused(start("convert", f"--model={tmp_path / 'none'}", f"--output={out}"), "no such folder")
    assert not out.exists()


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


def test_a_run_begins_from_a_model(run, folders, corpus, tmp_path):
    """Its first evaluation is the model's own; the heads that the model lacks are new."""
    done = pretrain(
        tmp_path / "next", corpus, "--config.train.steps=1", "--config.optimizer.warmup_steps=0",
        "--config.optimizer.learning_rate=1e-30", "--config.optimizer.weight_decay=0.0", *SIZES,
        f"--init={folders / 'discriminator'}", config=CONFIG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the discriminator begins from" in done.stdout
    assert "the generator begins anew" in done.stdout
    mine, theirs = (
        dict(nnx.to_flat_state(pretrained.load(path).parameters))
        for path in (run, tmp_path / "next")
    )
    for path, value in mine.items():
        rows = slice(tiny.VOCAB) if path[-1] == "word" else slice(None)
        np.testing.assert_array_equal(value.get_value()[rows], theirs[path].get_value()[rows])


def test_two_stages(mesh, run):
    """A generator first, then a discriminator that begins from it beside it, frozen."""
    config = configs.load(run)
    model = replace(config.model, pooler=False)
    first = build_objective({"mlm": 1.0}, model)
    source = init_parameters(first, model, 3)
    learned = build_objective(
        {"rtd": 50.0}, model, replace(config.generator, width=1.0, tie="none")
    )
    parameters = init_parameters(learned, model, 4)
    tokenizer = pretrained.load(run).tokenizer
    stage = pretrained.Pretrained("first", model, ("mlm",), source, tokenizer)
    notes = pretrained.begin(stage, learned, model, parameters)
    assert len(notes) == 2 and not any("anew" in note for note in notes)
    found = dict(nnx.to_flat_state(parameters))
    for path, value in nnx.to_flat_state(source):
        if path[0] == "encoder":
            copies = [found[path], found[("generator", *path[1:])]]
        else:
            copies = [found[path]]
        for copy in copies:
            np.testing.assert_array_equal(copy.get_value(), value.get_value())


def test_a_model_of_another_shape_is_refused(mesh, run):
    config = configs.load(run)
    model = replace(config.model, hidden_size=48, num_heads=4)
    objective = build_objective({"mlm": 1.0}, model)
    parameters = init_parameters(objective, model, 0)
    before = [np.asarray(leaf.get_value()) for _, leaf in nnx.to_flat_state(parameters)]
    with pytest.raises(UserError, match="give the config of that model"):
        pretrained.begin(pretrained.load(run), objective, model, parameters)
    after = [np.asarray(leaf.get_value()) for _, leaf in nnx.to_flat_state(parameters)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
