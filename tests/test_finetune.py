"""Fine-tuning from a MODEL to scores, in the process of the tests; the program's own lines last."""

import json
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax import finetuned, pretrained
from bert_jax.convert import convert
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.errors import UserError
from bert_jax.finetune import FinetuneConfig, finetune
from bert_jax.objectives import build_pretrained
from bert_jax.task import TaskConfig
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.sentences import Classification
from bert_jax.training.depth import DepthConfig, scale_by_depth
from bert_jax.training.metrics import read_metrics
from bert_jax.training.optim import OptimizerConfig
from tests import tiny
from tests.test_programs import start

BRACKETS = "[PAD] [UNK] [CLS] [SEP] [MASK]"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Hugging Face folder of an encoder that nobody trained."""
    config = replace(tiny.MODEL, initializer_stddev=0.1)
    state = nnx.state(build_pretrained(config, ("mlm",), nnx.Rngs(0)), nnx.Param)
    words = train_tokenizer("wordpiece", iter(tiny.sentences(300)), tiny.VOCAB, True, BRACKETS)
    folder = tmp_path_factory.mktemp("model") / "hf"
    size = replace(config, vocab_size=words.vocab_size)
    state = nnx.state(build_pretrained(size, ("mlm",), nnx.Rngs(0)), nnx.Param)
    convert(pretrained.Pretrained("tiny", size, ("mlm",), state, words), folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of each kind a task that can be learned: what decides is the first word of a sentence."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, count in (("train", 96), ("dev", 24)):
        lines = [one.lower().rstrip(".") for one in tiny.sentences(2 * count, seed=len(name))]
        texts = [f"{word} {line}" for word, line in zip(rng.choice(["the", "no"], count), lines)]  # noqa: B905
        no = [text.startswith("no ") for text in texts]
        rows = [
            {"sentence": text, "label": "no" if is_no else "yes", "number": 1.0 * is_no,
             "context": lines[count + n], "right": text if is_no else lines[n],
             "wrong": lines[n] if is_no else text, "index": int(not is_no)}
            for n, (text, is_no) in enumerate(zip(texts, no, strict=True))
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tagged = [
            "\n".join(f"{w}\t{'B-NO' if w == 'no' else 'O'}" for w in text.split())
            for text in texts
        ]
        (folder / f"{name}.txt").write_text("\n\n".join(tagged) + "\n")
        questions = [
            {"id": str(n), "question": "which",
             "answers": [{"text": "no", "answer_start": 0}] if is_no else [],
             "is_impossible": not is_no}
            for n, is_no in enumerate(no)
        ]  # fmt: skip
        paragraphs = [{"context": t, "qas": [q]} for t, q in zip(texts, questions, strict=True)]
        (folder / f"{name}.json").write_text(
            json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]})
        )
    return folder


def config_of(data, **changes):
    parts = {"task": {"data": str(data), "max_length": 32, "lengths": "16"}} | {
        "optimizer": {"learning_rate": 2e-3}, "depth": {},
    }  # fmt: skip
    for name in parts:
        parts[name] |= changes.pop(name, {})
    return FinetuneConfig(
        task=TaskConfig(**parts["task"]), optimizer=OptimizerConfig(**parts["optimizer"]),
        depth=DepthConfig(**parts["depth"]),
        **{"epochs": 8, "batch_size": 8, "dropout": 0.0} | changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "task, score, least",
    [
        ({}, "accuracy", 0.95),
        ({"kind": "regress", "label": "number", "metrics": "pearson spearman"}, "pearson", 0.9),
        ({"kind": "tag", "train": "train.txt", "dev": "dev.txt"}, "f1", 0.95),
        ({"kind": "answer", "train": "train.json", "dev": "dev.json"}, "f1", 90),
        ({"kind": "choose", "texts": "context right wrong", "label": "index"}, "accuracy", 0.0),
    ],
    ids=["classify", "regress", "tag", "answer", "choose"],
)
def test_each_kind_is_learned(model, data, tmp_path, mesh, task, score, least):
    found = finetune(config_of(data, task=task), model, tmp_path / "run", mesh)
    assert found["scores"][score] >= least
    records = [record for record in read_metrics(tmp_path / "run") if "eval_loss" in record]
    assert [record["epoch"] for record in records] == [*range(1, 9)]
    assert max(record[f"eval_{score}"] for record in records) == found["scores"][score]
    assert records[-1]["compilations"] <= 2
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 24 and isinstance(json.loads(predictions[0]), dict)


def test_it_goes_on_after_the_last_epoch(model, data, tmp_path, mesh, monkeypatch):
    config = config_of(data, dropout=0.1, epochs=3)
    whole = finetune(config, model, tmp_path / "whole", mesh)
    judged = []

    def outputs(*arguments):
        judged.append(1)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    real = finetuned.outputs
    monkeypatch.setattr(finetuned, "outputs", outputs)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, model, tmp_path / "cut", mesh)
    monkeypatch.setattr(finetuned, "outputs", real)
    assert finetune(config, model, tmp_path / "cut", mesh) == whole

    def kept(workdir):
        measured = ("seconds", "tokens_per_second", "mfu", "loader_wait", "goodput", "compilations")
        return [
            {n: v for n, v in record.items() if not n.startswith(measured) and "share" not in n}
            for record in read_metrics(tmp_path / workdir)
        ]

    assert [r["loss"] for r in kept("cut")[:-1] if "loss" in r] == [
        r["loss"] for r in kept("whole")[:-1] if "loss" in r
    ]
    with pytest.raises(UserError, match="begun with another config.json"):
        finetune(replace(config, epochs=4), model, tmp_path / "cut", mesh)


def test_early_stopping_keeps_the_best(model, data, tmp_path, mesh):
    config = config_of(data, epochs=9, patience=1, optimizer={"learning_rate": 1e-9})
    found = finetune(config, model, tmp_path / "run", mesh)
    assert found["epoch"] == 1 and read_metrics(tmp_path / "run")[-1]["epoch"] == 2


def test_shares_by_depth_are_what_the_formula_says():
    size = replace(tiny.MODEL, num_labels=2)
    state = nnx.state(FineTuning(Classification()).build(size, nnx.Rngs(0)), nnx.Param)
    ones = jax.tree.map(lambda x: x * 0 + 1, state)

    def shares(step, **config):
        tx = scale_by_depth(DepthConfig(**config), size.num_layers, steps_per_epoch=10)
        updates, _ = tx.update(ones, optax.ScaleByScheduleState(np.int32(step)))
        flat = {".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(updates)}
        for name, value in flat.items():
            own = name.startswith("encoder.layers")
            rows = value.reshape(size.num_layers if own else 1, -1)
            assert (rows == rows[:, :1]).all(), name
        return [
            float(flat["encoder.embeddings.word"].ravel()[0]),
            *(float(one.ravel()[0]) for one in flat["encoder.layers.attention.qkv_bias"]),
            float(flat["encoder.pooler.bias"][0]), float(flat["heads.classify.bias"][0]),
        ]  # fmt: skip

    np.testing.assert_allclose(shares(0, decay=0.5), [0.5**4, 0.5**3, 0.5**2, 1, 1])
    assert shares(0) == [1, 1, 1, 1, 1]
    assert shares(0, frozen_layers=1) == [0, 0, 1, 1, 1]
    assert shares(9, unfreeze_epochs=1.0) == [0, 0, 0, 1, 1]
    assert shares(10, unfreeze_epochs=1.0) == [0, 0, 1, 1, 1]
    assert shares(30, unfreeze_epochs=1.0) == [1, 1, 1, 1, 1]
    with pytest.raises(UserError, match="has 2 layers"):
        shares(0, frozen_layers=3)


def test_frozen_layers_do_not_move(model, data, tmp_path, mesh):
    config = config_of(data, epochs=1, depth={"frozen_layers": 1}, optimizer={"weight_decay": 0.1})
    finetune(config, model, tmp_path / "run", mesh)
    before, after = (pretrained.load(where).parameters for where in (model, tmp_path / "run"))
    mine, theirs = (dict(nnx.to_flat_state(one)) for one in (after, before))
    moved = {
        ".".join(map(str, path)): np.abs(
            np.asarray(v.get_value()) - np.asarray(theirs[path].get_value())
        )
        for path, v in mine.items()
        if path in theirs
    }
    for name, change in moved.items():
        if name.startswith("encoder.layers"):
            assert (change[0] == 0).all() and (change[1] > 0).any(), name
        elif name.startswith("encoder.embeddings"):
            assert (change == 0).all(), name


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": "/nowhere"}, "/nowhere/train.jsonl"),
        ({"texts": "sentense"}, "did you mean sentence"),
        ({"labels": "yes maybe"}, "'no' is no label"),
        ({"max_length": 65}, "64 positions"),
        ({"class_weights": "1"}, "there are 2 classes"),
        ({"kind": "tag", "train": "train.jsonl", "dev": "dev.txt"}, "train.jsonl:1"),
    ],
)
def test_what_cannot_be_learned_is_named(model, data, tmp_path, mesh, change, message):
    with pytest.raises(UserError, match=message):
        finetune(config_of(data, task=change), model, tmp_path / "run", mesh)
    assert not (tmp_path / "run").exists()


def test_the_program_trains_seeds_and_refuses_in_one_line(model, data, tmp_path):
    words = [
        "--config=configs/tasks/glue.py:sst2", f"--data={data}", f"--init={model}",
        f"--workdir={tmp_path / 'runs'}", "--config.task.max_length=32",
        "--config.task.lengths=16", "--config.batch_size=16", "--config.epochs=1", "--seeds=2",
    ]  # fmt: skip
    done = start("finetune", *words)
    assert done.returncode == 0, done.stderr
    assert "medians of 2 seeds" in done.stdout
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "seed-0", "seed-1", "scores.json",
    }  # fmt: skip
    for wrong, said in (
        ("--config.task.kind=guess", "must be one of classify"),
        ("--config.task.kinds=tag", "did you mean task.kind?"),
        ("--init=/nowhere", "no such folder"),
    ):
        done = start("finetune", *words, wrong)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
