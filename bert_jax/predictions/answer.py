"""predict answer."""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax import pretrained
from bert_jax.data.labelled.question_features import best_answers, question_examples
from bert_jax.data.labelled.records import QuestionRecord
from bert_jax.errors import UserError
from bert_jax.kinds import longest_question
from bert_jax.predictions import lines
from bert_jax.predictions.base import Asked, logits_of, note, outputs, row_form
from bert_jax.predictions.lines import Line
from bert_jax.task import TaskConfig, read_task
from bert_jax.tasks.tokens import Answer as AnswerTask

_LENGTH = 384  # of rows, where no config says it: that of the released code


class Answer(Asked):
    """Where in a context the answer to a question stands.

      python -m bert_jax.predict answer --model=runs/squad "Who wrote it?" "Ada wrote it."
      python -m bert_jax.predict answer --model=runs/squad < questions.jsonl

    A line is {"question": ..., "context": ...}; on the command line the two stand as they are.
    Out, a line each: {"question": ..., "answer": "Ada", "score": 7.1, "begin": 0, "end": 3,
    "null_difference": -4.2}, begin and end counting characters of the context. `score` is the sum
    of the logits of first and last token; `null_difference` is how far that of no answer is above
    it. Above --threshold there is none: answer, score, begin and end are null. (A model that was
    fine-tuned where every question has an answer always gives one.) A long context is read in
    windows, as in fine-tuning, and the best answer of all is taken.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--threshold", type=float, default=0.0,
            help="of null_difference, above which there is no answer (best_f1_threshold of "
            "scores.json is that which was best)",
        )  # fmt: skip

    def __init__(self, arguments: argparse.Namespace):
        self._source = source = pretrained.load(arguments.model)
        source.require("answer", "answer questions")
        self._task = read_task(source.name) or TaskConfig(kind="answer", max_length=_LENGTH)
        self._form = row_form(source, self._task.max_length)
        self._forward = logits_of(source, AnswerTask())
        self._threshold = arguments.threshold

    @staticmethod
    def given(texts: Sequence[str]) -> list[Line]:
        if len(texts) != 2:
            raise UserError(f"{len(texts)} texts given; give two, the question and the context")
        question, context = (line.text for line in lines.arguments(texts))
        return [Line(json.dumps({"question": question, "context": context}), "arguments")]

    def read(self, line: Line) -> QuestionRecord:
        values = lines.json_fields(line, ["question", "context"])
        question, context = (
            lines.text_of(values[name], name, line) for name in ("question", "context")
        )
        return QuestionRecord(line.place, question, context, None, line.place)

    def answer(self, requests: list[QuestionRecord]) -> Iterator[dict[str, Any]]:
        examples = question_examples(
            requests, self._source.tokenizer, self._form, self._task.stride,
            longest_question(self._form),
        )  # fmt: skip
        if examples.cut:
            note(
                f"a question is longer than {longest_question(self._form)} tokens; its beginning "
                f"alone is read"
            )
        logits = outputs(self._source, self._forward, examples)
        starts, ends = ([one[:, border] for one in logits] for border in (0, 1))
        longest = self._task.max_answer_length
        for record, found in zip(
            requests, best_answers(examples, starts, ends, max_answer_length=longest), strict=True
        ):
            difference = found.null_difference
            best = found.best[0] if found.best else None
            if self._task.unanswerable and difference > self._threshold:
                best = None
            yield {
                "question": record.question,
                "answer": best.text if best else None,
                "score": round(best.score, 4) if best else None,
                "begin": best.start if best else None,
                "end": best.end if best else None,
                # Infinite where the context has no token that could be an answer.
                "null_difference": round(difference, 4) if found.best else None,
            }
