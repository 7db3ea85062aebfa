"""Fine-tuning of adapters, from a MODEL to deltas, scores, and a merged model."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from bert_jax import beginning, finetuned, pretrained
from bert_jax.convert import convert
from bert_jax.errors import UserError
from bert_jax.evaluate import evaluate
from bert_jax.finetune import finetune
from bert_jax.models.adapters import TARGETS, AdaptConfig, is_adapter
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.sentences import Classification
from bert_jax.training.metrics import read_metrics
from bert_jax.training.step import init_parameters
from tests import tiny
from tests.finetuning import config_of
from tests.test_predict import ask, told
from tests.test_programs import refused, start

LORA = AdaptConfig("lora", rank=4, alpha=8.0, targets=" ".join(TARGETS))
BOTTLENECK = AdaptConfig("bottleneck", size=16)
RATE = {"optimizer": {"learning_rate": 2e-2}}


@pytest.fixture(scope="module")
def base(encoder, tmp_path_factory):
    """A model of its own for the tests here, which move it."""
    return shutil.copytree(encoder, tmp_path_factory.mktemp("base") / "hf")


@pytest.fixture(scope="module")
def runs(base, labelled, tmp_path_factory, mesh):
    """A workdir of each kind."""
    folder = tmp_path_factory.mktemp("adapters")
    for adapt, changes in (
        (LORA, RATE), (BOTTLENECK, {"optimizer": {"learning_rate": 1e-2}, "epochs": 12}),
    ):  # fmt: skip
        config = config_of(labelled, adapt=adapt, **changes)
        finetune(config, str(base), folder / adapt.kind, mesh)
    return folder


def flat(parameters):
    return {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(parameters)}


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_it_learns_and_only_what_is_trained_moves(runs, base, kind):
    assert finetuned.read_scores(runs / kind)["scores"]["accuracy"] >= 0.9
    mine, theirs = (flat(pretrained.load(where).parameters) for where in (runs / kind, base))
    for path, value in theirs.items():
        if path[0] == "encoder" and not (kind == "bottleneck" and "norm" in str(path)):
            np.testing.assert_array_equal(mine[path], value, err_msg=str(path))
    assert any(is_adapter(path) for path in mine)


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_scores_and_answers_are_those_of_the_training(runs, labelled, kind):
    assert evaluate(str(runs / kind)).scores == finetuned.read_scores(runs / kind)["scores"]
    rows = [json.loads(line)["sentence"] for line in (labelled / "dev.jsonl").open()]
    said = ask("classify", runs / kind, stdin=rows)
    assert [one["label"] for one in said] == [one["label"] for one in told(runs / kind)]
    (one,) = ask("embed", runs / kind, "--layer=1", rows[0])
    assert len(one["embedding"]) == tiny.MODEL.hidden_size


def test_a_checkpoint_is_small(runs, labelled, base, tmp_path, mesh):
    adapt = AdaptConfig("lora", rank=1, targets="value")
    for name, changes in (("all", {}), ("delta", {"adapt": adapt})):
        finetune(config_of(labelled, epochs=1, **changes), str(base), tmp_path / name, mesh)

    def size(name):
        found = (tmp_path / name / "checkpoints").rglob("*")
        return sum(path.stat().st_size for path in found if path.is_file())

    assert size("delta") < 0.3 * size("all")


def test_it_goes_on_to_the_same_bits(labelled, base, tmp_path, mesh, monkeypatch):
    config = config_of(labelled, dropout=0.1, epochs=3, adapt=LORA, **RATE)
    whole = finetune(config, str(base), tmp_path / "whole", mesh)
    judged, real = [], finetuned.outputs

    def outputs(*arguments):
        judged.append(1)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(finetuned, "outputs", outputs)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, str(base), tmp_path / "cut", mesh)
    assert finetune(config, str(base), tmp_path / "cut", mesh) == whole
    losses = [
        [r["loss"] for r in read_metrics(tmp_path / name) if "loss" in r]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1] and len(losses[0]) > 3
    mine, theirs = (flat(pretrained.load(tmp_path / one).parameters) for one in ("cut", "whole"))
    for path, value in mine.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=str(path))


def test_the_merged_model_says_the_same(runs, tmp_path, mesh):
    """Within 1e-5, as transformers will load it."""
    applied = pretrained.load(runs / "lora")
    assert convert(applied, tmp_path / "hf") == []
    merged = pretrained.load(tmp_path / "hf")
    assert not merged.adapt.kind and merged.labels == applied.labels
    batch = tiny.on_mesh(mesh, tiny.random_batch(applied.config))
    learned = FineTuning(Classification())
    mine, theirs = (learned.logits(one.module(one.parameters), batch) for one in (applied, merged))
    np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="bottleneck adapters are layers of their own"):
        convert(pretrained.load(runs / "bottleneck"), tmp_path / "other")


def test_a_run_begins_from_what_was_merged(runs, mesh):
    source = pretrained.load(runs / "lora")
    parameters = init_parameters(FineTuning(Classification()), source.config, 1)
    beginning.begin(
        runs / "lora", FineTuning(Classification()), source.config, parameters, source.tokenizer
    )
    expected = flat(source.merged().parameters)
    for path, value in flat(parameters).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=str(path))


def test_a_base_that_moved_or_changed_is_named(labelled, base, tmp_path, mesh):
    """In one line, with what mends it."""
    old, new, run = tmp_path / "old", tmp_path / "new", tmp_path / "run"
    shutil.copytree(base, old)
    config = config_of(labelled, epochs=1, adapt=replace(LORA, targets="value"))
    finetune(config, str(old), run, mesh)
    expected = flat(pretrained.load(run).parameters)
    old.rename(new)
    said = ask_program(run)
    refused(said, "no such folder", f"set init in {run / 'model.json'}", "--init")
    finetune(config, str(new), run, mesh)  # it is finished; it only learns where its base is
    for path, value in flat(pretrained.load(run).parameters).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=str(path))

    source = pretrained.load(new)
    other = jax.tree.map(lambda leaf: leaf * 1.001, source.parameters)
    shutil.rmtree(new)
    convert(replace(source, parameters=other), new)
    with pytest.raises(UserError, match="other parameters than .*; set init in"):
        pretrained.load(run)
    with pytest.raises(UserError, match="begun from other parameters than"):
        finetune(config, str(new), run, mesh)


def ask_program(run):
    return start("predict", "classify", f"--model={run}", "the table")


def test_adapters_wider_than_the_model_are_refused(labelled, base, tmp_path, mesh):
    config = config_of(labelled, adapt=AdaptConfig("bottleneck"))
    with pytest.raises(UserError, match="adapt.size=64: must be at most the model's hidden_size"):
        finetune(config, str(base), tmp_path / "run", mesh)
    assert not (tmp_path / "run").exists()
