"""What a study says of itself: its question, its cells, its paper's numbers, how it is judged.

A study is a file of this folder with one `STUDY`. Its cells differ from one baseline; all of them
have the same tokenizer, corpus and evaluation, whatever a cell says (plan.py sees to that).
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_jax.config import nearest
from bert_jax.errors import UserError
from configs.common import MINUTES
from experiments.grid import Cell, Grid, Value

SCALES = ("smoke", "cpu", "gpu", "paper")
BUDGETS = ("steps", "flops", "tokens", "time")


@dataclass(frozen=True)
class Metric:
    """A score of a finished run: a held-out one of metrics.jsonl, one of the frozen encoder's
    (probe_words, probe_continuation, probe_order), or task_... for those of fine-tuning."""

    name: str
    label: str
    lower: bool = False  # whether less is better
    term: str = ""  # of the objective, that trains on this very question

    def better(self, difference: float) -> bool:
        return (difference < 0) == self.lower


MLM_LOSS = Metric("eval_mlm_loss", "held-out MLM loss (nats)", lower=True)
MLM_ACCURACY = Metric("eval_mlm_accuracy", "held-out MLM accuracy")
WORDS = Metric("probe_words", "frozen encoder: are the words in their order?")
CONTINUATION = Metric("probe_continuation", "frozen encoder: does B follow A?", term="nsp")
ORDER = Metric("probe_order", "frozen encoder: which of A and B came first?", term="sop")
PROBES = (WORDS, CONTINUATION, ORDER)  # the first gives a verdict: no term trains on it


@dataclass(frozen=True)
class Paper:
    """A paper's table. `rows`: by the names of our cells, a number a column, None where the paper
    has none. `judged`: the column that our verdict stands beside."""

    source: str
    scale: str  # what the numbers were measured on
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    judged: str
    lower: bool = False  # whether less is better in the judged column
    least: float = 0.2  # smaller differences there are those of fine-tuning's seeds

    def number(self, cell: str) -> float | None:
        row = self.rows.get(cell)
        return None if row is None else row[self.columns.index(self.judged)]


@dataclass(frozen=True)
class Scale:
    """How large a study is run. `settings`: of all cells, before their own. `steps`: the
    baseline's; 0: its preset's own, with its own warm-up. `cells`: the names of those that are run;
    () for all. `warmup`: the share of the steps."""

    preset: str
    note: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    steps: int = 0
    seeds: int = 5
    cells: tuple[str, ...] = ()
    warmup: float = 0.14
    evaluations: int = 6  # in the course of a run
    topology: str = ""  # what preflight is asked about before it starts

    @property
    def proxy(self) -> bool:
        """Whether it stands for a larger thing."""
        return self.steps > 0


@dataclass(frozen=True)
class Study:
    """`cells`: at a scale, as the slots of a batch go by its length. `budgets`: what all cells
    have in common; of several, each is a comparison of its own. The first metric gives the
    verdict."""

    name: str
    question: str
    cells: Callable[[Scale], Grid]
    baseline: str
    metrics: tuple[Metric, ...]
    papers: tuple[Paper, ...]
    scales: Mapping[str, Scale]
    budgets: tuple[str, ...] = ("steps",)
    family: str = "bert"
    notes: tuple[str, ...] = ()  # what a reader has to know to judge the comparison

    def grid(self, scale: Scale) -> list[Cell]:
        """The cells of a scale, the baseline first."""
        cells = [c for c in self.cells(scale) if not scale.cells or c.name in scale.cells]
        return sorted(cells, key=lambda cell: cell.name != self.baseline)


# One tokenizer for all cells: BERT's kind. What a cell says of these does not count.
TOKENIZER: dict[str, Value] = {
    "corpus.tokenizer": "wordpiece",
    "corpus.special_tokens": "[PAD] [UNK] [CLS] [SEP] [MASK]",
    "corpus.lowercase": True,
    "model.position_offset": 0,  # RoBERTa's other one goes by the padding's id in its vocabulary
}
_SMALL: dict[str, Value] = {
    "model.vocab_size": 4096,
    "corpus.held_out": 0.1,
    "data.batch_size": 64,
    "train.eval_examples": 2048,
    "train.keep": 1,
}
_MINI: dict[str, Value] = {
    "model.vocab_size": 8192,
    "model.hidden_size": 256,
    "model.num_layers": 4,
    "model.num_heads": 4,
    "model.intermediate_size": 1024,
    "model.dtype": "bfloat16",
    "model.initializer_stddev": 0.04,
    "corpus.held_out": 0.05,
    "data.sequence_length": 128,
    "data.batch_size": 256,
    "data.max_predictions": 39,  # 30% of a row
    "train.eval_examples": 8192,
    "train.keep": 1,
    "train.deterministic": True,
    "optimizer.learning_rate": 1.5e-3,
}


# Paper scales that several studies have.
BERT_BASE = Scale(
    "base", "BERT-base's 1M steps of 256",
    {"data.batch_size": 256, "train.steps": 1_000_000, "optimizer.learning_rate": 1e-4,
     "optimizer.warmup_steps": 10_000},
    topology="v5e:4x4",
)  # fmt: skip
EFFICIENT_LARGE = Scale(
    "large", "RoBERTa-large at length 128, 23,000 steps of 4,096 (Izsak et al. 2021)",
    {"data.sequence_length": 128, "data.batch_size": 4096, "train.steps": 23_000,
     "optimizer.warmup_steps": 1400},
    topology="v5e:8x8",
)  # fmt: skip
# What tables of Wettig et al. have in common, and their masks: chosen tokens all become [MASK].
WETTIG: dict[str, Any] = {
    "source": "Wettig et al. 2023 (README of its code, DinkyTrain)",
    "scale": "BERT-large, an efficient pre-norm recipe, fine-tuned; development sets",
    "columns": ("MNLI", "QNLI", "QQP", "SST-2"),
    "judged": "MNLI",
}
MASK_ONLY: dict[str, Value] = {"data.mask_token_share": 1.0, "data.random_token_share": 0.0}


def slots(rate: float, length: int) -> int:
    """Slots for all that a rate can choose in a row of this length."""
    return math.ceil(round(rate * length, 6))


def masked(rate: float, scale: Scale) -> dict[str, Value]:
    """A rate of masking, with slots enough for it. At paper scale for the 128 of the first phase
    or the length that the scale sets."""
    length = int(scale.settings.get("data.sequence_length", 128))
    return {"data.mask_rate": rate, "data.max_predictions": slots(rate, length)}


def proxies(
    preset: str = "tiny",
    recipe: Mapping[str, Any] = MINUTES,
    smoke: tuple[str, ...] = (),
    cpu: Mapping[str, Value] | None = None,
    steps: tuple[int, int, int] = (24, 1000, 4000),
) -> dict[str, Scale]:
    """Scales smoke, cpu and gpu of a study: `recipe` on small sizes, with so many steps each.
    `smoke`: the cells of the first. A recipe's own rate is for batches of 128; where cells have
    rates of their own, these stay."""
    rate = {name: 2e-3 for name in recipe if name == "optimizer.learning_rate"}
    return {
        "smoke": Scale(
            preset, "2 layers of width 32: says only that it runs",
            {**recipe, **_SMALL, "model.hidden_size": 32, "model.num_heads": 2,
             "model.intermediate_size": 64, "train.eval_examples": 512},
            steps[0], 2, smoke, evaluations=3,
        ),
        "cpu": Scale(
            preset, "2 layers of width 128, rows of 32 tokens, batches of 64, for two cores",
            {**recipe, **_SMALL, **rate, **(cpu or {})}, steps[1], 5, evaluations=4,
        ),
        "gpu": Scale(
            preset, "4 layers of width 256, rows of 128 tokens, batches of 256, for one GPU",
            {**recipe, **_MINI}, steps[2], 5,
        ),
    }  # fmt: skip


def find(name: str) -> Study:
    """The study of that name. Raises UserError where there is none."""
    known = names()
    if name not in known:
        raise UserError(f"{name!r}: there is no such study; {nearest(name, known)}")
    return importlib.import_module(f"experiments.{name}").STUDY


def names() -> list[str]:
    """Of all studies: the files here that have a STUDY."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [path.stem for path in files if "\nSTUDY = " in path.read_text()]


def scale_of(study: Study, name: str) -> Scale:
    if name not in study.scales:
        raise UserError(f"--scale={name}: {study.name} has {', '.join(study.scales)}")
    return study.scales[name]
