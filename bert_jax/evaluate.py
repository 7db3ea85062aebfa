"""The scores of a model, with how far each can be trusted.

  python -m bert_jax.evaluate --model=runs/sst2 --data=data/sst2
  python -m bert_jax.evaluate --model=runs/sst2 --data=data/sst2 --file=test.jsonl --output=scores
  python -m bert_jax.evaluate --model=runs/base --text=domain.txt --limit=1000

A fine-tuned model on labelled data:

--model is a workdir of bert_jax.finetune, or one epoch of it, as runs/sst2/checkpoints/4209.
--data is the folder of the file (without it, that of the training), --file its name (without it,
that of task.dev). What the columns are is as in fine-tuning. Each score comes with the middle 95%
of 1,000 bootstrap samples of the examples; classes, tags and types of entity with precision,
recall and F1. With --output that folder gets scores.json, predictions.jsonl and, of classes,
classes.png: the confusion matrix and the calibration.

Any model with a masked-token head on plain text, a text a line (packed or not; - is stdin): its
pseudo-perplexity (Salazar et al. 2020), for which each token is masked in turn, by token, and by
word and by character, so that models of other vocabularies compare. --mask=word masks, with a
token, the rest of its word too (Kauf and Ivanova 2023), which is the fairer measure between
vocabularies. --limit takes the first texts alone. docs/continued.md has more.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np
from absl import flags

from bert_jax import cli, finetuned, pretrained, progress, pseudo_likelihood
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.kinds import KINDS, Outputs, row_format
from bert_jax.store import Folder, reach
from bert_jax.task import TaskConfig, read_task
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.scores import METRICS
from bert_jax.tasks.scores.answers import each_question
from bert_jax.tasks.scores.classes import (
    Reliability,
    Scores,
    confusion_matrix,
    per_class,
    reliability,
    softmax,
)
from bert_jax.tasks.scores.entities import count_entities, score_counts
from bert_jax.tasks.scores.spread import Interval, bootstrap
from bert_jax.training.mesh import one_device

_SHOWN = 20  # classes of which the confusion matrix is printed
_BATCH = 32  # where the workdir does not say


@dataclass(frozen=True)
class Evaluation:
    """`scores` are those that fine-tuning writes; `intervals` of those that examples make up.
    `by_name`: of classes, tags or types of entity. `matrix` and `calibration`: of classes.
    `facts`: what else there is to say, of plain text."""

    file: str
    examples: int
    scores: dict[str, float]
    intervals: dict[str, Interval]
    by_name: dict[str, Scores]
    matrix: np.ndarray | None
    calibration: Reliability | None
    predictions: list[dict[str, Any]]
    facts: dict[str, int | str] = field(default_factory=dict)


def main() -> None:
    values = flags.FLAGS
    model = cli.required("model")
    output = reach(values.output) if values.output else None
    check_flags()
    with jax.set_mesh(one_device()):
        if values.text:
            found = evaluate_text(model, values.text, values.mask, values.limit)
        else:
            found = evaluate(model, values.data, values.file)
    tell(found)
    if output is not None:
        write(found, output, model)
        print(f"\nkept in {output}")


def check_flags() -> None:
    """Raises UserError for flags that are not of one kind of evaluation."""
    values = flags.FLAGS
    if values.limit < 0:
        raise UserError(f"--limit={values.limit}: must be 0, for all texts, or more")
    kind, others = "plain text", ("data", "file")
    if not values.text:
        kind, others = "labelled data", ("limit", "mask")
    for name in others:
        if values[name].present:
            raise UserError(f"--{name} is not for {kind}; leave it out, or see --help")


def evaluate_text(model: str, file: str, masked: str, limit: int = 0) -> Evaluation:
    """The pseudo-perplexity of the texts of a file. Raises UserError where the model has no
    masked-token head, or the file no text."""
    texts = pseudo_likelihood.read_texts(file, limit)
    source = pseudo_likelihood.load_masked_model(model)
    with progress.scoring() as report:
        found = pseudo_likelihood.score(source, texts, masked, report)
    intervals = found.intervals()
    return Evaluation(
        file, len(found.texts), {name: one.score for name, one in intervals.items()}, intervals,
        {}, None, None, list(found.records()),
        {"masked": masked, **{name: int(each.sum()) for name, each in found.counts().items()}},
    )  # fmt: skip


def evaluate(model: str, data: str = "", file: str = "") -> Evaluation:
    """Raises UserError where the model was not fine-tuned, or the file is not one of its task."""
    source = pretrained.load(model)
    task = read_task(source.name)
    if task is None:
        raise UserError(
            f"{model}: was not fine-tuned here; name a workdir of bert_jax.finetune, or one of its "
            f"checkpoints, or give --text=FILE for a pseudo-perplexity"
        )
    task, kind = replace(task, data=data or task.data), KINDS[task.kind]
    name = file or task.dev
    records = list(kind.read(task, task.file(name)))
    labels = LabelSet.given(source.labels) if kind.named else None
    form = row_format(task, source.config)
    examples = kind.examples(task, records, source.tokenizer, form, labels)

    # The arithmetic of fine-tuning, so that the scores are its own.
    config = json.loads((reach(source.name) / finetuned.CONFIG).read_text())
    objective = FineTuning(kind.learned(task, labels), adapt=source.adapt)
    size = replace(source.config, dtype=config.get("dtype", source.config.dtype))
    logits, _ = finetuned.outputs(
        finetuned.make_forward(objective, size), objective, source.parameters, examples,
        task.buckets, config.get("batch_size", _BATCH), jax.sharding.get_mesh(),
    )  # fmt: skip
    scores, predictions = kind.judge(task, records, examples, logits, labels)
    details = _DETAILS[task.kind](task, records, examples, logits, predictions, labels)
    return Evaluation(task.file(name), len(records), scores, *details, predictions)


Details = tuple[dict[str, Interval], dict[str, Scores], np.ndarray | None, Reliability | None]


def _of_classes(
    task: TaskConfig, records: list, examples: Any, logits: Outputs, predictions: list,
    labels: LabelSet | None,
) -> Details:  # fmt: skip
    probabilities = softmax(np.stack(logits))
    said = probabilities.argmax(axis=1)
    matrix = confusion_matrix(examples.labels, said, probabilities.shape[1])
    names = labels.names if labels else tuple(map(str, range(len(matrix))))
    by_name = dict(zip(names, per_class(matrix), strict=True))
    calibration = reliability(examples.labels, probabilities)
    return _by_metric(task, examples.labels, said), by_name, matrix, calibration


def _of_numbers(
    task: TaskConfig, records: list, examples: Any, logits: Outputs, predictions: list,
    labels: LabelSet | None,
) -> Details:  # fmt: skip
    said = np.stack(logits)[:, 0].astype(np.float64)
    return _by_metric(task, examples.labels, said), {}, None, None


def _by_metric(task: TaskConfig, right: np.ndarray, said: np.ndarray) -> dict[str, Interval]:
    def of(metric: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        return bootstrap(lambda rows: metric(right[rows], said[rows]), len(said), seed=0)

    return {name: of(METRICS[name]) for name in task.metrics.split()}


def _of_tags(
    task: TaskConfig, records: list, examples: Any, logits: Outputs, predictions: list,
    labels: LabelSet | None,
) -> Details:  # fmt: skip
    """The sentence is what is drawn."""
    assert labels is not None
    gold, said = [list(one.tags) for one in records], [one["tags"] for one in predictions]
    hits = np.array([
        [sum(map(str.__eq__, a, b)), len(a)] for a, b in zip(gold, said, strict=True)
    ])  # fmt: skip

    def accuracy(rows: np.ndarray) -> float:
        right, words = hits[rows].sum(axis=0)
        return float(right / max(words, 1))

    intervals = {"accuracy": bootstrap(accuracy, len(gold), seed=0)}
    if task.scheme == "none":
        right, guessed = (
            np.array([labels[tag] for tags in some for tag in tags]) for some in (gold, said)
        )
        matrix = confusion_matrix(right, guessed, len(labels))
        return intervals, dict(zip(labels.names, per_class(matrix), strict=True)), None, None
    counts = count_entities(gold, said, task.scheme)

    def f1(rows: np.ndarray) -> float:
        return score_counts({name: of[rows] for name, of in counts.items()}).overall.f1

    return (
        {"f1": bootstrap(f1, len(gold), seed=0)} | intervals,
        score_counts(counts).by_type,
        None,
        None,
    )


def _of_answers(
    task: TaskConfig, records: list, examples: Any, logits: Outputs, predictions: list,
    labels: LabelSet | None,
) -> Details:  # fmt: skip
    answers = {one.id: [answer.text for answer in one.answers] for one in records}
    said = {one["id"]: one["answer"] for one in predictions}
    each = each_question(answers, said, task.unanswerable)

    def of(values: np.ndarray) -> Interval:
        return bootstrap(lambda rows: 100 * float(values[rows].mean()), len(values), seed=0)

    return {"exact": of(each.exact), "f1": of(each.f1)}, {}, None, None


_DETAILS: dict[str, Callable[..., Details]] = {
    "classify": _of_classes,
    "choose": _of_classes,
    "regress": _of_numbers,
    "tag": _of_tags,
    "answer": _of_answers,
}


def tell(found: Evaluation) -> None:
    print(f"{found.file}: {found.examples} examples")
    for name, value in found.scores.items():
        interval = found.intervals.get(name)
        between = f"  95% {interval.low:.4f} to {interval.high:.4f}" if interval else ""
        print(f"  {name} {value:.4f}{between}")
    if found.facts:
        print("  " + ", ".join(f"{name} {value}" for name, value in found.facts.items()))
    if found.by_name:
        width = max(5, *(len(name) for name in found.by_name))
        print(f"\n{'':{width}}  precision  recall      F1  examples")
        for name, one in found.by_name.items():
            print(
                f"{name:{width}}  {one.precision:9.4f}  {one.recall:6.4f}  {one.f1:6.4f}"
                f"  {one.support:8d}"
            )
    if found.matrix is not None and len(found.matrix) <= _SHOWN:
        names = list(found.by_name)
        width = max(len(str(found.matrix.max())), *map(len, names))
        print("\nlabel (row) and prediction (column)")
        print(" ".join(f"{name:>{width}}" for name in ["", *names]))
        for name, row in zip(names, found.matrix.tolist(), strict=True):
            print(" ".join(f"{cell:>{width}}" for cell in [name, *row]))
    if found.calibration is not None:
        print(f"\ncalibration error {found.calibration.error:.4f}")


def write(found: Evaluation, output: Folder, model: str) -> None:
    """scores.json, predictions.jsonl and, of classes, classes.png."""
    output.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "model": model,
        "file": found.file,
        "examples": found.examples,
        **found.facts,
        "scores": found.scores,
        "intervals": {name: asdict(one) for name, one in found.intervals.items()},
        "by_name": {name: one._asdict() for name, one in found.by_name.items()},
    }
    if found.calibration is not None and found.matrix is not None:
        from bert_jax.tasks.scores.picture import draw_classes  # matplotlib takes a second

        values |= {"calibration_error": found.calibration.error, "matrix": found.matrix.tolist()}
        draw_classes(
            output / "classes.png", found.matrix, list(found.by_name), found.calibration,
            f"{model} on {found.file}",
        )  # fmt: skip
    write_whole(output / finetuned.SCORES, json.dumps(values, indent=2) + "\n")
    finetuned.write_predictions(output, found.predictions)


if __name__ == "__main__":
    flags.DEFINE_string("model", "", "a workdir of bert_jax.finetune; with --text, any MODEL")
    flags.DEFINE_string("text", "", "a file of plain text, a text a line; - for stdin")
    flags.DEFINE_enum("mask", "token", pseudo_likelihood.MASKS, "word: the rest of the word too")
    flags.DEFINE_integer("limit", 0, "of the texts so many, the first; 0: all")
    flags.DEFINE_string("data", "", "the folder of the file; that of the training, if left out")
    flags.DEFINE_string("file", "", "its name; that of task.dev, if left out")
    flags.DEFINE_string("output", "", "where scores, predictions and the picture are kept")
    cli.run(main, __doc__)
