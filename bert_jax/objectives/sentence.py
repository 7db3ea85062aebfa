"""Objectives about the relation between two segments."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import PairHead
from bert_jax.objectives.base import Batch, Losses


@dataclass(frozen=True)
class NextSentence:
    """Does B follow A? (Devlin et al. 2018, 3.1, Task #2.)

    Fields: nsp_labels int [B], 0 for the true continuation and 1 for a random one, as in the
    released code; nsp_weights float [B], 0 for a row that only fills the batch.
    """

    name: ClassVar[str] = "nsp"
    fields: ClassVar[tuple[str, ...]] = ("nsp_labels", "nsp_weights")

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module:
        return PairHead(config, rngs)

    def loss(
        self, head: nnx.Module, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses:
        assert encoder.pooler is not None  # build_objective refuses the term without it
        logits = head(encoder.pooler(hidden))
        labels, weights = batch["nsp_labels"], batch["nsp_weights"]
        log_p = jax.nn.log_softmax(logits, axis=-1)
        nats = -jnp.where(labels == 1, log_p[:, 1], log_p[:, 0])
        hits = jnp.argmax(logits, axis=-1) == labels
        weight = jnp.sum(weights)
        return Losses(
            terms={"nsp": (jnp.sum(nats * weights), weight)},
            metrics={"nsp_accuracy": (jnp.sum(hits * weights), weight)},
        )
