"""Scores of classes and numbers: those of scikit-learn and scipy, and worked by hand."""

import inspect
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from bert_jax.errors import UserError
from bert_jax.tasks.scores import METRICS, classes

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def cases():
    """Labels, predictions and the number of classes: random, and at the edges."""
    random = np.random.default_rng(0)
    for size, count in [(1, 2), (2, 2), (5, 3), (40, 2), (200, 3), (300, 20), (50, 7)]:
        for _ in range(8):
            labels = random.integers(0, count, size)
            guesses = random.integers(0, count, size)
            yield labels, np.where(random.random(size) < 0.6, labels, guesses), count
    same = np.array([1, 0, 1, 1, 0, 2])
    yield same, same, 3
    yield same, (same + 1) % 3, 3
    yield same, np.full(6, 1), 3  # a constant prediction
    yield np.full(6, 1), same, 3  # of one class alone
    yield np.full(6, 1), np.full(6, 1), 3
    yield np.full(6, 1), np.zeros(6, int), 3
    yield np.array([0, 2, 2, 5]), np.array([5, 2, 0, 5]), 6  # absent classes
    yield np.zeros(4, np.int32), np.zeros(4, np.int32), 2  # the positive class occurs nowhere


@pytest.mark.parametrize("labels, predictions, count", cases())
def test_equal_to_scikit_learn(labels, predictions, count):
    every = list(range(count))
    matrix = classes.confusion_matrix(labels, predictions, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        wanted = metrics.confusion_matrix(labels, predictions, labels=every)
        table = metrics.precision_recall_fscore_support(
            labels, predictions, labels=every, zero_division=0
        )
        matthews = metrics.matthews_corrcoef(labels, predictions)
        accuracy = metrics.accuracy_score(labels, predictions)
        macro = metrics.f1_score(labels, predictions, average="macro", zero_division=0)
        of_all = metrics.f1_score(
            labels, predictions, average="macro", labels=every, zero_division=0
        )
    assert matrix.tolist() == wanted.tolist()
    assert np.array(classes.per_class(matrix)).T == pytest.approx(np.array(table), **CLOSE)
    for positive in every:
        found = classes.f1(labels, predictions, positive)
        assert found == pytest.approx(table[2][positive], **CLOSE)
    assert METRICS["accuracy"](labels, predictions) == pytest.approx(accuracy, **CLOSE)
    assert METRICS["f1"](labels, predictions) == pytest.approx(table[2][1], **CLOSE)
    assert METRICS["matthews"](labels, predictions) == pytest.approx(matthews, **CLOSE)
    assert METRICS["macro_f1"](labels, predictions) == pytest.approx(macro, **CLOSE)
    assert classes.macro_f1(labels, predictions, count) == pytest.approx(of_all, **CLOSE)


def test_worked_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predictions = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    # Two hits, one miss, one false alarm, four rightly left alone.
    assert classes.accuracy(labels, predictions) == 6 / 8
    assert classes.confusion_matrix(labels, predictions, 2).tolist() == [[4, 1], [1, 2]]
    assert classes.per_class(np.array([[4, 1], [1, 2]]))[1] == (2 / 3, 2 / 3, 2 / 3, 3)
    assert classes.matthews(labels, predictions) == (2 * 4 - 1 * 1) / 15  # √(3·5·3·5)
    assert classes.macro_f1(labels, predictions) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_an_absent_class_counts_where_the_classes_are_told():
    labels, predictions = np.array([0, 0, 1]), np.array([0, 0, 1])
    assert classes.macro_f1(labels, predictions) == 1
    assert classes.macro_f1(labels, predictions, 4) == 0.5


def test_matthews_of_more_examples_than_int64_has_room_for():
    """The product of the variances is 2.6e21."""
    labels = np.tile([0, 1], 160_000)
    predictions = labels.copy()
    predictions[:80_000] = 1 - predictions[:80_000]
    assert classes.matthews(labels, predictions) == 0.5  # a quarter is wrong


def numbers():
    random = np.random.default_rng(1)
    for size in (2, 3, 10, 500):
        for _ in range(5):
            values = random.normal(size=size)
            yield values, values + random.normal(size=size)
            yield np.round(values), np.round(values + random.normal(size=size))  # ties
    yield np.arange(10), -np.arange(10)
    yield np.array([0, 0, 1, 1]), np.array([3, 1, 2, 2])
    yield np.float32([0.5, 2.25, 5, 4.75]), np.float32([1e30, -1e30, 3, 2])


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize("labels, predictions", numbers())
def test_equal_to_scipy(labels, predictions):
    wide = labels.astype(float), predictions.astype(float)
    pearson, spearman = stats.pearsonr(*wide).statistic, stats.spearmanr(*wide).statistic
    wanted = np.nan_to_num([pearson, spearman])  # of a constant, which rounding can make
    found = METRICS["pearson"](labels, predictions), METRICS["spearman"](labels, predictions)
    assert found == pytest.approx(wanted, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("score", [classes.pearson, classes.spearman])
def test_correlation_with_a_constant_is_none(score):
    tenths, some = np.full(7, 0.1), np.arange(7.0)
    assert tenths.mean() != 0.1  # what is left of it would correlate with anything
    for labels, predictions in [(tenths, some), (some, tenths), (tenths, tenths)]:
        assert score(labels, predictions) == 0
    assert score(np.array([3.0]), np.array([4.0])) == 0


def test_correlation_by_hand_and_of_large_numbers():
    labels, predictions = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    assert classes.pearson(labels, predictions) == pytest.approx(0.8)
    assert classes.pearson(labels * 1e200, predictions * 1e-200) == pytest.approx(0.8)
    assert classes.spearman(labels**5, predictions) == pytest.approx(0.8)
    assert classes.pearson(labels**5, predictions) < 0.79
    # Ranks 1.5, 1.5, 3 and 1, 2, 3: 1.5 / √(1.5 · 2).
    found = classes.spearman(np.array([5, 5, 9]), np.array([1, 2, 3]))
    assert found == pytest.approx(1.5 / np.sqrt(1.5 * 2))


def test_a_correlation_is_one_at_most():
    random = np.random.default_rng(2)
    found = [classes.pearson(x := random.normal(size=9), 3 * x + 1) for _ in range(300)]
    assert max(found) <= 1 and min(found) > 1 - 1e-12


def predicted(confidence, right):
    """Labels and probabilities of three classes with that confidence in class 1."""
    rest = (1 - confidence) / 2
    return np.where(right, 1, 2), np.stack([rest, confidence, rest], 1)


@pytest.mark.parametrize("bins", [1, 5, 10, 15])
def test_calibration_as_scikit_learn_bins_and_as_a_loop_sums(bins):
    random = np.random.default_rng(bins)
    for size in (1, 7, 400):
        confidence = random.uniform(0.34, 1, size)
        right = random.random(size) < confidence**2
        labels, probabilities = predicted(confidence, right)
        found = classes.reliability(labels, probabilities, bins)
        some = found.counts > 0
        shares, means = calibration_curve(right, confidence, n_bins=bins)
        assert found.accuracy[some] == pytest.approx(shares, **CLOSE)
        assert found.confidence[some] == pytest.approx(means, **CLOSE)
        assert not found.accuracy[~some].any() and not found.confidence[~some].any()
        apart = 0.0
        for lower in range(bins):
            members = [i for i in range(size) if lower / bins < confidence[i] <= (lower + 1) / bins]
            assert found.counts[lower] == len(members)
            apart += abs(sum(float(right[i]) - confidence[i] for i in members)) / size
        assert found.error == pytest.approx(apart, **CLOSE)


def test_calibration_by_hand():
    confidence = np.array([0.5, 0.75, 0.75, 1.0, 1.0])
    labels, probabilities = predicted(confidence, np.array([True, True, False, True, True]))
    found = classes.reliability(labels, probabilities, 4)
    assert found.counts.tolist() == [0, 1, 2, 2]  # a border is of the bin below
    assert found.accuracy.tolist() == [0, 1, 0.5, 1]
    assert found.confidence.tolist() == [0, 0.5, 0.75, 1]
    assert found.error == pytest.approx((0.5 + 2 * 0.25 + 0) / 5)


def test_calibration_of_equal_classes_and_of_half_precision():
    even = classes.reliability(np.array([0, 1]), np.full((2, 4), 0.25), 4)
    assert even.counts.tolist() == [2, 0, 0, 0] and even.accuracy[0] == 0.5
    above = np.float32([[1.004, 0.0]])
    assert classes.reliability(np.array([0]), above).confidence[-1] == 1


@pytest.mark.parametrize(
    "wrong", [[[0.5, 0.4]], [[2.0, -1.0]], [[3.1, -0.2]], [[np.nan, 0.5]], [[np.inf, 0.5]]]
)
def test_logits_are_no_probabilities(wrong):
    with pytest.raises(UserError, match="softmax"):
        classes.reliability(np.array([0]), np.array(wrong))


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_scored(name):
    score = METRICS[name]
    with pytest.raises(UserError, match="no examples"):
        score(np.array([], int), np.array([], int))
    with pytest.raises(ValueError, match=r"\(2,\) and predictions \(3,\)") as raised:
        inspect.unwrap(score)(np.array([0, 1]), np.array([0, 1, 1]))  # beartype sees it before
    assert not isinstance(raised.value, UserError)


def test_hidden_labels_unknown_classes_and_numbers_that_are_none():
    some = np.array([0, 1, 0])
    for score in (classes.accuracy, classes.f1, classes.macro_f1, classes.matthews):
        with pytest.raises(UserError, match="label -1 is no class"):
            score(np.full(3, -1), some)
    with pytest.raises(UserError, match="class 3 in a task of 3"):
        classes.confusion_matrix(some, np.array([0, 3, 0]), 3)
    for score in (classes.pearson, classes.spearman):
        with pytest.raises(UserError, match="predictions: 2 of 3 are not finite"):
            score(np.ones(3), np.array([np.nan, 1, np.inf]))
