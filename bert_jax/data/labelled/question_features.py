"""Questions to examples, a window of the context each; and logits back to answers.

As the released code of Devlin et al. 2018 (4.2 and 4.3) has it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bert_jax.data.labelled.characters import encode_spans
from bert_jax.data.labelled.features import Examples, RowFormat, Rows, flat
from bert_jax.data.labelled.records import QuestionRecord
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.errors import UserError

NO_ANSWER = (-1, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class QuestionExamples(Examples):
    """`spans`: begin and end of each token's characters in the context, −1 of tokens that are not
    of it. `central`: whether this window has most context around it: answers begin at such tokens
    alone, once each. (None is lost where windows share twice the longest answer, in tokens.)

    labels are the places of the first answer's first and last token in the row, 0 and 0 ([CLS])
    where it is not in the window, or there is none. `lost`: of how many questions no token stands
    for the answer; they weigh 0.
    """

    spans: Int[np.ndarray, "T 2"]
    central: Bool[np.ndarray, "T"]
    questions: tuple[QuestionRecord, ...]
    lost: int = 0

    def told(self) -> str:
        """As Examples.told."""
        lost = f", {self.lost} answers that no token stands for" if self.lost else ""
        return (
            f"{len(self.questions)} questions in {len(self)} windows, {self.cut} questions cut"
            f"{lost}"
        )


def question_examples(
    records: Iterable[QuestionRecord], tokenizer: Tokenizer, form: RowFormat, stride: int = 128,
    max_question: int = 64,
) -> QuestionExamples:  # fmt: skip
    """[CLS] question [SEP] window [SEP]. A window begins `stride` tokens of the context after the
    one before, as `doc_stride` in the released code, or where that one ends if it is shorter. A
    question is cut to `max_question` tokens, and counted."""
    if stride < 1 or max_question < 1 or form.room(pair=True) <= max_question:
        raise UserError(
            f"max_length={form.max_length}, max_question={max_question}, stride={stride}: a row "
            f"needs room for the question, at least one token of the context, and special "
            f"tokens; raise max_length or lower max_question"
        )
    rows, cut, lost = Rows(tokenizer.vocabulary, form), 0, 0
    windows, weights, owners = list[_Window](), list[float](), list[int]()
    questions = tuple(records)
    context, ids, spans = None, list[int](), np.zeros((0, 2), np.int32)
    for owner, record in enumerate(questions):
        if record.context is not context:  # that of a paragraph's questions is one object
            context = record.context
            ids, spans = encode_spans(tokenizer, context)
        question = tokenizer.encode([record.question])[0]
        cut += len(question) > max_question
        answer = _tokens_of_answer(record, spans)
        lost += record.answers is not None and answer is None
        weight = float(record.answers is not None and answer is not None)
        for window in _add_windows(
            rows, question[:max_question], ids, spans, stride, answer or NO_ANSWER
        ):
            windows.append(window)
            weights.append(weight)
            owners.append(owner)
    return QuestionExamples(
        **rows.arrays(),
        labels=np.array([window.label for window in windows], np.int32).reshape(-1, 2),
        weights=np.array(weights, np.float32),
        owners=np.array(owners, np.int64),
        cut=cut,
        spans=flat([window.spans for window in windows], np.int32, 2),
        central=flat([window.central for window in windows], bool),
        questions=questions,
        lost=lost,
    )


class _Window(NamedTuple):
    spans: np.ndarray
    central: np.ndarray
    label: tuple[int, int]


def _add_windows(
    rows: Rows, question: list[int], ids: list[int], spans: np.ndarray, stride: int,
    answer: tuple[int, int],
) -> Iterator[_Window]:  # fmt: skip
    """Adds the rows of a question, and tells what of them goes into QuestionExamples."""
    room = rows.form.room(pair=True) - len(question)
    step = min(stride, room)
    starts = range(0, max(len(ids) - room, 0) + step, step)
    best = _central(starts, room, len(ids))
    for number, start in enumerate(starts):
        end = min(start + room, len(ids))
        second = rows.add(question, ids[start:end])
        here = slice(second, second + end - start)
        places = np.full((rows.lengths[-1], 2), -1, np.int32)
        places[here] = spans[start:end]
        central = np.zeros(rows.lengths[-1], bool)
        central[here] = best[start:end] == number
        first, last = answer
        inside = start <= first and last < end
        label = (first + second - start, last + second - start) if inside else (0, 0)
        yield _Window(places, central, label)


def _tokens_of_answer(record: QuestionRecord, characters: np.ndarray) -> tuple[int, int] | None:
    """The first and last token that touch the first answer; NO_ANSWER without one, None where no
    token does."""
    if not record.answers:
        return NO_ANSWER
    answer = record.answers[0]
    begin, end = answer.start, answer.start + len(answer.text)
    (touched,) = np.nonzero((characters[:, 0] < end) & (characters[:, 1] > begin))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _central(starts: Sequence[int], room: int, tokens: int) -> Int[np.ndarray, "tokens"]:
    """Of each token of the context the number of the window in which it has most context: the
    tokens on its poorer side and a hundredth of the window's, the first of equals."""
    best, most = np.zeros(tokens, np.int64), np.full(tokens, -1.0)
    for number, begin in enumerate(starts):
        end = min(begin + room, tokens)
        places = np.arange(begin, end)
        score = np.minimum(places - begin, end - 1 - places) + 0.01 * (end - begin)
        better = score > most[begin:end]
        best[begin:end][better], most[begin:end][better] = number, score[better]
    return best


class Answer(NamedTuple):
    """Characters `start` to `end` − 1 of the context. `score`: the sum of its two logits."""

    text: str
    start: int
    end: int
    score: float


class Answers(NamedTuple):
    """What was found for a question. `best`: by score, each text once. `null_difference`: the
    least sum of the logits at [CLS] over all windows, less the best score; above a threshold
    there is no answer (Devlin et al. 2018, 4.3: τ, chosen for the best F1 on the dev set)."""

    id: str
    best: tuple[Answer, ...]
    null_difference: float


def best_answers(
    examples: QuestionExamples,
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[Answers]:
    """Of each question, in order, its best answers over all windows, out of the `n_best` highest
    starts and ends of each window and at most `max_answer_length` tokens long. The logits are
    [S] of each example, in order, S at least its length."""
    found: list[list[tuple[float, int, int]]] = [[] for _ in examples.questions]
    nulls = [math.inf] * len(examples.questions)
    for number, owner in enumerate(examples.owners):
        here = examples.row(number)
        starts, ends = (
            np.asarray(logits[number], np.float64)[: here.stop - here.start]
            for logits in (start_logits, end_logits)
        )
        nulls[owner] = min(nulls[owner], float(starts[0] + ends[0]))
        spans = examples.spans[here]
        first = _highest(starts, examples.central[here], n_best)
        last = _highest(ends, spans[:, 0] >= 0, n_best)
        gaps = last[None, :] - first[:, None]
        for i, j in zip(*np.nonzero((gaps >= 0) & (gaps < max_answer_length)), strict=True):
            score = float(starts[first[i]] + ends[last[j]])
            found[owner].append((score, int(spans[first[i], 0]), int(spans[last[j], 1])))
    out = []
    for record, candidates, null in zip(examples.questions, found, nulls, strict=True):
        best = dict[str, Answer]()
        for score, begin, end in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
            text = record.context[begin:end]
            if text and text not in best:
                best[text] = Answer(text, begin, end, score)
            if len(best) == n_best:
                break
        ranked = tuple(best.values())
        out.append(Answers(record.id, ranked, null - ranked[0].score if ranked else math.inf))
    return out


def _highest(logits: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The places of the highest that are allowed, the highest first."""
    (places,) = np.nonzero(allowed)
    return places[np.argsort(-logits[places], kind="stable")[:count]]
