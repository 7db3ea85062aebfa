"""Masking and batching on one core, beside transformers' DataCollatorForLanguageModeling.

  python -m benchmarks.loader --oracle=.venv-oracle/bin/python

Ours begins at prepared rows, which it cuts, lays out and masks; once with rows that stay in memory
(KEPT in data/spans.py), and once reading each from its file every time, as where a corpus is much
larger. The collator begins at lists of ids in memory that are cut and laid out already (those of
our full-sentences), each with its special_tokens_mask, and pads and masks. Each runs in its own
environment on one core, in turns: A B A B A B. Counted are real tokens a CPU second, no padding;
the table has the median of the turns. Both mask 15%, in batches of 32,768 places.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import turns

PLACES, SECONDS, TURNS = 32_768, 1.5, 3
LENGTHS = {128: 20, 512: 77}  # and K
FORMATS = ("segment-pair", "full-sentences")
BAR = {128: 2.0, 512: 3.0}  # times the collator


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--oracle", default=".venv-oracle/bin/python", help="has transformers")
    parser.add_argument("--prepared", help="a folder of WordPiece; else installed-docs is taken")
    parser.add_argument("--turn", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--lists", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        turn = {"ours": ours, "theirs": theirs}[arguments.turn]
        return print(json.dumps(turn(Path(arguments.prepared), arguments.lists)))
    turns.check_oracle(parser, arguments.oracle)

    with tempfile.TemporaryDirectory() as folder:
        prepared = arguments.prepared or str(turns.installed_docs())
        lists = Path(folder) / "lists.npz"
        runs = [
            turns.run(
                python, __file__, f"--turn={name}", f"--prepared={prepared}", f"--lists={lists}"
            )
            for _ in range(TURNS)
            for name, python in (("ours", sys.executable), ("theirs", arguments.oracle))
        ]
    figures: dict[str, list] = {}
    for one in runs:
        for name, value in one.items():
            figures.setdefault(name, []).append(value)
    table(figures)
    turns.write(figures, arguments.json)


def ours(prepared: Path, lists: Path) -> dict:
    from bert_jax.data import spans
    from bert_jax.data.config import DataConfig
    from bert_jax.data.examples import build_examples
    from bert_jax.data.loader import TrainingBatches
    from bert_jax.data.records import Rows
    from bert_jax.data.tokenizers import load_tokenizer

    vocabulary = load_tokenizer(prepared / "tokenizer").vocabulary
    found: dict = {"versions": turns.versions("numpy", "array_record")}
    saved: dict[str, np.ndarray] = {}
    for kept in (spans.KEPT, 0):
        spans.KEPT = kept
        for form in FORMATS:
            for length, slots in LENGTHS.items():
                config = DataConfig(length, PLACES // length, form, max_predictions=slots)
                examples = build_examples(Rows(prepared, "train"), vocabulary, config)
                batches = TrainingBatches(examples, config, vocabulary, 0, 10**6)
                name = f"ours {form}, rows {'in memory' if kept else 'from files'}, S={length}"
                found[name] = speed(lambda step: int(np.sum(batches[step]["segment_ids"] > 0)))  # noqa: B023
                if form == "full-sentences" and not lists.exists():
                    drawn = examples.batch(*(np.arange(min(len(examples), 4096)),) * 2)
                    saved[f"ids{length}"] = drawn["input_ids"]
                    saved[f"sizes{length}"] = drawn["segment_ids"].sum(axis=1)
                    saved[f"special{length}"] = vocabulary.special[drawn["input_ids"]]
    if saved:
        np.savez(lists, allow_pickle=False, **saved)
    return found


def theirs(prepared: Path, lists: Path) -> dict:
    import torch
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(prepared / "tokenizer" / "tokenizer.json"), pad_token="[PAD]",
        mask_token="[MASK]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15)
    found: dict = {"versions": turns.versions("transformers", "torch")}
    data = np.load(lists)
    for length in LENGTHS:
        ids, sizes, special = (data[f"{n}{length}"] for n in ("ids", "sizes", "special"))
        rows = [
            {"input_ids": a[:n].tolist(), "special_tokens_mask": b[:n].astype(int).tolist()}
            for a, n, b in zip(ids, sizes, special, strict=True)
        ]
        order = np.random.default_rng(0).permutation(np.resize(np.arange(len(rows)), 1 << 18))

        def collate(step: int) -> int:
            chosen = order[step * (PLACES // length) :][: PLACES // length].tolist()  # noqa: B023
            return int(collator([rows[n] for n in chosen])["attention_mask"].sum())  # noqa: B023

        found[f"collator, S={length}"] = speed(collate)
    return found


def speed(batch: Callable[[int], int]) -> float:
    """Tokens a CPU second of one core, after warming up: rows that are kept are in memory."""
    turns.pin()
    begin = time.process_time()
    step = 0
    while step < 5 or time.process_time() - begin < SECONDS:
        batch(step)
        step += 1
    begin, tokens = time.process_time(), 0
    while (passed := time.process_time() - begin) < SECONDS:
        tokens += batch(step)
        step += 1
    return tokens / passed


def table(figures: dict) -> None:
    print(f"{'; '.join(sorted(set(figures.pop('versions'))))}\n")
    print("| | S | M tokens a second (turns) | times the collator |\n|---|---|---|---|")
    for length in LENGTHS:
        peer = statistics.median(figures[f"collator, S={length}"])
        for name in [name for name in figures if name.endswith(f"S={length}")]:
            values = figures[name]
            print(
                f"| {name.rpartition(',')[0]} | {length} "
                f"| {turns.cell([value / 1e6 for value in values], '.2f')} "
                f"| {statistics.median(values) / peer:.1f} |"
            )
    print(f"\nbar: {', '.join(f'{bar:g} times at S={length}' for length, bar in BAR.items())}")


if __name__ == "__main__":
    with turns.guarded():
        main()
