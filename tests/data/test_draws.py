"""Random numbers: the same for ever, and random."""

import numpy as np
import pytest
from scipy import stats

from bert_jax.data import draws


def test_values_never_change():
    """Every run that was ever made depends on these. If this fails, mend the code, not the
    numbers."""
    assert draws.key(0) == 5197578548964807871
    assert draws.bits(draws.key(1, 2, 3), 4) == 17278860307113325253
    assert list(draws.permute(np.arange(8), 8, draws.key(5))) == [5, 6, 4, 0, 1, 3, 2, 7]


def test_uniform():
    values = draws.uniform(draws.key(0, np.arange(300))[:, None], np.arange(300))
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.02


def test_integers_reach_both_ends():
    values = draws.integers(draws.key(0), 7, np.arange(7000))
    assert stats.chisquare(np.bincount(values, minlength=7)).pvalue > 1e-3


@pytest.mark.parametrize("limit", [2**32, 2**32 + 1, 7_800_000_000, 2**62 + 12345, 2**63])
def test_integers_above_four_billion(limit):
    """To the bit what whole numbers without a limit of size give, and uniform to the end."""
    keys = draws.key(0, np.arange(2000))
    values = draws.integers(keys, limit)
    bits = [int(b) for b in draws.bits(keys)]
    exact = [(b >> 32) * limit >> 32 if limit <= 2**32 else b * limit >> 64 for b in bits]
    assert values.tolist() == exact
    assert values.max() > 0.99 * limit and stats.kstest(values / limit, "uniform").pvalue > 1e-3


def test_integers_of_small_and_large_limits_together():
    limits = np.array([7, 2**40])
    found = draws.integers(draws.key(3), limits)
    assert found.tolist() == [int(draws.integers(draws.key(3), int(limit))) for limit in limits]
    for wrong in (2**63 + 1, -1):
        with pytest.raises(ValueError, match="limit"):
            draws.integers(draws.key(0), wrong)


def test_parts_of_a_key_do_not_commute():
    assert draws.key(1, 2) != draws.key(2, 1)
    assert draws.key(1) != draws.key(1, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 1000])
def test_permute_is_a_permutation(size):
    first = draws.permute(np.arange(size), size, draws.key(0))
    assert sorted(first) == list(range(size))
    if size >= 64:
        assert not np.array_equal(first, draws.permute(np.arange(size), size, draws.key(1)))
        assert abs(stats.spearmanr(np.arange(size), first).statistic) < 0.3


@pytest.mark.parametrize("size", [5, 10, 100])
def test_permute_sends_an_index_to_each_place_as_often(size):
    keys = draws.key(np.arange(200 * size))[:, None]
    found = draws.permute(np.arange(size) + np.zeros_like(keys, int), size, keys)
    counts = [np.bincount(places, minlength=size) for places in found.T[:: size // 5]]
    assert all(stats.chisquare(count).pvalue > 1e-4 for count in counts)
    neighbours = found[:, 1:] - found[:, :-1] == 1  # 1/size of them
    assert abs(neighbours.mean() * size - 1) < 0.2


def test_permute_takes_a_key_for_each_index():
    """A batch that spans two epochs has two orders in it."""
    index = np.array([8, 9, 0, 1])
    keys = draws.key(np.array([0, 0, 1, 1]))
    found = draws.permute(index, 10, keys)
    assert list(found[:2]) == list(draws.permute(index[:2], 10, draws.key(0)))
    assert list(found[2:]) == list(draws.permute(index[2:], 10, draws.key(1)))


def test_permute_needs_no_memory_for_a_billion():
    found = draws.permute(np.arange(1000), 10**9, draws.key(0))
    assert len(set(found.tolist())) == 1000 and found.max() < 10**9
    largest = draws.permute(np.array([0, 2**63 - 1]), 2**63, draws.key(1))
    assert largest.min() >= 0 and largest[0] != largest[1]
