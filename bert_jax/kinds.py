"""The only table from a kind of task to its parts: what is read, learned, and scored."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bert_jax.data.labelled.features import Examples, RowFormat, choice_examples, text_examples
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.question_features import (
    QuestionExamples,
    best_answers,
    question_examples,
)
from bert_jax.data.labelled.questions import read_questions
from bert_jax.data.labelled.records import ChoiceRecord, QuestionRecord, TagRecord, TextRecord
from bert_jax.data.labelled.tables import Table, read_choices, read_texts
from bert_jax.data.labelled.tag_features import TagExamples, tag_examples
from bert_jax.data.labelled.tags import read_tags
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.task import TaskConfig, parted
from bert_jax.tasks.base import Task
from bert_jax.tasks.scores import METRICS
from bert_jax.tasks.scores.answers import squad_1, squad_2
from bert_jax.tasks.scores.classes import softmax
from bert_jax.tasks.scores.entities import score_entities
from bert_jax.tasks.sentences import Classification, Regression
from bert_jax.tasks.tokens import Answer, Tagging

Outputs = Sequence[Float[np.ndarray, "..."]]  # logits of each example: [C], or [S, C] by token
Found = tuple[dict[str, float], list[dict[str, Any]]]  # scores, and what was predicted of each


class Kind(NamedTuple):
    """A kind of task: records of a file, rows of the records, what the head learns, what the logits
    score and say, and how wide the head is."""

    read: Callable[[TaskConfig, str], Iterable[Any]]
    named: bool  # whether labels have names
    examples: Callable[[TaskConfig, Sequence[Any], Tokenizer, RowFormat, LabelSet | None], Examples]
    learned: Callable[[TaskConfig, LabelSet | None], Task]
    judge: Callable[[TaskConfig, Sequence[Any], Any, Outputs, LabelSet | None], Found]
    width: Callable[[LabelSet | None], int]


def label_set(config: TaskConfig, records: Sequence[Any]) -> LabelSet | None:
    """The classes or tags: as task.labels has them, as the source of `train` declares them, or
    those of its records, sorted. None for a kind whose labels have no names."""
    if not KINDS[config.kind].named:
        return None
    names: Sequence[str] = parted(config.labels)
    if not names and config.kind == "classify":
        names = _table(config, config.file(config.train)).classes(config.label)
    return LabelSet.given(names) if names else LabelSet.found(records)


def row_format(config: TaskConfig, model: EncoderConfig) -> RowFormat:
    """As the model was pretrained: one of a single token type has two separators (RoBERTa's code).

    Raises UserError for rows longer than the model's positions.
    """
    if config.max_length > model.max_positions:
        raise UserError(
            f"task.max_length={config.max_length}: the model has {model.max_positions} positions; "
            f"lower it"
        )
    return rows_of(model, config.max_length)


def rows_of(model: EncoderConfig, length: int) -> RowFormat:
    """As `row_format`, rows of at most that length."""
    types = model.type_vocab_size
    return RowFormat(length, types, separators=2 if types == 1 else 1)


def longest_question(form: RowFormat) -> int:
    """In tokens: 64 (released code), and of a short row no more than half of what it holds."""
    return min(64, form.room(pair=True) // 2)


def _table(config: TaskConfig, file: str) -> Table:
    return Table(file, config.quoted, parted(config.header))


def _texts(config: TaskConfig, file: str, kind: str) -> Iterable[TextRecord]:
    return read_texts(_table(config, file), parted(config.texts), config.label, kind)


def _choices(config: TaskConfig, file: str) -> Iterable[ChoiceRecord]:
    context, *choices = parted(config.texts)
    return read_choices(_table(config, file), context, choices, config.label)


def _questions(config: TaskConfig, file: str) -> Iterable[QuestionRecord]:
    for record in read_questions(file):
        if not record.answers and not config.unanswerable:
            raise UserError(
                f"{record.place}: it has no answer; leave it out, or set task.unanswerable=true "
                f"(SQuAD 2.0)"
            )
        yield record


def _judge_classes(
    config: TaskConfig, records: Sequence[TextRecord], examples: Examples, outputs: Outputs,
    labels: LabelSet | None,
) -> Found:  # fmt: skip
    assert labels is not None
    probabilities = softmax(np.stack(outputs))
    said = probabilities.argmax(axis=1)
    predictions = [
        {"texts": record.texts, "label": labels.names[one], "probability": round(float(p[one]), 6)}
        for record, one, p in zip(records, said.tolist(), probabilities, strict=True)
    ]
    return _by_metric(config, examples, said), predictions


def _judge_numbers(
    config: TaskConfig, records: Sequence[TextRecord], examples: Examples, outputs: Outputs,
    labels: LabelSet | None,
) -> Found:  # fmt: skip
    said = np.stack(outputs)[:, 0].astype(np.float64)
    predictions = [
        {"texts": record.texts, "number": round(float(one), 6)}
        for record, one in zip(records, said, strict=True)
    ]
    return _by_metric(config, examples, said), predictions


def _judge_choices(
    config: TaskConfig, records: Sequence[ChoiceRecord], examples: Examples, outputs: Outputs,
    labels: LabelSet | None,
) -> Found:  # fmt: skip
    probabilities = softmax(np.stack(outputs))
    said = probabilities.argmax(axis=1)
    predictions = [
        {"context": record.context, "choice": one, "probability": round(float(p[one]), 6)}
        for record, one, p in zip(records, said.tolist(), probabilities, strict=True)
    ]
    return _by_metric(config, examples, said), predictions


def _by_metric(config: TaskConfig, examples: Examples, said: np.ndarray) -> dict[str, float]:
    return {name: METRICS[name](examples.labels, said) for name in config.metrics.split()}


def _judge_tags(
    config: TaskConfig, records: Sequence[TagRecord], examples: TagExamples, outputs: Outputs,
    labels: LabelSet | None,
) -> Found:  # fmt: skip
    assert labels is not None
    said = [
        [labels.names[int(one)] for one in word_logits.argmax(axis=-1)]
        for word_logits in examples.by_word(outputs)
    ]
    predictions = [
        {"words": record.words, "tags": tags} for record, tags in zip(records, said, strict=True)
    ]
    gold = [list(record.tags or ()) for record in records]
    hits = [a == b for right, mine in zip(gold, said, strict=True)
            for a, b in zip(right, mine, strict=True)]  # fmt: skip
    scores = {"accuracy": float(np.mean(hits))}
    if config.scheme == "none":
        return scores, predictions
    found = score_entities(gold, said, config.scheme)
    by_type = {f"f1_{name}": one.f1 for name, one in found.by_type.items()}
    overall = {"precision": found.overall.precision, "recall": found.overall.recall}
    return {"f1": found.overall.f1} | overall | scores | by_type, predictions


def _judge_answers(
    config: TaskConfig, records: Sequence[QuestionRecord], examples: QuestionExamples,
    outputs: Outputs, labels: LabelSet | None,
) -> Found:  # fmt: skip
    starts, ends = ([logits[:, border] for logits in outputs] for border in (0, 1))
    found = best_answers(examples, starts, ends, max_answer_length=config.max_answer_length)
    text = {one.id: one.best[0].text if one.best else "" for one in found}
    # Where no span is left that could be an answer it is infinite: above that of all others.
    doubts = np.array([one.null_difference for one in found])
    most = max(0.0, float(doubts[np.isfinite(doubts)].max(initial=0.0)))
    doubt = {
        one.id: float(difference) if np.isfinite(difference) else most + 1
        for one, difference in zip(found, doubts, strict=True)
    }
    answers = {record.id: [answer.text for answer in record.answers or ()] for record in records}
    if config.unanswerable:
        scores = squad_2(answers, text, doubt, threshold=0.0)
    else:
        scores = squad_1(answers, text)
    predictions = [
        {
            "id": one.id,
            "answer": "" if config.unanswerable and one.null_difference > 0 else text[one.id],
            "best": [{"text": best.text, "score": round(best.score, 4)} for best in one.best[:5]],
            "null_difference": round(one.null_difference, 4) if one.best else None,
        }
        for one in found
    ]
    return scores, predictions


def _class_weights(config: TaskConfig, labels: LabelSet | None) -> tuple[float, ...]:
    weights = tuple(float(number) for number in config.class_weights.split())
    if weights and len(weights) != len(labels or ()):
        raise UserError(
            f"task.class_weights={config.class_weights!r}: there are {len(labels or ())} classes"
        )
    return weights


KINDS: dict[str, Kind] = {
    "classify": Kind(
        lambda config, file: _texts(config, file, "class"), True,
        lambda config, records, *with_: text_examples(records, *with_),
        lambda config, labels: Classification(_class_weights(config, labels)),
        _judge_classes, lambda labels: len(labels or ()),
    ),
    "regress": Kind(
        lambda config, file: _texts(config, file, "number"), False,
        lambda config, records, *with_: text_examples(records, *with_),
        lambda config, labels: Regression(), _judge_numbers, lambda labels: 1,
    ),
    "tag": Kind(
        lambda config, file: read_tags(file, config.tag, config.word, config.scheme), True,
        lambda config, records, *with_: tag_examples(records, *with_),
        lambda config, labels: Tagging(), _judge_tags, lambda labels: len(labels or ()),
    ),
    "answer": Kind(
        _questions, False,
        lambda config, records, tokenizer, form, labels: question_examples(
            records, tokenizer, form, config.stride, longest_question(form)
        ),
        lambda config, labels: Answer(), _judge_answers, lambda labels: 2,
    ),
    "choose": Kind(
        _choices, False,
        lambda config, records, tokenizer, form, labels: choice_examples(records, tokenizer, form),
        lambda config, labels: Classification(name="choose"), _judge_choices, lambda labels: 1,
    ),
}  # fmt: skip
