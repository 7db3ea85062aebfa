"""What tests of fine-tuned models share: an encoder, a small task of each kind, a config."""

import json
from dataclasses import replace

import numpy as np
from flax import nnx

from bert_jax import pretrained
from bert_jax.convert import convert
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.finetune import FinetuneConfig
from bert_jax.objectives import build_pretrained
from bert_jax.task import TaskConfig
from bert_jax.training.depth import DepthConfig
from bert_jax.training.optim import OptimizerConfig
from tests import tiny

BRACKETS = "[PAD] [UNK] [CLS] [SEP] [MASK]"


def make_model(folder):
    """A Hugging Face folder of an encoder that nobody trained."""
    config = replace(tiny.MODEL, initializer_stddev=0.1)
    words = train_tokenizer("wordpiece", iter(tiny.sentences(300)), tiny.VOCAB, True, BRACKETS)
    size = replace(config, vocab_size=words.vocab_size)
    state = nnx.state(build_pretrained(size, ("mlm",), nnx.Rngs(0)), nnx.Param)
    convert(pretrained.Pretrained("tiny", size, ("mlm",), state, words), folder)
    return str(folder)


def make_data(folder):
    """Of each kind a task that can be learned: what decides is the first word of a sentence."""
    rng = np.random.default_rng(0)
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


# One of each kind, as fields of TaskConfig.
TASKS = {
    "classify": {},
    "pairs": {"texts": "sentence context", "max_length": 64, "metrics": "f1 accuracy matthews"},
    "regress": {"kind": "regress", "label": "number", "metrics": "pearson spearman"},
    "tag": {"kind": "tag", "train": "train.txt", "dev": "dev.txt"},
    "answer": {"kind": "answer", "train": "train.json", "dev": "dev.json"},
    "choose": {"kind": "choose", "texts": "context right wrong", "label": "index"},
}
