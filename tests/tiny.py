"""The small parts that tests share: a model, a corpus, batches."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from bert_jax.data.config import CorpusConfig, DataConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import TrainingBatches
from bert_jax.data.prepare import prepare as prepare_corpus
from bert_jax.data.records import Rows
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.models.config import EncoderConfig
from bert_jax.models.sharding import RULES
from bert_jax.objectives import SumOfTerms, build_objective

VOCAB = 200
SYLLABLES = [
    "ba",
    "de",
    "fi",
    "go",
    "lu",
    "mar",
    "nen",
    "pis",
    "ro",
    "tul",
    "ven",
    "zo",
    "qua",
    "ster",
]
MODEL = EncoderConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    max_positions=64,
)
DATA = DataConfig(sequence_length=32, batch_size=8, max_predictions=6)
# For the programs: the same sizes as overrides.
OVERRIDES = [
    f"--config.model.vocab_size={VOCAB}",
    "--config.model.hidden_size=32",
    "--config.model.num_layers=2",
    "--config.model.num_heads=2",
    "--config.model.intermediate_size=64",
    "--config.model.max_positions=64",
    "--config.data.sequence_length=32",
    "--config.data.batch_size=8",
    "--config.data.max_predictions=6",
    "--config.corpus.held_out=0.3",
    "--config.corpus.tokenizer=sentencepiece",
    "--config.train.log_every=1",
    "--config.optimizer.warmup_steps=2",
]


class Corpus(NamedTuple):
    text: Path
    folder: Path


def sentences(number: int, seed: int = 0) -> list[str]:
    """Sentences of a small grammar over 400 made-up words, enough for a tokenizer to learn."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(2, 4))) for _ in range(400)]
    rng = np.random.default_rng(seed + 1)
    out = []
    for _ in range(number):
        subject, verb, item = rng.choice(words, 3)
        article, other, place = rng.choice(["the", "a", "every", "its", "no"], 3)
        out.append(f"{article} {subject} {verb}s {other} {item} on {place} table.".capitalize())
    return out


def write_text(path: Path, documents: int = 24, length: int = 12) -> Path:
    text = ["\n".join(sentences(length, seed)) for seed in range(documents)]
    path.write_text("\n\n".join(text) + "\n")
    return path


def prepare(folder: Path, vocab_size: int = VOCAB) -> Corpus:
    text = write_text(folder / "text.txt")
    config = CorpusConfig(source=str(text), held_out=0.3, tokenizer="sentencepiece")
    prepare_corpus(config, vocab_size, folder / "prepared", lambda *_: None)
    return Corpus(text, folder / "prepared")


def bert(model: EncoderConfig = MODEL) -> SumOfTerms:
    return build_objective({"mlm": 1.0, "nsp": 1.0}, model)


def vocabulary(size: int = VOCAB, continuing: int = 3) -> Vocabulary:
    """Special tokens 0 to 4; of the other ids every third (or `continuing`th) goes on with the
    word before it."""
    ids = np.arange(size)
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    one_class = np.zeros(size, int)
    return Vocabulary(names, 0, 1, 2, 3, 4, ids % continuing == 0, one_class, one_class)


def batches(corpus: Corpus, data: DataConfig = DATA, seed: int = 0, **share) -> TrainingBatches:
    examples = build_examples(Rows(corpus.folder, "train"), vocabulary(), data)
    return TrainingBatches(examples, data, vocabulary(), seed, steps=1000, **share)


def random_batch(model: EncoderConfig = MODEL, rows: int = 8, length: int = 32, slots: int = 6):
    """A batch of random ids with padding at the ends of rows."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(length // 2, length + 1, rows)
    real = np.arange(length) < lengths[:, None]
    fields = {
        "input_ids": np.where(real, rng.integers(5, model.vocab_size, (rows, length)), 0),
        "token_type_ids": np.where(real, np.arange(length) > length // 3, 0),
        "segment_ids": real.astype(int),
        "rows": np.arange(rows),
        "mlm_positions": rng.integers(1, length // 2, (rows, slots)),
        "mlm_labels": rng.integers(5, model.vocab_size, (rows, slots)),
        "mlm_weights": (rng.random((rows, slots)) < 0.8),
        "mlm_overflow": np.zeros(rows),
        "nsp_labels": rng.integers(0, 2, rows),
        "nsp_weights": np.ones(rows),
        "sop_labels": rng.integers(0, 2, rows),
        "sop_weights": np.ones(rows),
    }
    return {
        name: value.astype(np.float32 if name.endswith("weights") else np.int32)
        for name, value in fields.items()
    }


def on_mesh(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {
        name: jax.device_put(value, NamedSharding(mesh, RULES.batch(value.ndim)))
        for name, value in batch.items()
    }
