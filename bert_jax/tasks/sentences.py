"""Labels of a text or a pair of texts: a class, which of several is right, or a number."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.objectives.base import Batch, Losses
from bert_jax.tasks.base import negative_log_likelihood


@dataclass(frozen=True)
class Classification:
    """−log p(class), or, of a choice, −log p(the right one) (Devlin et al. 2018, 4.1 and 4.4).
    Fields: labels int [B], weights float [B].

    `class_weights`: one a class, with which its rows count; () for all alike.
    """

    class_weights: tuple[float, ...] = ()
    name: str = "classify"  # or choose
    pooled: bool = True
    dropped: bool = True

    def score(self, logits: Float[Array, "B C"], batch: Batch) -> Losses:
        labels, weights = batch["labels"], batch["weights"]
        hits = jnp.argmax(logits, axis=-1) == labels
        counted = weights
        if self.class_weights:
            chosen = jnp.arange(logits.shape[-1]) == labels[:, None]
            counted = weights * jnp.sum(chosen * jnp.asarray(self.class_weights), axis=-1)
        nats = negative_log_likelihood(logits, labels)
        return Losses(
            terms={self.name: (jnp.sum(nats * counted), jnp.sum(counted))},
            metrics={f"{self.name}_accuracy": (jnp.sum(hits * weights), jnp.sum(weights))},
        )


@dataclass(frozen=True)
class Regression:
    """(score − number)² (Devlin et al. 2018's code has it for STS-B). Fields: labels float [B],
    weights float [B]."""

    name: str = "classify"  # its head is that of one class
    pooled: bool = True
    dropped: bool = True

    def score(self, logits: Float[Array, "B C"], batch: Batch) -> Losses:
        errors = jnp.square(logits[:, 0] - batch["labels"])
        weights = batch["weights"]
        return Losses(terms={self.name: (jnp.sum(errors * weights), jnp.sum(weights))})
