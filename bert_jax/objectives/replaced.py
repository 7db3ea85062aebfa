"""What is learned from a text of which a generator replaced some tokens (Clark et al. 2020).

`rtd` is the paper's objective; the others are the ablations of its section 3.4. Each is a term:
it sees the batch with the corrupted text as `input_ids` and the true one as `original_ids`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import MaskedTokenHead, TokenHead
from bert_jax.models.initializers import normal, zeros
from bert_jax.objectives.base import Batch, Losses
from bert_jax.objectives.mlm import cross_entropy, word_embedding


@dataclass(frozen=True)
class ReplacedTokenDetection:
    """Binary cross-entropy of "this token was replaced" (Clark et al. 2020, 2, L_Disc), over all
    real tokens or, as ELECTRA 15%, over the masked ones. A sample that happens to be the original
    token counts as original."""

    name: str = "rtd"
    masked_only: bool = False
    fields: tuple[str, ...] = ()

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module:
        return TokenHead(config, rngs)

    def scored(self, length: int, slots: int) -> tuple[int, int]:
        return 0, length

    def loss(
        self, head: nnx.Module, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses:
        logits = head(hidden)
        replaced = batch["input_ids"] != batch["original_ids"]
        real = batch["segment_ids"] > 0
        weights = (batch["masked"] if self.masked_only else real).astype(jnp.float32)
        nats = jax.nn.softplus(jnp.where(replaced, -logits, logits))
        said = logits > 0
        weight, positive = jnp.sum(weights), jnp.sum(weights * replaced)
        found = jnp.sum(weights * (said & replaced))
        return Losses(
            terms={self.name: (jnp.sum(nats * weights), weight)},
            metrics={
                f"{self.name}_accuracy": (jnp.sum(weights * (said == replaced)), weight),
                f"{self.name}_replaced": (positive, weight),
                f"{self.name}_recall": (found, positive),
                f"{self.name}_precision": (found, jnp.sum(weights * said)),
            },
            # For the predictor that knows a token's frequency and nothing else.
            tallies={
                f"{self.name}_seen": _count(batch["input_ids"], weights, encoder),
                f"{self.name}_seen_replaced": _count(
                    batch["input_ids"], weights * replaced, encoder
                ),
            },
        )


class CopyingTokenHead(nnx.Module):
    """A masked-token head and the logit that the token is to be copied."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.tokens = MaskedTokenHead(config, rngs)
        self.copy_kernel = normal(config, rngs, "kernel_de", (config.hidden_size, 1))
        self.copy_bias = zeros("vector_d", (1,))


@dataclass(frozen=True)
class AllTokensMlm:
    """All-Tokens MLM: every real token is predicted, by a mixture of a copy of the input, with
    probability σ(c), and the softmax (Clark et al. 2020, 3.4)."""

    name: str = "all_tokens_mlm"
    fields: tuple[str, ...] = ()

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> CopyingTokenHead:
        return CopyingTokenHead(config, rngs)

    def scored(self, length: int, slots: int) -> tuple[int, int]:
        return length, 0

    def loss(
        self, head: Any, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses:
        labels = batch["original_ids"]
        everywhere = jnp.arange(hidden.shape[1]) + jnp.zeros_like(labels)
        logits = head.tokens(hidden, everywhere, word_embedding(encoder))
        copy = hidden.astype(jnp.float32) @ head.copy_kernel[...] + head.copy_bias[...]
        copied, written = jax.nn.log_sigmoid(copy[..., 0]), jax.nn.log_sigmoid(-copy[..., 0])
        by_softmax = written - cross_entropy(logits, labels)
        same = batch["input_ids"] == labels
        # −1e9 in place of log 0 keeps the gradient of the side not taken at 0 instead of NaN.
        nats = -jnp.logaddexp(jnp.where(same, copied, -1e9), by_softmax)
        weights = (batch["segment_ids"] > 0).astype(jnp.float32)
        return Losses(terms={self.name: (jnp.sum(nats * weights), jnp.sum(weights))})


def _count(input_ids: Array, weights: Float[Array, "B S"], encoder: Encoder) -> Float[Array, "V"]:
    """The weight of each token of the vocabulary in the batch."""
    size = word_embedding(encoder).shape[0]
    return jnp.zeros(size).at[input_ids].add(weights, out_sharding=P(None))
