"""How far a score can be trusted: over other examples, and over other seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from bert_jax.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A score, and where it would lie with other examples of the same kind."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Of the scores of runs that differ in their seed alone."""

    median: float
    lowest: float
    highest: float
    deviation: float | None  # of a sample, divided by runs - 1; None for one run
    runs: int


def bootstrap(
    score: Callable[[Int[np.ndarray, "B"]], float],
    examples: int,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The percentile interval (Efron 1979; Efron and Tibshirani 1993, chapter 13): the middle
    `level` of the scores of `resamples` samples, each of as many examples, drawn with replacement.

    `score` takes the numbers of examples, in [0, examples), some of them several times:
    `bootstrap(lambda rows: f1(labels[rows], predictions[rows]), len(labels), seed=0)`. It knows
    nothing of what differs between runs, and with few examples it is too narrow; of one example
    low and high are the score.

    The same seed gives the same interval. The draws are a generator's of this call alone, not the
    keyed ones of `data`: tasks know nothing of data, and nothing is resumed here.

    Raises UserError where there is no example, ValueError for a level that is not in (0, 1) and
    for no resamples.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must be in (0, 1), and resamples {resamples} 1 or more")
    if examples < 1:
        raise UserError("no examples to score: name a split that has some")
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [score(generator.integers(0, examples, examples)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(score(np.arange(examples))), float(low), float(high))


def over_seeds(scores: Sequence[float]) -> Spread:
    """Of one score a run. The median, as in RoBERTa's tables (Liu et al. 2019, arXiv:1907.11692):
    on small tasks fine-tuning fails for some seeds (Devlin et al. 2018, section 4.1), and a mean
    would tell of how many. Raises UserError where there is no run."""
    if not len(scores):
        raise UserError("no runs to compare: give the scores of one at least")
    return Spread(
        float(np.median(scores)),
        float(np.min(scores)),
        float(np.max(scores)),
        float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        len(scores),
    )
