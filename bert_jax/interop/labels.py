"""Heads of fine-tuned models: their classes, and what config.json says of their labels."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.interop.rows import Row, dense
from bert_jax.models.config import EncoderConfig

# What the class of transformers ends with, by our name of the head.
_ENDINGS = {
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering",
    "choose": "ForMultipleChoice",
}
LABEL_HEADS = tuple(_ENDINGS)
# How many logits those have whose labels have no names: where it begins and ends; how good it is.
_NAMELESS = {"answer": 2, "choose": 1}


def classes(family: str) -> dict[tuple[str, ...], str]:
    return {(head,): family + ending for head, ending in _ENDINGS.items()}


def label_heads(classify: str) -> dict[str, Callable[[EncoderConfig], list[Row]]]:
    """Rows of each; `classify`: what the one of whole texts is called, the others are alike."""
    return {
        "classify": lambda config: dense("heads.classify", classify),
        "tag": lambda config: dense("heads.tag", "classifier"),
        "answer": lambda config: dense("heads.answer", "qa_outputs"),
        "choose": lambda config: dense("heads.choose", "classifier"),
    }


def which_head(architectures: object, there: Collection[str]) -> str:
    """The one that config.json names; else the only one that tensors are `there` for, as several
    have the same names; '' for none."""
    named = architectures if isinstance(architectures, list) else []
    for head, ending in _ENDINGS.items():
        if any(str(name).endswith(ending) for name in named):
            return head
    possible = [head for head in LABEL_HEADS if head in there]
    return possible[0] if len(possible) == 1 else ""


def names_of(values: Mapping[str, Any], heads: Collection[str], num_labels: int) -> tuple[str, ...]:
    """The names of the labels of a head with `num_labels` logits; () where they have none, as a
    number has. Raises UserError for logits that mean what those of no head here do."""
    head = next((head for head in LABEL_HEADS if head in heads), "")
    if not head:
        return ()
    if num_labels != _NAMELESS.get(head, num_labels):
        raise UserError(
            f"config.json: the {head} head has {num_labels} logits, not {_NAMELESS[head]}"
        )
    problem = values.get("problem_type")
    if head == "classify" and (
        problem == "multi_label_classification" or (problem == "regression" and num_labels > 1)
    ):
        raise UserError(
            f"config.json: problem_type={problem!r} of {num_labels} labels is not supported"
        )
    if head in _NAMELESS or (head, num_labels) == ("classify", 1):
        return ()
    names = values.get("id2label")
    if names is None and (count := values.get("num_labels", 2)) != num_labels:
        raise UserError(f"config.json: num_labels={count!r}, and the {head} head has {num_labels}")
    names = _usual(num_labels) if names is None else names
    try:
        by_number = {int(number): str(name) for number, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise UserError(f"config.json: id2label={names!r} must have a name a number") from error
    if sorted(by_number) != list(range(num_labels)):
        raise UserError(
            f"config.json: id2label leads to {len(by_number)} labels, numbered from 0, and the "
            f"{head} head has {num_labels}"
        )
    return tuple(by_number[number] for number in range(num_labels))


def written(heads: Collection[str], num_labels: int, labels: Sequence[str]) -> dict[str, Any]:
    """What config.json says of them. transformers counts the names to know how many there are."""
    if not set(heads) & (set(LABEL_HEADS) - set(_NAMELESS)):
        return {}
    names = dict(enumerate(labels)) or _usual(num_labels)
    found: dict[str, Any] = {
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
    if "classify" in heads and num_labels == 1:
        found["problem_type"] = "regression"
    return found


def _usual(count: int) -> dict[int, str]:
    """The names that transformers gives."""
    return {number: f"LABEL_{number}" for number in range(count)}
