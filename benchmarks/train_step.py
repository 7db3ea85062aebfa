"""A step of pretraining on this machine's CPU, beside transformers on torch, eager and compiled.

  python -m benchmarks.train_step --oracle=.venv-oracle/bin/python
  python -m benchmarks.train_step --case='L12 D768 B16 S128'

Both sides begin from the same parameters (a Hugging Face folder of BertForMaskedLM) and take the
same batch: full rows of S tokens, 15% masked, in float32. A step is forward, backward, the gradient
clipped to norm 1, AdamW with decay on all but biases and norms, and the rate of a schedule; dropout
is 0.1 everywhere, on attention too. Ours scores the masked places alone, transformers every place,
as its loss does. Each side runs in its own environment with every core, in turns: A B C A B C.
Counted are tokens a second of wall time after the steps that compile; the table has the median of
the turns. Before that, the losses of the first batch without dropout have to agree. Told as well:
the seconds of the first step, in which it is compiled, and the most memory that the process had.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import turns

TURNS, SECONDS = 3, 12.0
VOCABULARY, MASK = 30_522, 103
PEERS = ("eager", "compile")
KEYS = ("speed", "first", "memory")  # of which the median is told
WITHIN = 1e-4  # of each other are the first losses, relatively
RATE, CLIP, DECAY, BETAS, EPSILON, STEPS = 1e-4, 1.0, 0.01, (0.9, 0.999), 1e-6, 10_000


class Case(NamedTuple):
    layers: int
    width: int
    rows: int
    length: int
    slots: int  # K, the masked places of a row
    bars: dict[str, float]  # times each peer


CASES = {
    "L4 D256 B32 S128": Case(4, 256, 32, 128, 20, {"eager": 2.5, "compile": 2.0}),
    "L12 D768 B16 S128": Case(12, 768, 16, 128, 20, {"eager": 1.2}),
}


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--oracle", default=".venv-oracle/bin/python", help="has transformers")
    parser.add_argument("--case", choices=CASES, action="append", help="these alone; else all")
    parser.add_argument("--turn", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        (name,) = arguments.case
        return print(json.dumps(measured(arguments.turn, CASES[name], arguments.folder)))
    turns.check_oracle(parser, arguments.oracle)

    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in arguments.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            make(CASES[name], Path(folder))
            found = figures[name] = {turn: [] for turn in ("ours", *PEERS)}
            for _ in range(TURNS):
                for turn, tried in found.items():
                    python = sys.executable if turn == "ours" else arguments.oracle
                    words = f"--turn={turn}", f"--case={name}", f"--folder={folder}"
                    cold = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
                    tried.append(turns.run(python, __file__, *words, threads=turns.cores(), **cold))
                compare(name, {turn: tried[-1]["loss"] for turn, tried in found.items()})
    table(figures)
    turns.write(figures, arguments.json)


def make(case: Case, folder: Path) -> None:
    """The model and batch.npz."""
    import jax
    from flax import nnx

    from bert_jax import pretrained
    from bert_jax.convert import convert
    from bert_jax.data.tokenizers import train_tokenizer
    from bert_jax.objectives import build_pretrained
    from bert_jax.training.mesh import one_device

    jax.config.update("jax_platforms", "cpu")
    config = turns.encoder(case.layers, case.width, VOCABULARY, max_positions=512, pooler=False)
    special = "[PAD] [UNK] [CLS] [SEP] [MASK]"
    never_asked = iter(["a few words"] * 9)
    words = train_tokenizer("wordpiece", never_asked, 24, True, special)
    with jax.set_mesh(one_device()):
        state = nnx.state(build_pretrained(config, ("mlm",), nnx.Rngs(0)), nnx.Param)
        convert(pretrained.Pretrained("bench", config, ("mlm",), state, words), folder / "model")
    rng = np.random.default_rng(0)
    labels = rng.integers(1000, VOCABULARY, (case.rows, case.length), dtype=np.int32)
    places = np.sort(
        np.stack([rng.choice(case.length, case.slots, replace=False) for _ in range(case.rows)])
    )
    ids = labels.copy()
    np.put_along_axis(ids, places, MASK, axis=1)
    np.savez(folder / "batch.npz", ids=ids, labels=labels, places=places.astype(np.int32))


class Step(NamedTuple):
    loss: Callable[[], float]  # of the batch, without dropout
    update: Callable[[], Any]  # a whole step; waits until it is done
    attention: str  # which way of computing it


def measured(turn: str, case: Case, folder: Path) -> dict:
    batch = dict(np.load(folder / "batch.npz", allow_pickle=False))
    build = ours if turn == "ours" else theirs
    step = build(folder / "model", batch, turn == "compile")
    found: dict[str, Any] = {"loss": step.loss()}
    begin = time.monotonic()
    step.update()
    found["first"] = time.monotonic() - begin
    step.update()
    begin, count = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < SECONDS:
        step.update()
        count += 1
    found["speed"] = count * case.rows * case.length / passed
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # GiB on Linux
    names = ("jax", "jaxlib") if turn == "ours" else ("transformers", "torch")
    return found | {"versions": f"{turns.versions(*names)}, attention {step.attention}"}


def ours(folder: Path, arrays: dict[str, np.ndarray], compiled: bool) -> Step:
    """Compiled it always is."""
    import jax
    from flax import nnx

    from bert_jax import pretrained
    from bert_jax.objectives import build_objective
    from bert_jax.training.mesh import one_device
    from bert_jax.training.optim import OptimizerConfig, build_optimizer
    from bert_jax.training.step import begin_state, graph, make_train_step

    jax.set_mesh(one_device())
    source = pretrained.load(folder)
    objective = build_objective({"mlm": 1.0}, source.config)
    rows, places = arrays["ids"].shape[0], arrays["places"]
    batch = {
        "input_ids": arrays["ids"],
        "token_type_ids": np.zeros_like(arrays["ids"]),
        "segment_ids": np.ones_like(arrays["ids"]),
        "mlm_positions": places,
        "mlm_labels": np.take_along_axis(arrays["labels"], places, axis=1),
        "mlm_weights": np.ones(places.shape, np.float32),
        "mlm_overflow": np.zeros(rows, np.int32),
        "rows": np.arange(rows, dtype=np.int32),
    }
    batch = jax.device_put({name: batch[name] for name in objective.fields})
    optimizer = OptimizerConfig(
        learning_rate=RATE, warmup_steps=STEPS // 10, beta1=BETAS[0], beta2=BETAS[1],
        epsilon=EPSILON, weight_decay=DECAY, clip_norm=CLIP,
    )  # fmt: skip
    tx = build_optimizer(optimizer, STEPS)
    train_step = make_train_step(objective, source.config, tx, 0)
    graphdef, state = graph(objective, source.config), begin_state(source.parameters, tx)

    def loss() -> float:
        def of(parameters):
            (pair,) = objective.loss(nnx.merge(graphdef, parameters), batch, None).terms.values()
            return pair[0] / pair[1]

        return float(jax.jit(of)(state.parameters))

    def update() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(train_step(state, batch))

    return Step(loss, update, source.config.attention)


def theirs(folder: Path, arrays: dict[str, np.ndarray], compiled: bool) -> Step:
    import torch
    from transformers import BertForMaskedLM, get_linear_schedule_with_warmup

    torch.set_num_threads(turns.cores())
    model: Any = BertForMaskedLM.from_pretrained(folder)
    masked = np.zeros(arrays["ids"].shape, bool)
    np.put_along_axis(masked, arrays["places"], True, axis=1)
    batch = {
        "input_ids": torch.tensor(arrays["ids"], dtype=torch.long),
        "attention_mask": torch.ones(masked.shape, dtype=torch.long),
        "labels": torch.tensor(np.where(masked, arrays["labels"], -100), dtype=torch.long),
    }
    kept = [p for name, p in model.named_parameters() if name.endswith("bias") or "Norm" in name]
    others = [p for p in model.parameters() if all(p is not one for one in kept)]
    groups = [{"params": others, "weight_decay": DECAY}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, STEPS // 10, STEPS)
    called = torch.compile(model) if compiled else model

    def loss() -> float:
        with torch.no_grad():
            return float(model.eval()(**batch).loss)

    def update() -> None:
        model.train()
        called(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return Step(loss, update, model.config._attn_implementation)


def compare(name: str, first: dict[str, float]) -> None:
    """Ends the program where the sides do not compute the same."""
    mine = first["ours"]
    for peer in PEERS:
        if abs(mine - first[peer]) > WITHIN * mine:
            sys.exit(f"error: {name}: the first loss is {mine}, and {first[peer]} of {peer}")


def table(figures: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    told = {
        one["versions"] for found in figures.values() for tried in found.values() for one in tried
    }
    print(f"{'; '.join(sorted(told))}; {turns.cores()} cores\n")
    print("| | | tokens a second (turns) | ours is times that | bar | first step, s | GiB |")
    print("|---|---|---|---|---|---|---|")
    for name, found in figures.items():
        middle = {
            turn: {key: statistics.median(one[key] for one in tried) for key in KEYS}
            for turn, tried in found.items()
        }
        for turn, tried in found.items():
            times = f"{middle['ours']['speed'] / middle[turn]['speed']:.2f}"
            print(
                f"| {name} | {turn} | {turns.cell([one['speed'] for one in tried], '.0f')} "
                f"| {times if turn != 'ours' else ''} | {CASES[name].bars.get(turn, '')} "
                f"| {middle[turn]['first']:.1f} | {middle[turn]['memory']:.2f} |"
            )


if __name__ == "__main__":
    with turns.guarded():
        main()
