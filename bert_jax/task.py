"""A fine-tuning task as a config names it: its kind, files, columns, labels and rows."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import built
from bert_jax.errors import UserError
from bert_jax.finetuned import CONFIG, is_finetuned
from bert_jax.store import Folder, reach

# The kinds of task, and what task.metrics can name of each; the scores of the others are fixed.
METRICS_OF = {
    "classify": ("accuracy", "f1", "macro_f1", "matthews"),
    "regress": ("pearson", "spearman"),
    "tag": (),
    "answer": (),
    "choose": ("accuracy",),
}


@dataclass(frozen=True)
class TaskConfig:
    """What is labelled, and where it stands. Several names, of columns or labels, are parted by
    blanks or, where one has a blank in it, by commas: "very good, bad"."""

    kind: str = "classify"  # or regress, tag, answer, choose
    data: str = ""  # the folder of the files
    train: str = "train.jsonl"  # or .csv, .tsv; of tags a CoNLL file; of answers SQuAD's JSON
    dev: str = "dev.jsonl"
    texts: str = "sentence"  # columns of one text or two; of choices the context and all of them
    label: str = "label"  # the column of the label
    header: str = ""  # the columns of a CSV or TSV that does not begin with their names
    word: int = 0  # of tags: the column of the word, from 0, or with -1 from the end
    tag: int = -1  # and that of its tag
    labels: str = ""  # the classes or tags in their order; '': as found in `train`, sorted
    class_weights: str = ""  # a number a class, in that order
    quoted: bool = True  # of CSV and TSV: quotation marks hold a field together
    scheme: str = "bio"  # of tags: bio, bilou, or none (they are single)
    metrics: str = "accuracy"  # by kind; the first says which epoch is best; f1: of class 1
    max_length: int = 128  # of a row, special tokens counted
    lengths: str = "32 64 128 256 512"  # of rows in batches: one compilation each
    stride: int = 128  # of answers: tokens from window to window
    max_answer_length: int = 30  # of answers, in tokens
    unanswerable: bool = True  # of answers: there may be none (SQuAD 2.0)

    def __post_init__(self):
        if self.kind not in METRICS_OF:
            raise UserError(f"task.kind={self.kind!r}: must be one of {', '.join(METRICS_OF)}")
        metrics, named = METRICS_OF[self.kind], self.metrics.split()
        if metrics and (not named or not set(named) <= set(metrics)):
            raise UserError(
                f"task.metrics={self.metrics!r}: to {self.kind}, name one or more of "
                f"{', '.join(metrics)}"
            )
        columns = len(parted(self.texts))
        if self.kind in ("classify", "regress") and columns not in (1, 2):
            raise UserError(
                f"task.texts={self.texts!r}: name the column of the text, or the two of a pair"
            )
        if self.kind == "choose" and columns < 3:
            raise UserError(
                f"task.texts={self.texts!r}: name the context's column, then those of two texts or "
                f"more"
            )
        if self.class_weights and self.kind != "classify":
            raise UserError(
                f"task.class_weights={self.class_weights!r}: only classes of texts are weighed; "
                f"leave it out"
            )
        for name, read in (("lengths", int), ("class_weights", float)):
            try:
                found = [read(number) for number in getattr(self, name).split()]
            except ValueError:
                found = [-1]
            if not all(0 < number < math.inf for number in found):
                raise UserError(f"task.{name}={getattr(self, name)!r}: must be numbers above 0")
        for name in ("stride", "max_answer_length"):
            if getattr(self, name) < 1:
                raise UserError(f"task.{name}={getattr(self, name)}: must be 1 or more")
        if self.kind in ("classify", "regress", "choose") and self.label in parted(self.texts):
            raise UserError(
                f"task.label={self.label!r}: is one of task.texts={self.texts!r}, and would be "
                f"learned from itself; name the column of the label"
            )

    @property
    def buckets(self) -> list[int]:
        """The lengths of rows, ascending; the last is the greatest."""
        shorter = {int(n) for n in self.lengths.split() if int(n) < self.max_length}
        return [*sorted(shorter), self.max_length]

    def file(self, name: str) -> str:
        """Where the file of that name stands."""
        return name if name.startswith("tfds:") else str(Path(self.data) / name)

    @property
    def best(self) -> str:
        """The score that says which epoch is best: more is better."""
        if METRICS_OF[self.kind]:
            return self.metrics.split()[0]
        return "accuracy" if self.kind == "tag" and self.scheme == "none" else "f1"

    @property
    def told(self) -> tuple[str, ...]:
        """The scores that are told after each epoch."""
        return tuple(self.metrics.split()) if METRICS_OF[self.kind] else ("exact", self.best)


def parted(names: str) -> tuple[str, ...]:
    """Names parted by commas, if there is one, else by blanks."""
    if "," in names:
        return tuple(name.strip() for name in names.split(",") if name.strip())
    return tuple(names.split())


def read_task(model: str | Folder) -> TaskConfig | None:
    """What a workdir was fine-tuned for; None for any other MODEL. Raises UserError where its
    config.json cannot be read."""
    workdir = reach(str(model))
    if not is_finetuned(workdir):
        return None
    try:
        return built(TaskConfig, json.loads((workdir / CONFIG).read_text())["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{workdir / CONFIG}: cannot be read ({error}); bring back a copy"
        ) from error
