"""Objectives about the relation between two segments."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import PairHead
from bert_jax.objectives.base import Batch, Losses


@dataclass(frozen=True)
class SegmentRelation:
    """Two classes of segment pairs, told from the pooled first token.

    nsp: does B follow A (Devlin et al. 2018, 3.1, Task #2)? sop: are they in order (Lan et al.
    2020, 3.1)? Fields: NAME_labels int [B], 0 for yes as in the released codes; NAME_weights
    float [B], 0 for a row that is no pair or only fills the batch.
    """

    name: str

    @property
    def fields(self) -> tuple[str, ...]:
        return f"{self.name}_labels", f"{self.name}_weights"

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module:
        return PairHead(config, rngs)

    def scored(self, length: int, slots: int) -> tuple[int, int]:
        return 0, 0  # one product a row is not worth counting

    def loss(
        self, head: nnx.Module, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses:
        assert encoder.pooler is not None  # build_objective refuses the term without it
        logits = head(encoder.pooler(hidden))
        labels, weights = batch[f"{self.name}_labels"], batch[f"{self.name}_weights"]
        log_p = jax.nn.log_softmax(logits, axis=-1)
        nats = -jnp.where(labels == 1, log_p[:, 1], log_p[:, 0])
        hits = jnp.argmax(logits, axis=-1) == labels
        weight = jnp.sum(weights)
        return Losses(
            terms={self.name: (jnp.sum(nats * weights), weight)},
            metrics={f"{self.name}_accuracy": (jnp.sum(hits * weights), weight)},
        )
