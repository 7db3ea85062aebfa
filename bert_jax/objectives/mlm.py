"""Masked language modelling (Devlin et al. 2018, 3.1, Task #1)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import MaskedTokenHead
from bert_jax.models.sharding import RULES
from bert_jax.objectives.base import Batch, Losses

LOGITS = 1 << 30  # bytes a device


@dataclass(frozen=True)
class MaskedLanguageModel:
    """−log p(original token) at the chosen positions, each position of equal weight.

    Fields: mlm_positions, mlm_labels int [B, K], mlm_weights float [B, K] (0 for an unused
    slot), mlm_overflow int [B] (chosen tokens for which no slot was left).
    """

    name: str = "mlm"
    fields: tuple[str, ...] = ("mlm_positions", "mlm_labels", "mlm_weights", "mlm_overflow")

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module:
        return MaskedTokenHead(config, rngs)

    def scored(self, length: int, slots: int) -> tuple[int, int]:
        return slots, 0

    def loss(
        self, head: nnx.Module, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses:
        positions, table = batch["mlm_positions"], word_embedding(encoder)
        parts = _parts(positions.shape, table)
        if parts == 1:
            return self.score(head(hidden, positions, table), batch)
        # Gathered once, so that the gradient of the hidden states is not added up part by part.
        slots = jnp.take_along_axis(hidden, positions[..., None], axis=1)

        def add(sums, part):
            slots, labels, weights = part
            places = jnp.broadcast_to(jnp.arange(slots.shape[1]), slots.shape[:2])
            found = _sums(head(slots, places, table), labels, weights)
            return jax.tree.map(jnp.add, sums, found), None

        cut = [_cut(x, parts) for x in (slots, batch["mlm_labels"], batch["mlm_weights"])]
        begin = (jnp.zeros(()), jnp.zeros(()))
        add = jax.checkpoint(add, prevent_cse=False)  # a scan keeps its turns apart by itself
        return self._losses(*jax.lax.scan(add, begin, cut)[0], batch)

    def score(self, logits: Float[Array, "B K V"], batch: Batch) -> Losses:
        """The losses of logits that a head gave at mlm_positions."""
        return self._losses(*_sums(logits, batch["mlm_labels"], batch["mlm_weights"]), batch)

    def _losses(self, nats: Float[Array, ""], hits: Float[Array, ""], batch: Batch) -> Losses:
        weight = jnp.sum(batch["mlm_weights"])
        return Losses(
            terms={self.name: (nats, weight)},
            metrics={f"{self.name}_accuracy": (hits, weight)},
            counts={"mlm_overflow": jnp.sum(batch["mlm_overflow"], dtype=jnp.float32)},
        )


def _sums(
    logits: Float[Array, "B K V"], labels: Int[Array, "B K"], weights: Float[Array, "B K"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighed: nats, and how often the label has the largest logit."""
    nats = cross_entropy(logits, labels)
    # An argmax would be one more pass over V; the maximum is the cross-entropy's own.
    hits = pick(logits, labels) >= jnp.max(logits, axis=-1)
    return jnp.sum(nats * weights), jnp.sum(hits * weights)


def _parts(slots: tuple[int, ...], table: Float[Array, "V E"]) -> int:
    """In how many parts the K slots of [B, K] are scored, so that no device holds more than
    LOGITS bytes of [B, K, V] in float32 at once. In more than one, logits are computed again in
    the backward pass: a third more of the head's work, to the same loss but for rounding."""
    shape = (*slots, table.shape[0])
    mesh = jax.typeof(table).sharding.mesh
    if not mesh.empty:
        shape = jax.NamedSharding(mesh, RULES.logits_bkv).shard_shape(shape)
    return min(slots[1], -(-4 * math.prod(shape) // LOGITS))


def _cut(x: Shaped[Array, "B K *rest"], parts: int) -> Shaped[Array, "P B k *rest"]:
    """By slots; those that fill up the last part weigh nothing."""
    size = -(-x.shape[1] // parts)
    padding = [(0, 0), (0, parts * size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
    x = jnp.pad(x, padding).reshape(x.shape[0], parts, size, *x.shape[2:])
    return jnp.swapaxes(x, 0, 1)


def word_embedding(encoder: Encoder) -> Float[Array, "V E"]:
    assert encoder.embeddings is not None  # a generator without tables is never asked
    return encoder.embeddings.word[...]


def with_natural_bias(parameters: nnx.State, counts: Float[Array, "tokens"]) -> nnx.State:
    """Fresh parameters whose output bias is the log of the tokens' add-one frequencies: what the
    embeddings would else have to learn first (Meister et al. 2023). Changes them in place."""
    bias: nnx.Variable = parameters["heads"]["mlm"]["vocab_bias"]  # type: ignore[assignment]
    natural = jnp.log(counts + 1) - jnp.log(jnp.sum(counts) + counts.size)
    padded = jnp.pad(natural, (0, bias.get_value().size - counts.size))
    bias.set_value(jax.device_put(padded, bias.get_value().sharding))
    return parameters


@jax.custom_vjp
def cross_entropy(logits: Float[Array, "B K V"], labels: Int[Array, "B K"]) -> Float[Array, "B K"]:
    """log Σ exp(logits) − the label's logit, in nats.

    Its derivative is softmax(logits) − one-hot(label). Written out, it is computed once; derived
    by JAX it is computed anew for each of the two products that it feeds.
    """
    return _cross_entropy(logits, labels)[0]


def _cross_entropy(logits, labels):
    largest = jnp.max(logits, axis=-1)
    total = jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1)
    return largest + jnp.log(total) - pick(logits, labels), (logits, labels, largest, total)


def _cross_entropy_backward(saved, gradient):
    logits, labels, largest, total = saved
    softmax = jnp.exp(logits - largest[..., None]) * (gradient / total)[..., None]
    chosen = jnp.arange(logits.shape[-1]) == labels[..., None]
    return softmax - jnp.where(chosen, gradient[..., None], 0), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_backward)


def pick(logits: Float[Array, "B K V"], labels: Int[Array, "B K"]) -> Float[Array, "B K"]:
    """The label's logit, by a masked sum: where V is sharded, a gather would have to move it."""
    chosen = jnp.arange(logits.shape[-1]) == labels[..., None]
    return jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
