"""Comparisons with a baseline, against known cases and against 2,000 simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import (
    critical,
    detectable,
    holm,
    judge,
    power,
    two_way,
    within,
)

STUDIES = 2000


def simulated(rng, cells, seeds, effect=0.0, noise=0.7):
    """Tables [STUDIES, cells, seeds]; the last cell differs from the others by `effect`. Seeds
    matter much more than noise, as they do in training."""
    blocks = 5.0 * rng.standard_normal((STUDIES, 1, seeds))
    table = 3.0 + blocks + noise * rng.standard_normal((STUDIES, cells, seeds))
    table[:, -1] += effect
    return table


def found(table):
    """Which differences to the first cell are called such [STUDIES, cells - 1]."""
    cells, seeds = table.shape[-2:]
    _, noise, degrees = two_way(table)
    means = table.mean(axis=-1)
    sizes = np.abs(means[:, 1:] - means[:, :1]) / (noise[:, None] * math.sqrt(2 / seeds))
    return sizes > critical(cells - 1, degrees)


@pytest.mark.parametrize(("cells", "seeds"), [(2, 5), (3, 5), (8, 5), (4, 3), (12, 10)])
def test_false_positives_of_a_study_are_five_in_a_hundred(cells, seeds):
    """The whole family's, inside the 99% interval of so many studies around 5%."""
    rng = np.random.default_rng(cells * 100 + seeds)
    wrong = int(found(simulated(rng, cells, seeds)).any(axis=1).sum())
    low, high = stats.binom.interval(0.99, STUDIES, 0.05)
    assert low <= wrong <= high


@pytest.mark.parametrize(("cells", "seeds"), [(2, 5), (3, 5), (4, 5), (8, 5), (8, 10)])
def test_power_is_what_a_report_claims(cells, seeds):
    """A study says which difference it finds in 80 of 100 cases; that much is planted in another
    one like it. The noise that it goes by is its own estimate."""
    rng = np.random.default_rng(cells)
    noise = two_way(simulated(rng, cells, seeds))[1]
    effects = detectable(1.0, seeds, cells - 1, (cells - 1) * (seeds - 1)) * noise
    seen = found(simulated(rng, cells, seeds, effects[:, None]))[:, -1].mean()
    assert seen == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("cells", "seeds"), [(2, 5), (4, 5), (8, 5), (8, 10)])
def test_power_at_a_known_noise(cells, seeds):
    degrees = (cells - 1) * (seeds - 1)
    for planted in (0.9, 1.8):
        claimed = power(planted, 0.7, seeds, cells - 1, degrees)
        rng = np.random.default_rng(cells)
        seen = found(simulated(rng, cells, seeds, planted))[:, -1].mean()
        assert seen == pytest.approx(claimed, abs=0.03)


def scores_of(table):
    return {str(cell): dict(enumerate(row)) for cell, row in enumerate(table)}


def test_a_report_has_what_the_simulation_has():
    table = simulated(np.random.default_rng(5), 3, 5)[0]
    judged = judge(scores_of(table), "0")
    noise = two_way(table[None])[1][0]
    assert judged.noise == pytest.approx(noise)
    assert judged.detectable == pytest.approx(detectable(1.0, 5, 2, 8) * noise)


def test_noise_that_is_not_one_is_told_and_equal_noise_seldom():
    rng = np.random.default_rng(2)
    equal = [judge(scores_of(table), "0") for table in simulated(rng, 8, 5)[:200]]
    told = sum(judged.unequal < 0.05 for judged in equal)
    low, high = stats.binom.interval(0.99, 200, 0.05)
    assert low <= told <= high
    table = simulated(rng, 8, 5, noise=0.7 * np.array([20.0] + [1.0] * 7)[:, None])[0]
    assert judge(scores_of(table), "0").unequal < 0.05


def test_pairs_by_their_own_noise_hold_where_the_noise_is_not_one():
    """A noisy baseline makes Dunnett's comparison call too much; Holm's of pairs does not."""
    noise = 0.2 * np.array([4.0, 1.0, 1.0, 1.0])[:, None]
    tables = simulated(np.random.default_rng(7), 4, 5, noise=noise)[:300]
    rows = [judge(scores_of(table), "0").rows for table in tables]
    by_one = sum(min(row.p for row in each.values() if row.p is not None) < 0.05 for each in rows)
    by_own = sum(min(row.paired for row in each.values() if row.p is not None) < 0.05
                 for each in rows)  # fmt: skip
    high = stats.binom.interval(0.99, len(tables), 0.05)[1]
    assert by_one > high >= by_own


def test_holm_is_as_he_has_it():
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01], 4) == pytest.approx([0.04])


def test_judge_calls_what_the_simulation_calls():
    """The path of a report, study by study, against the vectorised one."""
    tables = simulated(np.random.default_rng(3), 4, 5, effect=1.5)[:40]
    for table, called in zip(tables, found(tables), strict=True):
        scores = {name: dict(enumerate(row)) for name, row in zip("abcd", table, strict=True)}
        judged = judge(scores, "a")
        assert [judged.rows[name].differs for name in "bcd"] == list(called)
        for name in "bcd":
            low, high = judged.rows[name].difference_interval
            assert (low > 0 or high < 0) == judged.rows[name].differs


def test_distribution_is_that_of_scipy():
    """scipy integrates the multivariate t distribution, by sampling."""
    for comparisons, degrees, size in ((3, 12, 2.2), (7, 28, 2.7), (2, 4, 3.0)):
        correlation = 0.5 + 0.5 * np.eye(comparisons)
        theirs = stats.multivariate_t(shape=correlation, df=degrees, seed=0).cdf(
            np.full(comparisons, size), lower_limit=np.full(comparisons, -size), maxpts=200_000
        )
        assert within(size, comparisons, degrees) == pytest.approx(theirs, abs=2e-4)
    assert within(2.1, 1, 9) == pytest.approx(1 - 2 * stats.t.sf(2.1, 9), abs=1e-9)


def test_two_cells_are_the_paired_t_test():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 6))
    row = judge({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, "a").rows["b"]
    theirs = stats.ttest_rel(b, a)
    assert row.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert row.difference_interval == pytest.approx(theirs.confidence_interval(), abs=1e-6)


def test_critical_values_are_dunnetts():
    """Two-sided 5% points of Dunnett 1964, table II, by comparisons and degrees of freedom."""
    for comparisons, degrees, printed in ((1, 10, 2.23), (2, 10, 2.57), (3, 20, 2.54)):
        assert critical(comparisons, degrees) == pytest.approx(printed, abs=0.0051)


def test_only_seeds_that_all_cells_have_are_compared():
    scores = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {1: 2.5, 2: 3.6}}
    judged = judge(scores, "a")
    assert judged.seeds == (1, 2) and judged.rows["b"].difference == pytest.approx(0.55)
    assert judged.rows["a"].mean == 2.5


def test_one_seed_tells_no_noise():
    judged = judge({"a": {0: 1.0}, "b": {0: 1.5}}, "a")
    assert judged.noise is None and judged.detectable is None
    assert judged.rows["b"].difference == 0.5 and judged.rows["b"].p is None
    assert not judged.rows["b"].differs


def test_scores_without_noise():
    scores = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}, "c": {0: 2.0, 1: 3.0}}
    judged = judge(scores, "a")
    assert not judged.rows["b"].differs and judged.rows["c"].differs
    assert judged.noise == 0 and judged.detectable == 0


def test_cells_that_cannot_be_compared_count_among_the_comparisons():
    scores = {"a": {0: 1.0, 1: 2.0, 2: 3.1}, "b": {0: 1.4, 1: 2.2, 2: 3.3}}
    assert judge(scores, "a", family=6).rows["b"].p > judge(scores, "a").rows["b"].p
