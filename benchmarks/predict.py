"""predict on one core, beside transformers' pipelines.

  python -m benchmarks.predict --oracle=.venv-oracle/bin/python

fill-mask and classify, by BERTs of random weights in Hugging Face folders that both sides load, of
texts of 4 to 400 tokens out of the installed documentation; one at a time, as who waits for each
answer, and all at once, in batches of 32. A pipeline pads a batch to its longest text, predict to
the lengths of its table; both have the tokenizer of the folder. Each runs in its own environment
on one core, in turns: A B A B A B. Counted are texts a CPU second, after a pass that compiles; the
table has the median of the turns. Before that, labels, tokens and probabilities have to agree.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import turns

TEXTS, SECONDS, TURNS = 64, 1.0, 3
TASKS = {"fill-mask": "mlm", "classify": "classify"}  # and the head
BATCHES = (1, 32)
BAR = {1: 1.0, 32: 1.5}  # times the pipeline
WITHIN = 1e-4  # of each other are the probabilities
TOP_K = 5


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--oracle", default=".venv-oracle/bin/python", help="has transformers")
    parser.add_argument("--size", choices=turns.SIZES, action="append", help="else the first alone")
    parser.add_argument("--turn", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        turn = {"ours": ours, "theirs": theirs}[arguments.turn]
        return print(json.dumps(measured(turn, arguments.folder)))
    turns.check_oracle(parser, arguments.oracle)

    figures: dict[str, list] = {}
    for size in arguments.size or list(turns.SIZES)[:1]:
        with tempfile.TemporaryDirectory() as folder:
            make(size, Path(folder))
            for number in range(TURNS):
                mine, peer = (
                    turns.run(
                        python, __file__, f"--turn={turn}", f"--folder={folder}",
                        JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled",  # by the first turn
                        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
                    )
                    for turn, python in (("ours", sys.executable), ("theirs", arguments.oracle))
                )  # fmt: skip
                if number == 0:
                    compare(mine["answers"], peer["answers"])
                for one in (mine, peer):
                    figures.setdefault("versions", []).append(one["versions"])
                    for name, value in one["speeds"].items():
                        figures.setdefault(f"{size}, {name}", []).append(value)
    table(figures)
    turns.write(figures, arguments.json)


def make(size: str, folder: Path) -> None:
    """Models, and texts.json, whose fill-mask texts have one mask each."""
    import jax
    from flax import nnx

    from bert_jax import pretrained
    from bert_jax.convert import convert
    from bert_jax.data.records import Rows
    from bert_jax.data.tokenizers import load_tokenizer
    from bert_jax.objectives import build_pretrained
    from bert_jax.training.mesh import one_device

    jax.config.update("jax_platforms", "cpu")
    prepared = turns.installed_docs()
    words = load_tokenizer(prepared / "tokenizer")
    for head in TASKS.values():
        config = turns.encoder(
            *turns.SIZES[size], words.vocab_size, max_positions=512, num_labels=3,
            pooler=head == "classify", initializer_stddev=0.1,  # so that outputs differ
        )  # fmt: skip
        with jax.set_mesh(one_device()):
            state = nnx.state(build_pretrained(config, (head,), nnx.Rngs(0)), nnx.Param)
            labels = ("a", "b", "c") if head == "classify" else ()
            convert(
                pretrained.Pretrained(size, config, (head,), state, words, labels), folder / head
            )
    draws, rows, texts = random.Random(0), Rows(prepared, "train"), list[str]()
    while len(texts) < TEXTS:
        (ids,) = rows.read(np.array([draws.randrange(len(rows))]))
        count = round(4 * 100 ** draws.random())  # 4 to 400 tokens
        text = words.decode(ids[:count].tolist())
        if len(ids) >= count and "[" not in text:
            texts.append(text)
    masked = []
    for text in texts:
        found = text.split()
        found[draws.randrange(len(found))] = "[MASK]"
        masked.append(" ".join(found))
    (folder / "texts.json").write_text(json.dumps({"classify": texts, "fill-mask": masked}))


Answers = list[dict[str, float]]  # of each text the probability of every class or token told
Answering = Callable[[list[str]], Answers]


def measured(turn: Callable[[Path, str, int], Answering], folder: Path) -> dict:
    """Texts a CPU second of each task and batch, and what was answered."""
    turns.pin()
    texts = json.loads((folder / "texts.json").read_text())
    speeds, answers = {}, {}
    for task in TASKS:
        for batch in BATCHES:
            answering = turn(folder, task, batch)
            answers[f"{task}, batch {batch}"] = answering(texts[task])
            begin, count = time.process_time(), 0
            while (passed := time.process_time() - begin) < SECONDS:
                count += len(answering(texts[task]))
            speeds[f"{task}, batch {batch}: {turn.__name__}"] = count / passed
    names = ("jax", "jaxlib") if turn is ours else ("transformers", "torch")
    return {"speeds": speeds, "answers": answers, "versions": turns.versions(*names)}


def ours(folder: Path, task: str, batch: int) -> Answering:
    import jax

    from bert_jax.predict import parse
    from bert_jax.predictions import lines
    from bert_jax.training.mesh import one_device

    jax.set_mesh(one_device())
    words = ["--top-k", str(TOP_K)] if task == "fill-mask" else []
    kind, arguments = parse([task, f"--model={folder / TASKS[task]}", *words])
    asked = kind(arguments)

    def answers(texts: list[str]) -> Answers:
        chunks = [texts] if batch > 1 else [[text] for text in texts]
        found = []
        for chunk in chunks:
            for one in asked.answer([asked.read(line) for line in lines.arguments(chunk)]):
                if task == "classify":
                    found.append(one["probabilities"])
                else:
                    found.append({word["token"]: word["probability"] for word in one["masks"][0]})
        return found

    return answers


def theirs(folder: Path, task: str, batch: int) -> Answering:
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)
    name = {"classify": "text-classification", "fill-mask": "fill-mask"}[task]
    asked = pipeline(
        name, model=str(folder / TASKS[task]), device="cpu",
        top_k=TOP_K if task == "fill-mask" else None,
    )  # fmt: skip
    key = "label" if task == "classify" else "token_str"

    def answers(texts: list[str]) -> Answers:
        found = asked(texts, batch_size=batch) if batch > 1 else [asked(text) for text in texts]
        if task == "classify" and batch == 1:
            found = [one[0] if isinstance(one[0], list) else one for one in found]
        return [{word[key]: word["score"] for word in one} for one in found]

    return answers


def compare(mine: dict[str, Answers], theirs: dict[str, Answers]) -> None:
    """Ends the program where the two sides do not say the same."""
    for name in mine:
        for number, (a, b) in enumerate(zip(mine[name], theirs[name], strict=True)):
            b = {token.removeprefix("##"): value for token, value in b.items()}
            a = {token.removeprefix("##"): value for token, value in a.items()}
            # The last of the likeliest tokens may be as likely as the next one: one may be another.
            common = [key for key in b if key in a]
            apart = max(abs(a[key] - b[key]) for key in common) if common else math.inf
            same = max(a, key=a.__getitem__) == max(b, key=b.__getitem__)
            if not same or len(common) < len(b) - 1 or apart > WITHIN:
                sys.exit(f"error: {name}, text {number}: {a} is not {b}")


def table(figures: dict) -> None:
    print(f"{'; '.join(sorted(set(figures.pop('versions'))))}\n")
    print("| | texts a second, ours (turns) | the pipeline's (turns) | times |\n|---|---|---|---|")
    for name in [name for name in figures if name.endswith(": ours")]:
        sides = [figures[name], figures[name.replace(": ours", ": theirs")]]
        middle = [statistics.median(side) for side in sides]
        cells = [turns.cell(side, ".1f") for side in sides]
        print(
            f"| {name.removesuffix(': ours')} | {' | '.join(cells)} | {middle[0] / middle[1]:.2f} |"
        )
    print(f"\nbar: {', '.join(f'{bar:g} times in batches of {b}' for b, bar in BAR.items())}")


if __name__ == "__main__":
    with turns.guarded():
        main()
