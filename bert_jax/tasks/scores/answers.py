"""Scores of answers to questions, as the scripts published with SQuAD compute them: 1.1 (Rajpurkar
et al. 2016, arXiv:1606.05250) and 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822), where a question
may have no answer and the empty string says so. Percentages.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from bert_jax.errors import UserError

_PUNCTUATION = str.maketrans("", "", string.punctuation)  # that of ASCII; quotes like ’ stay
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class Answered:
    """Each question's scores in [0, 1]: what a mean is taken of, and a bootstrap resamples."""

    questions: list[str]
    exact: Float[np.ndarray, "Q"]
    f1: Float[np.ndarray, "Q"]
    has_answer: Bool[np.ndarray, "Q"]


def normalise(text: str) -> str:
    """Lower case; no ASCII punctuation; no word a, an, the; single spaces between what is left. In
    this order: `a.` is an article, and `U.S.A` one word."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, prediction: str) -> float:
    """1 where both are the same after `normalise`, otherwise 0."""
    return float(normalise(answer) == normalise(prediction))


def token_f1(answer: str, prediction: str, unanswerable: bool) -> float:
    """F1 of the words after `normalise`, each as often as it stands there. 0 where no word is in
    both; SQuAD 2.0, `unanswerable`, gives 1 where neither has a word, SQuAD 1.1 does not."""
    right, guessed = normalise(answer).split(), normalise(prediction).split()
    if unanswerable and not right and not guessed:
        return 1.0
    hits = (Counter(right) & Counter(guessed)).total()
    return 2 * hits / (len(right) + len(guessed)) if hits else 0.0


def each_question(
    answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str], unanswerable: bool
) -> Answered:
    """Scores a question by the answer that is nearest to the prediction. Both go by the question's
    id; a prediction for no question is left alone.

    In SQuAD 2.0, `unanswerable`, a question without answers has the answer "", and an answer that
    `normalise` leaves nothing of is none. Raises UserError for a question without a prediction
    (the scripts give 0 in 1.1 and leave the question out in 2.0), without answers in 1.1, and
    where there is no question.
    """
    if not answers:
        raise UserError("no questions to score: name a split that has some")
    if missing := [question for question in answers if question not in predictions]:
        raise UserError(
            f"question {missing[0]}: no prediction, nor for {len(missing) - 1} of the other "
            f"{len(answers) - 1}; predict an answer to every question"
        )
    exact, f1 = [], []
    for question, given in answers.items():
        if unanswerable:
            given = [answer for answer in given if normalise(answer)] or [""]
        elif not given:
            raise UserError(f"question {question}: no answer, as SQuAD 2.0 has it; score it so")
        exact.append(max(exact_match(answer, predictions[question]) for answer in given))
        f1.append(max(token_f1(answer, predictions[question], unanswerable) for answer in given))
    has_answer = np.array([len(given) > 0 for given in answers.values()])
    return Answered(list(answers), np.array(exact), np.array(f1), has_answer)


def squad_1(
    answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> dict[str, float]:
    """`exact`, `f1` and `total`, the number of questions. Errors as in `each_question`."""
    return _means("", each_question(answers, predictions, unanswerable=False))


def squad_2(
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer: Mapping[str, float] | None = None,
    threshold: float | None = None,
) -> dict[str, float]:
    """`exact`, `f1` and `total`; the same with `has_answer_` and `no_answer_` before them, of the
    questions that have an answer and those that have none, as far as there are any.

    no_answer is how sure the model is that a question has no answer: a probability, or any number
    that grows with it. A prediction is withheld where it is above `threshold`. The best thresholds
    come with it, for `predictions` as they are: `best_exact` and `best_exact_threshold`, `best_f1`
    and `best_f1_threshold`. Errors as in `each_question`, and a UserError where no_answer lacks a
    question or is not finite.
    """
    answered = each_question(answers, predictions, unanswerable=True)
    if no_answer is None:
        if threshold is not None:
            raise ValueError("a threshold needs no_answer, which it is a threshold of")
        return _summary(answered)
    doubts = np.array([no_answer.get(question, np.nan) for question in answers], np.float64)
    if not np.all(np.isfinite(doubts)):
        question = answered.questions[int(np.argmin(np.isfinite(doubts)))]
        raise UserError(
            f"question {question}: no finite number says how sure it is that there is no answer; "
            f"give one for every question"
        )
    found = _summary(answered if threshold is None else withhold(answered, doubts, threshold))
    for name, scores in (("exact", answered.exact), ("f1", answered.f1)):
        best, at = best_threshold(scores, answered.has_answer, doubts)
        found |= {f"best_{name}": best, f"best_{name}_threshold": at}
    return found


def withhold(answered: Answered, no_answer: Float[np.ndarray, "Q"], threshold: float) -> Answered:
    """Scores with "" for the prediction where no_answer is above the threshold."""
    above, right = no_answer > threshold, (~answered.has_answer).astype(np.float64)
    return replace(
        answered,
        exact=np.where(above, right, answered.exact),
        f1=np.where(above, right, answered.f1),
    )


def best_threshold(
    scores: Float[np.ndarray, "Q"],
    has_answer: Bool[np.ndarray, "Q"],
    no_answer: Float[np.ndarray, "Q"],
) -> tuple[float, float]:
    """The highest mean that `withhold` reaches, a percentage, and the lowest of the thresholds
    that reach it: one of no_answer or, to withhold every prediction, 0 or the next number below
    all of no_answer, whichever is lower.

    SQuAD's script also stops between questions of equal no_answer, where no threshold leads,
    always says 0 for withholding all, and does not see that a prediction of articles alone is "".
    Without these it finds the same.
    """
    order = np.argsort(no_answer, kind="stable")
    steps, withheld = no_answer[order], (~has_answer).astype(np.float64)
    totals = np.cumsum(np.concatenate([[withheld.sum()], (scores - withheld)[order]]))
    ends = np.flatnonzero(np.append(steps[1:] != steps[:-1], True))  # the last of equal ones
    none = min(0.0, float(np.nextafter(steps[0], -np.inf)))
    thresholds = np.concatenate([[none], steps[ends]])
    reached = totals[np.concatenate([[0], ends + 1])]
    best = int(np.argmax(reached))
    return 100 * float(reached[best]) / len(scores), float(thresholds[best])


def _summary(answered: Answered) -> dict[str, float]:
    found = _means("", answered)
    for name, of in (("has_answer_", answered.has_answer), ("no_answer_", ~answered.has_answer)):
        if of.any():
            found |= _means(name, answered, of)
    return found


def _means(name: str, answered: Answered, of: np.ndarray | slice = slice(None)) -> dict[str, float]:
    exact, f1 = answered.exact[of], answered.f1[of]
    return {
        f"{name}exact": 100 * float(exact.mean()),
        f"{name}f1": 100 * float(f1.mean()),
        f"{name}total": len(exact),
    }
