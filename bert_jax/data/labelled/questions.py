"""SQuAD's JSON (Rajpurkar et al. 2016; 2018) and TFDS's copy of it: questions about paragraphs,
answered by spans."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.data.labelled.records import (
    AnswerSpan,
    QuestionRecord,
    checked,
    not_empty,
    text_lines,
)
from bert_jax.data.sources.readers import tfds_builder, tfds_examples, tfds_source, tfds_text
from bert_jax.errors import UserError


def read_questions(source: Path | str) -> Iterator[QuestionRecord]:
    """The questions of a file of version 1.1 or 2.0, which is one JSON object and read whole, or of
    tfds:squad/v2.0#SPLIT.

    Raises UserError, which names file and question, for what has another form, an id that stands
    twice, a question with neither an answer nor is_impossible, and an answer that does not stand
    at its answer_start.
    """
    if tfds := tfds_source(str(source)):
        return not_empty(source, _of_tfds(*tfds))
    path = Path(source)
    return not_empty(path, _questions(path))


def _of_tfds(dataset: str, split: str) -> Iterator[QuestionRecord]:
    where = f"tfds:{dataset}#{split}"
    builder = tfds_builder(dataset)
    for name in ("id", "question", "context", "answers"):
        if name not in builder.info.features:
            raise UserError(f"{where}: there is no feature {name!r}; this is not the form of SQuAD")
    for number, example in enumerate(tfds_examples(builder, split, where)):
        at, found = f"{where}: example {number}", example["answers"]
        pairs = zip(found["text"], found["answer_start"], strict=True)
        entry = {
            "id": tfds_text(example["id"], at),
            "question": tfds_text(example["question"], at),
            "answers": [{"text": tfds_text(text, at), "answer_start": int(n)} for text, n in pairs],
            "is_impossible": bool(example.get("is_impossible", False)),
        }
        yield _record(where, at, checked(tfds_text(example["context"], at), at), entry)


def _questions(path: Path) -> Iterator[QuestionRecord]:
    text = "".join(text_lines(path))
    if not text or text.isspace():
        return
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: is no JSON ({error.msg} at column {error.colno}); fetch the "
            f"file again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:1: is no JSON ({error}); fetch the file again") from None
    seen: set[str] = set()
    for a, article in enumerate(_field(content, "data", list, str(path))):
        at = f"{path}: data[{a}]"
        for p, paragraph in enumerate(_field(article, "paragraphs", list, at)):
            at = f"{path}: data[{a}].paragraphs[{p}]"
            context = checked(_field(paragraph, "context", str, at), at)
            for q, entry in enumerate(_field(paragraph, "qas", list, at)):
                record = _record(path, f"{at}.qas[{q}]", context, entry)
                if record.id in seen:
                    raise UserError(f"{record.place}: this id stands twice; mend one")
                seen.add(record.id)
                yield record


def _record(path: Path | str, at: str, context: str, entry: Any) -> QuestionRecord:
    name = _field(entry, "id", str, at)
    place = f"{path}: question {name}"
    question = checked(_field(entry, "question", str, place), place)
    impossible = entry.get("is_impossible", False)
    answers = tuple(
        _answer(found, context, place) for found in _field(entry, "answers", list, place)
    )
    if not isinstance(impossible, bool) or impossible == bool(answers):
        raise UserError(
            f"{place}: is_impossible is {json.dumps(impossible)} with {len(answers)} answers; "
            f"every question has answers, or is_impossible: true and none"
        )
    return QuestionRecord(name, question, context, answers, place)


def _answer(found: Any, context: str, place: str) -> AnswerSpan:
    text, start = _field(found, "text", str, place), _field(found, "answer_start", int, place)
    if not text or text.isspace():
        raise UserError(f"{place}: an answer is blank; mend it, or leave the question out")
    if start < 0 or not context.startswith(text, start):
        there = context[max(start, 0) : max(start, 0) + len(text)]
        raise UserError(
            f"{place}: {text!r:.60} does not stand at character {start} of its context, where "
            f"there is {there!r:.60}; mend answer_start (it counts characters, not bytes)"
        )
    return AnswerSpan(text, start)


def _field(found: Any, name: str, kind: type, at: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        raise UserError(f"{at}: there is no {name!r}; this is not the form of SQuAD's files")
    value = found[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {list: "a list", str: "text", int: "an integer"}
        raise UserError(
            f"{at}: {name!r} is not {names[kind]}; this is not the form of SQuAD's files"
        )
    return value
