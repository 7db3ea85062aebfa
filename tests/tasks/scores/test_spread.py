"""Intervals and spreads: those of scipy, and of known distributions."""

import numpy as np
import pytest
from scipy import stats

from bert_jax.errors import UserError
from bert_jax.tasks.scores import classes, spread


@pytest.mark.parametrize("size", [2, 9, 60])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_is_scipys_of_the_same_draws(size, level):
    values = np.random.default_rng(size).normal(size=(2, size))

    def slope(rows):
        return classes.pearson(*values[:, rows])

    found = spread.bootstrap(slope, size, seed=5, resamples=300, level=level)
    wanted = stats.bootstrap(
        values, lambda a, b: classes.pearson(a, b), paired=True, vectorized=False,
        n_resamples=300, confidence_level=level, method="percentile",
        rng=np.random.Generator(np.random.PCG64(5)),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx(tuple(wanted), rel=1e-12)
    assert found.low < found.high and found.score == slope(np.arange(size))


def test_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(300):
        values = random.random(100) < 0.3
        found = spread.bootstrap(lambda rows, v=values: v[rows].mean(), 100, seed, 200, level=0.8)
        inside += found.low <= 0.3 <= found.high
    # 80%, and what the binomial lets 300 of them differ; it is a little too narrow.
    assert 0.72 < inside / 300 < 0.87


def test_interval_is_the_seeds():
    values = np.random.default_rng(1).random(50)

    def mean(rows):
        return values[rows].mean()

    first = spread.bootstrap(mean, 50, seed=3)
    np.random.default_rng().random()
    assert spread.bootstrap(mean, 50, seed=3) == first
    assert spread.bootstrap(mean, 50, seed=4) != first
    # A thousand resamples come near the normal interval of a mean.
    width = 2 * 1.96 * values.std() / np.sqrt(50)
    assert first.high - first.low == pytest.approx(width, rel=0.1)


def test_interval_of_one_example_is_its_score():
    assert spread.bootstrap(lambda rows: len(rows) + 0.5, 1, 0) == spread.Interval(1.5, 1.5, 1.5)


def test_every_example_is_drawn():
    seen: set[int] = set()

    def note(rows):
        assert len(rows) == 7
        seen.update(rows.tolist())
        return 0.0

    spread.bootstrap(note, 7, seed=0, resamples=30)
    assert seen == set(range(7))


def test_spread_of_seeds():
    found = spread.over_seeds([0.9, 0.5, 0.88, 0.92])
    assert (found.median, found.lowest, found.highest, found.runs) == (0.89, 0.5, 0.92, 4)
    assert found.deviation == pytest.approx(stats.tstd([0.9, 0.5, 0.88, 0.92]))
    assert spread.over_seeds([0.7]) == spread.Spread(0.7, 0.7, 0.7, None, 1)


def test_what_has_no_spread():
    with pytest.raises(UserError, match="no examples"):
        spread.bootstrap(lambda rows: 0.0, 0, 0)
    with pytest.raises(UserError, match="no runs"):
        spread.over_seeds([])
    for level, resamples in [(0.0, 10), (1.0, 10), (95.0, 10), (0.95, 0)]:
        with pytest.raises(ValueError, match="must be in"):
            spread.bootstrap(lambda rows: 0.0, 3, 0, resamples, level)
