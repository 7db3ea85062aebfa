"""The predictor that knows how frequent a token is and nothing else: the line to get below."""

import numpy as np

from bert_jax.data.loader import EvaluationBatches


def unigram_loss(batches: EvaluationBatches, counts: np.ndarray) -> float:
    """Mean −log p in nats of the masked targets under p(t) = (count(t) + 1) / (total + V)
    (add-one, Laplace). `counts`: of the training split, int64 [V]."""
    nats = np.log(counts.sum() + len(counts)) - np.log(counts + 1)
    amount, weight = 0.0, 0.0
    for step in range(len(batches)):
        batch = batches[step]
        amount += float(np.sum(nats[batch["mlm_labels"]] * batch["mlm_weights"]))
        weight += float(np.sum(batch["mlm_weights"]))
    return amount / weight
