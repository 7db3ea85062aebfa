"""What is signal and what is noise: every cell against one baseline, seeds as blocks.

The model is that of a two-way layout without interaction: score of cell i at seed j = μ + cell_i +
seed_j + noise, the noise normal and of one size in all cells. A seed, which decides the first
parameters and the order of the data, is a block: what it does to all cells alike is no noise.
The noise is pooled over all cells, with (cells − 1)(seeds − 1) degrees of freedom. Differences to
the baseline are judged together (Dunnett 1955): with probability 95% none of a study's differences
that are 0 is called one. They have correlation 1/2, as all share the baseline. Whether the noise is
of one size in all cells is tested too, and beside it stand p-values that do not need it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

LEVEL = 0.95
POWER = 0.8
_SIMULATED = 4000  # studies of equal noise, to see how unequal it looks by chance


@dataclass(frozen=True)
class Row:
    """A cell: its mean with the 95% interval of its own seeds; of one that is compared, the
    difference to the baseline, the interval that holds for all together, and the p-value that is
    adjusted for there being several. `paired`: the p-value by the noise of this cell and the
    baseline alone (Student's t of their differences, adjusted by Holm 1979)."""

    mean: float
    interval: tuple[float, float] | None  # None of a single seed
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    p: float | None = None
    paired: float | None = None

    @property
    def differs(self) -> bool:
        return self.p is not None and self.p < 1 - LEVEL


@dataclass(frozen=True)
class Judged:
    """`noise`: standard deviation of a run that its cell and its seed do not explain. `detectable`:
    the smallest true difference that such a study finds in 80 of 100 cases. None of both where
    seeds or cells are too few. `spread`: the largest noise of a cell by the smallest; `unequal`:
    how often cells of one noise look as uneven. None where two cells leave nothing to compare."""

    rows: Mapping[str, Row]
    seeds: tuple[int, ...]
    noise: float | None
    degrees: int
    detectable: float | None
    spread: float | None = None
    unequal: float | None = None


def judge(scores: Mapping[str, Mapping[int, float]], baseline: str, family: int = 0) -> Judged:
    """`scores`: of each cell, by seed; the cells must have some seeds in common, and only those
    count. `family`: among how many comparisons these are, where some cells could not be compared
    (they diverged): the number of those at least."""
    names = [baseline, *(name for name in scores if name != baseline)]
    seeds = sorted(set.intersection(*(set(scores[name]) for name in names)))
    table = np.array([[scores[name][seed] for seed in seeds] for name in names])
    comparisons = max(family, len(names) - 1)
    if len(seeds) < 2 or len(names) < 2:
        rows = {baseline: alone(table[0])}
        for name, line in zip(names[1:], table[1:], strict=True):
            rows[name] = replace(alone(line), difference=float(np.mean(line - table[0])))
        return Judged(rows, tuple(seeds), None, 0, None)
    residuals, deviation, degrees = two_way(table)
    rounding = 1e-12 * float(np.max(np.abs(table)))
    noise = float(deviation) if deviation > rounding else 0.0
    error = noise * math.sqrt(2 / len(seeds))
    limit = critical(comparisons, degrees)
    paired = holm([_paired(line - table[0], rounding) for line in table[1:]], comparisons)
    rows = dict[str, Row]()
    for number, (name, line) in enumerate(zip(names, table, strict=True)):
        rows[name] = mine = alone(line)
        if name == baseline:
            continue
        found = mine.mean - float(np.mean(table[0]))
        size = abs(found) / error if error else math.inf if abs(found) > rounding else 0.0
        p = 1 - within(size, comparisons, degrees)
        bounds = (found - limit * error, found + limit * error)
        rows[name] = Row(mine.mean, mine.interval, found, bounds, p, paired[number - 1])
    effect = detectable(noise, len(seeds), comparisons, degrees)
    if not noise or len(names) < 3:  # of two cells both have the same residuals
        return Judged(rows, tuple(seeds), noise, degrees, effect)
    each = np.maximum(np.sqrt(np.sum(residuals**2, axis=-1)), rounding)
    spread = float(np.max(each) / np.min(each))
    unequal = float(np.mean(_of_equal_noise(*table.shape) >= _unevenness(each)))
    return Judged(rows, tuple(seeds), noise, degrees, effect, spread, unequal)


def holm(values: Sequence[float], comparisons: int) -> list[float]:
    """p-values of so many tests adjusted for there being several, whatever holds between them
    (Holm 1979): the smallest times their number, the next times one less, and none below the one
    before it. `comparisons`: of tests that could not be made too."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(np.argsort(values)):
        least = max(least, min(1.0, (comparisons - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def _paired(differences: np.ndarray, rounding: float) -> float:
    """Student's t test that differences [seeds] are 0 in the mean, two-sided."""
    mean = abs(float(np.mean(differences)))
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    if error <= rounding:
        return 0.0 if mean > rounding else 1.0
    return float(2 * stats.t.sf(mean / error, len(differences) - 1))


def _unevenness(deviations: Float[np.ndarray, "*studies cells"]) -> np.ndarray:
    """Of the cells' variances the logarithm of the mean over the geometric mean (Bartlett 1937)."""
    variances = deviations**2
    return np.log(variances.mean(axis=-1)) - np.log(variances).mean(axis=-1)


@cache
def _of_equal_noise(cells: int, seeds: int) -> np.ndarray:
    """The unevenness of studies whose cells all have one noise: residuals are not independent, so
    it is simulated."""
    drawn = np.random.default_rng(0).standard_normal((_SIMULATED, cells, seeds))
    return _unevenness(np.sqrt(np.sum(two_way(drawn)[0] ** 2, axis=-1)))


def two_way(
    table: Float[np.ndarray, "*studies cells seeds"],
) -> tuple[Float[np.ndarray, "*studies cells seeds"], Float[np.ndarray, "*studies"], int]:
    """Residuals, their standard deviation and its degrees of freedom, of each table."""
    cells, seeds = table.shape[-2:]
    by_cell = table.mean(axis=-1, keepdims=True)
    by_seed = table.mean(axis=-2, keepdims=True)
    residuals = table - by_cell - by_seed + table.mean(axis=(-2, -1), keepdims=True)
    degrees = (cells - 1) * (seeds - 1)
    return residuals, np.sqrt(np.sum(residuals**2, axis=(-2, -1)) / degrees), degrees


def within(size: float, comparisons: int, degrees: int) -> float:
    """P(max |T_i| ≤ size) of so many t statistics with correlation 1/2 and one estimate of the
    noise between them.

    T_i = (Z_i − Z_0) / (√2 s), so that given Z_0 and s they are independent: the integral over
    both, by Gauss and Legendre's rule.
    """
    if math.isinf(size):
        return 1.0
    points, weights = _nodes()
    z = 8.5 * points
    at_z = 8.5 * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    s, at_s = _estimates(degrees)
    reach = math.sqrt(2) * size * s[:, None]
    inside = special.ndtr(z + reach) - special.ndtr(z - reach)
    return float(np.clip(at_s @ (inside**comparisons) @ at_z, 0.0, 1.0))


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(160)


def _estimates(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of a noise of 1, and the weight of each: degrees · s² is of the chi-squared
    distribution."""
    points, weights = _nodes()
    low, high = (math.sqrt(stats.chi2.ppf(p, degrees) / degrees) for p in (1e-13, 1 - 1e-13))
    half = (high - low) / 2
    s = low + half + half * points
    return s, half * weights * 2 * degrees * s * stats.chi2.pdf(degrees * s**2, degrees)


@cache
def critical(comparisons: int, degrees: int, level: float = LEVEL) -> float:
    """The size that the largest of the |T_i| keeps below with probability `level`."""
    return float(
        optimize.brentq(lambda size: within(size, comparisons, degrees) - level, 0.1, 500.0)
    )


def power(effect: float, noise: float, seeds: int, comparisons: int, degrees: int) -> float:
    """The probability that a true difference `effect` of one cell is called one, at a noise that
    is known: what the noncentral t distribution has beyond the critical value."""
    moved = effect / (noise * math.sqrt(2 / seeds))
    return float(_power(np.array([moved]), comparisons, degrees)[0])


def _power(moved: Float[np.ndarray, "E"], comparisons: int, degrees: int) -> np.ndarray:
    """Of differences that are so many times their standard error."""
    limit = critical(comparisons, degrees)
    s, at_s = _estimates(degrees)
    beyond = special.ndtr(moved[:, None] - limit * s) + special.ndtr(-moved[:, None] - limit * s)
    return beyond @ at_s


def detectable(estimate: float, seeds: int, comparisons: int, degrees: int) -> float:
    """The smallest true difference of one cell that another study like this calls one with
    probability POWER, by a noise that is itself an estimate.

    It may be too low, and a difference by it then seldom found: so it is taken so many times that
    the probability is POWER in the mean over what a study may estimate.
    """
    return estimate * math.sqrt(2 / seeds) * _times(comparisons, degrees)


@cache
def _times(comparisons: int, degrees: int) -> float:
    """So many estimated standard errors."""
    s, at_s = _estimates(degrees)

    def missing(times: float) -> float:
        return float(at_s @ _power(times * s, comparisons, degrees)) - POWER

    most = 10 * critical(comparisons, degrees) + 100
    return float(optimize.brentq(missing, 0.0, most))


def alone(scores: Sequence[float] | np.ndarray) -> Row:
    """A cell that is compared with none: its interval is Student's, where its mean would lie with
    other seeds."""
    count, mean = len(scores), float(np.mean(scores))
    if count < 2:
        return Row(mean, None)
    error = float(np.std(scores, ddof=1)) / math.sqrt(count)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Row(mean, (mean - reach, mean + reach))
