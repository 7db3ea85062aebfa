"""Labels of tokens: a tag for each word, or where an answer begins and ends."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.objectives.base import Batch, Losses
from bert_jax.tasks.base import negative_log_likelihood


@dataclass(frozen=True)
class Tagging:
    """−log p(tag) of each word, told from its first piece (Devlin et al. 2018, 5.3). Fields: labels
    int [B, S], weights float [B, S], 0 where no word begins."""

    name: str = "tag"
    pooled: bool = False
    dropped: bool = True

    def score(self, logits: Float[Array, "B S C"], batch: Batch) -> Losses:
        labels, weights = batch["labels"], batch["weights"]
        hits = jnp.argmax(logits, axis=-1) == labels
        nats, weight = negative_log_likelihood(logits, labels), jnp.sum(weights)
        return Losses(
            terms={self.name: (jnp.sum(nats * weights), weight)},
            metrics={f"{self.name}_accuracy": (jnp.sum(hits * weights), weight)},
        )


@dataclass(frozen=True)
class Answer:
    """The mean of −log p(first token) and −log p(last token) of the answer; [CLS] is both where
    there is none (Devlin et al. 2018, 4.2 and 4.3). Fields: labels int [B, 2], weights float [B].
    """

    name: str = "answer"
    pooled: bool = False
    dropped: bool = False

    def score(self, logits: Float[Array, "B S C"], batch: Batch) -> Losses:
        labels, weights = batch["labels"], batch["weights"]
        # Padding is no answer. (A row that only fills the batch is padding alone: it has to stay
        # finite, as its weight of 0 would not take a NaN away.)
        real = (batch["segment_ids"] > 0) | (weights == 0)[:, None]
        real = real[:, None, :]
        by_border = jnp.where(real, jnp.swapaxes(logits, 1, 2), -jnp.inf)
        hits = jnp.all(jnp.argmax(by_border, axis=-1) == labels, axis=-1)
        nats = jnp.mean(negative_log_likelihood(by_border, labels), axis=-1)
        weight = jnp.sum(weights)
        return Losses(
            terms={self.name: (jnp.sum(nats * weights), weight)},
            metrics={f"{self.name}_accuracy": (jnp.sum(hits * weights), weight)},
        )
