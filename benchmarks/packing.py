"""Rows of 512 packed from short documents, beside a document a row and padding.

  python -m benchmarks.packing --size='L12 D768'

The documents are those of installed-docs that have at most 256 tokens; what differs is data.packing
alone. Both take whole steps of a BERT on batches of as many rows, through the loader,
in turns: A B A B A B. Counted are real tokens a second of wall time, no padding, after a step that
compiles; the table has the median of the turns, and the share of a row that is tokens.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import turns
from bert_jax import cli
from bert_jax.data.config import CorpusConfig, DataConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import TrainingBatches
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Rows
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.objectives import build_objective
from bert_jax.training.mesh import one_device
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import init_state, make_train_step

TURNS, STEPS, BAR = 3, 4, 2.0
LONGEST = 256
DATA = DataConfig(512, 4, "doc-sentences", pairs="none", max_predictions=77)


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--size", choices=turns.SIZES, action="append", help="else the first alone")
    arguments = parser.parse_args()
    figures = {}
    folder = tempfile.TemporaryDirectory()
    prepared, length = short_documents(Path(folder.name))
    print(f"documents of {length:.0f} tokens in the mean")
    print(f"{turns.versions('jax', 'jaxlib')}; {turns.cores()} cores\n")
    print("| | a row is tokens | real tokens a second (turns) | times padded | bar |")
    print("|---|---|---|---|---|", flush=True)
    with jax.set_mesh(one_device()):
        for size in arguments.size or list(turns.SIZES)[:1]:
            found = figures[size] = measured(prepared, *turns.SIZES[size])
            middle = {name: statistics.median(one["speeds"]) for name, one in found.items()}
            for name, one in found.items():
                times = f"{middle[name] / middle['padded']:.2f} | {BAR:g}"
                print(
                    f"| {size} B{DATA.batch_size} S{DATA.sequence_length}, {name} "
                    f"| {one['full']:.0%} | {turns.cell(one['speeds'], '.0f')} "
                    f"| {times if name == 'packed' else ' | '} |",
                    flush=True,
                )
    turns.write(figures, arguments.json)


def short_documents(folder: Path) -> tuple[Path, float]:
    """A prepared corpus of them, and their mean length in tokens."""
    whole = turns.installed_docs()
    rows, tokenizer = Rows(whole, "train"), load_tokenizer(whole / "tokenizer")
    numbers = np.arange(len(rows))
    documents: dict[int, list[int]] = {}
    owners = rows.index.document_of(numbers).tolist()
    for owner, ids in zip(owners, rows.read(numbers), strict=True):
        documents.setdefault(owner, []).extend(ids.tolist())
    short = [ids for ids in documents.values() if len(ids) <= LONGEST]
    text = folder / "short.txt"
    text.write_text("\n\n".join(tokenizer.decode(ids) for ids in short) + "\n")
    config = CorpusConfig(source=str(text), tokenizer=str(whole / "tokenizer"))
    prepare(config, turns.VOCABULARY, folder / "prepared", lambda *_: None)
    return folder / "prepared", float(np.mean([len(ids) for ids in short]))


def measured(prepared: Path, layers: int, width: int) -> dict[str, dict[str, Any]]:
    config = turns.encoder(
        layers, width, turns.VOCABULARY, max_positions=DATA.sequence_length, pooler=False
    )
    rows, vocabulary = Rows(prepared, "train"), load_tokenizer(prepared / "tokenizer").vocabulary
    objective = build_objective({"mlm": 1.0}, config)
    tx = build_optimizer(OptimizerConfig(warmup_steps=1), 10_000)
    step = make_train_step(objective, config, tx, 0)
    state, done = init_state(objective, config, tx, 0), 0
    batches, fields = {}, {}
    for name in ("padded", "packed"):
        data = replace(DATA, packing=name == "packed")
        fields[name] = objective.fields + (("position_ids",) if data.packing else ())
        examples = build_examples(rows, vocabulary, data)
        batches[name] = TrainingBatches(examples, data, vocabulary, 0, 10_000)
    found: dict[str, dict[str, Any]] = {name: {"speeds": [], "full": 0.0} for name in batches}
    for turn in range(TURNS + 1):  # the first compiles
        for name, one in found.items():
            begin, tokens = time.monotonic(), 0
            for _ in range(STEPS if turn else 1):
                batch = batches[name][done]
                batch = jax.device_put({field: batch[field] for field in fields[name]})
                state, metrics = jax.block_until_ready(step(state, batch))
                tokens += int(metrics["real_tokens"])
                done += 1
            if turn:
                one["speeds"].append(tokens / (time.monotonic() - begin))
                places = STEPS * DATA.batch_size * DATA.sequence_length
                one["full"] += tokens / places / TURNS
    return found


if __name__ == "__main__":
    with cli.guarded():
        main()
