"""Predictors that know how frequent a token is and nothing else: the lines to get below."""

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class MaskedBatches(Protocol):
    """EvaluationBatches, whose module brings grain along."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int, /) -> dict[str, np.ndarray]: ...


def unigram_loss(batches: MaskedBatches, counts: np.ndarray) -> float:
    """Mean −log p in nats of the masked targets under p(t) = (count(t) + 1) / (total + V)
    (add-one, Laplace). `counts`: of the training split, int64 [V]."""
    nats = np.log(counts.sum() + len(counts)) - np.log(counts + 1)
    amount, weight = 0.0, 0.0
    for step in range(len(batches)):
        batch = batches[step]
        amount += float(np.sum(nats[batch["mlm_labels"]] * batch["mlm_weights"]))
        weight += float(np.sum(batch["mlm_weights"]))
    return amount / weight


def detector_losses(
    seen: np.ndarray, replaced: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """Mean nats of two predictors of "this token was replaced" that do not read the text: one
    that always gives the share of replaced tokens, and one that gives the share among tokens
    about as frequent (within a factor of two in `counts`, the training split's).

    Both shares are taken from the very tokens that are scored, which favours the predictors.
    seen, replaced: how often each token was scored, and replaced, float [V].
    """
    size = len(counts)
    seen, replaced = seen[:size].astype(np.float64), replaced[:size].astype(np.float64)
    kinds = np.frexp(counts + 1.0)[1]
    total = seen.sum()

    def nats(kinds: np.ndarray) -> float:
        amount = 0.0
        for kind in np.unique(kinds):
            n, k = seen[kinds == kind].sum(), replaced[kinds == kind].sum()
            for count in (k, n - k):
                amount -= count * np.log(count / n) if count else 0.0
        return float(amount / total)

    return nats(np.zeros_like(kinds)), nats(kinds)
