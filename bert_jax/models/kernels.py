"""Attention itself: softmax(QKᵀ/√H)V between the tokens of one document."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.dropout import dropout


def einsum_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    segment_ids: Int[Array, "B S"],
    dropout_rate: float,
    dropout_keys: Key[Array, "B"] | None,
) -> Float[Array, "B S N H"]:
    """The reference (Vaswani et al. 2017, 3.2.1). A token attends to those of equal segment id.

    Padding (segment 0) attends to padding: what it gives is never read, and no row of the
    softmax is empty. Scores and softmax are float32.
    """
    scores = jnp.einsum("bqnh,bknh->bnqk", query, key, preferred_element_type=jnp.float32)
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    scores = jnp.where(same, scores / math.sqrt(query.shape[-1]), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    weights = dropout(weights, dropout_rate, dropout_keys)
    return jnp.einsum("bnqk,bknh->bqnh", weights, value)
