"""Scores of one label an example: a class, or a number.

Classes are numbered from 0. No examples at all, and a label that is no class, are a UserError;
arrays of different lengths a ValueError.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from bert_jax.errors import UserError

_SUM_OFF = 0.01  # what a softmax in bfloat16 may be off from 1


class Scores(NamedTuple):
    """How well one class, or one type of entity, is found. Fractions; support is a count of what
    is right."""

    precision: float
    recall: float
    f1: float
    support: int


def from_counts(hits: int, predicted: int, gold: int) -> Scores:
    """Of `predicted` ones `hits` are right, of `gold` ones in all. F1 is the harmonic mean of
    precision and recall (van Rijsbergen 1979). Each is 0 where it divides by 0."""
    return Scores(
        hits / predicted if predicted else 0.0,
        hits / gold if gold else 0.0,
        2 * hits / (predicted + gold) if predicted + gold else 0.0,
        gold,
    )


def accuracy(labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"]) -> float:
    """The share of examples whose class is predicted."""
    _check_classes(labels, predictions)
    return float(np.mean(labels == predictions))


def confusion_matrix(
    labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"], classes: int
) -> Int[np.ndarray, "C C"]:
    """How many examples of class (row) were predicted as class (column). An absent class has a
    row, or a column, of zeros. Raises UserError for a class that is not below `classes`."""
    _check_classes(labels, predictions)
    if (largest := int(max(labels.max(), predictions.max()))) >= classes:
        raise UserError(
            f"class {largest} in a task of {classes} (0 to {classes - 1}): give the task as many "
            f"classes as its labels have"
        )
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: Int[np.ndarray, "C C"]) -> list[Scores]:
    """Of each class, from a confusion matrix. A class that is never predicted has precision 0, one
    that never occurs recall 0, and in both cases F1 is 0."""
    return [
        from_counts(int(hits), int(predicted), int(gold))
        for hits, predicted, gold in zip(
            matrix.diagonal(), matrix.sum(0), matrix.sum(1), strict=True
        )
    ]


def f1(labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"], positive: int = 1) -> float:
    """F1 of one class. 0 where it neither occurs nor is predicted."""
    _check_classes(labels, predictions)
    right, found = labels == positive, predictions == positive
    return from_counts(int(np.sum(right & found)), int(found.sum()), int(right.sum())).f1


def macro_f1(
    labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"], classes: int | None = None
) -> float:
    """The mean over classes of their F1, each class weighing the same; not the F1 of the mean
    precision and recall, which others call by this name (Opitz and Burst 2019, arXiv:1911.03347).

    Over the classes that occur or are predicted; with `classes` over all of them, an absent one
    counting 0.
    """
    _check_classes(labels, predictions)
    if classes is None:
        labels, predictions, classes = _renumbered(labels, predictions)
    matrix = confusion_matrix(labels, predictions, classes)
    return float(np.mean([scores.f1 for scores in per_class(matrix)]))


def matthews(labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"]) -> float:
    """The correlation of labels and predictions (Matthews 1975), for any number of classes R_K
    (Gorodkin 2004), in [-1, 1]. 0 where either is the same class throughout, so for one example."""
    _check_classes(labels, predictions)
    matrix = confusion_matrix(*_renumbered(labels, predictions))
    # Whole numbers of any size: the product of the two variances grows as B to the fourth.
    predicted, gold = matrix.sum(0).tolist(), matrix.sum(1).tolist()
    examples, hits = sum(gold), int(matrix.trace())
    together = hits * examples - sum(p * g for p, g in zip(predicted, gold, strict=True))
    variances = [examples**2 - sum(count**2 for count in counts) for counts in (predicted, gold)]
    return together / math.sqrt(variances[0] * variances[1]) if all(variances) else 0.0


def pearson(labels: Num[np.ndarray, "B"], predictions: Num[np.ndarray, "B"]) -> float:
    """The linear correlation, in [-1, 1]. 0 where either is the same number throughout, so for one
    example. Raises UserError for a number that is not finite."""
    _check_numbers(labels, predictions)
    return _correlation(labels.astype(np.float64), predictions.astype(np.float64))


def spearman(labels: Num[np.ndarray, "B"], predictions: Num[np.ndarray, "B"]) -> float:
    """The linear correlation of the ranks (Spearman 1904); equal numbers share the mean of the
    ranks that they take up. 0 and UserError as in `pearson`."""
    _check_numbers(labels, predictions)
    return _correlation(_ranks(labels), _ranks(predictions))


def softmax(logits: Float[np.ndarray, "*rows C"]) -> Float[np.ndarray, "*rows C"]:
    """The probabilities of the classes, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Reliability:
    """Examples in bins of equal width of the confidence, bin m of M being (m/M, (m+1)/M], the first
    with 0. Means of a bin without examples are 0."""

    counts: Int[np.ndarray, "M"]
    confidence: Float[np.ndarray, "M"]  # mean over the bin
    accuracy: Float[np.ndarray, "M"]

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1]: the mean over examples of how far accuracy
        and confidence of their bin are apart (Naeini et al. 2015; Guo et al. 2017,
        arXiv:1706.04599, equation 3)."""
        apart = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.counts * apart) / np.sum(self.counts))


def reliability(
    labels: Int[np.ndarray, "B"], probabilities: Float[np.ndarray, "B C"], bins: int = 15
) -> Reliability:
    """How often the most probable class is right, against its probability, the confidence. Of
    classes equally probable the first counts as predicted. 15 bins are those of Guo et al. 2017.

    Raises UserError for rows that are no probabilities, as logits are not.
    """
    values = probabilities.astype(np.float64)
    # Written so that NaN is refused too.
    if not (np.all(values >= 0) and np.all(np.abs(values.sum(1) - 1) <= _SUM_OFF)):
        raise UserError(
            "probabilities: a row is negative or does not sum to 1; calibration needs the softmax "
            "of finite logits"
        )
    right = labels == values.argmax(1)
    _check_classes(labels, values.argmax(1))
    confidence = np.minimum(values.max(1), 1)
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    counts = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, of, minlength=bins) for of in (confidence, right)]
    means = [sum_ / np.maximum(counts, 1) for sum_ in sums]
    return Reliability(counts, *means)


def _ranks(values: Num[np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """From 1; of equal values the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(a: Float[np.ndarray, "B"], b: Float[np.ndarray, "B"]) -> float:
    # Asked of the values: the mean of equal numbers may be rounded, and what is left is noise.
    if np.all(a == a[0]) or np.all(b == b[0]):
        return 0.0
    a, b = ((x - x.mean()) / np.abs(x - x.mean()).max() for x in (a, b))  # squares stay in range
    cosine = np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b))
    return float(np.clip(cosine, -1, 1))


def _renumbered(
    labels: Int[np.ndarray, "B"], predictions: Int[np.ndarray, "B"]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Both in the numbers 0, 1, ... of the classes that there are, and how many those are."""
    classes = np.union1d(labels, predictions)
    return np.searchsorted(classes, labels), np.searchsorted(classes, predictions), len(classes)


def _check_classes(labels: np.ndarray, predictions: np.ndarray) -> None:
    _check_lengths(labels, predictions)
    if (least := int(min(labels.min(), predictions.min()))) < 0:
        raise UserError(
            f"label {least} is no class: a split whose labels are kept back, as GLUE's test sets "
            f"are, cannot be scored; name the validation split"
        )


def _check_numbers(labels: np.ndarray, predictions: np.ndarray) -> None:
    _check_lengths(labels, predictions)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if bad := int(np.sum(~np.isfinite(values))):
            raise UserError(
                f"{name}: {bad} of {len(values)} are not finite, and have no correlation; look "
                f"for a loss that diverged, or a label that is missing"
            )


def _check_lengths(labels: np.ndarray, predictions: np.ndarray) -> None:
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape}: both [B]")
    if not len(labels):
        raise UserError("no examples to score: name a split that has some")
