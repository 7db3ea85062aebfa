"""Multi-head self-attention: project, attend, project back."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.adapters import PLAIN, AdaptConfig, update_of
from bert_jax.models.config import EncoderConfig
from bert_jax.models.initializers import normal, zeros
from bert_jax.models.kernels import KERNELS
from bert_jax.models.sharding import RULES


class Attention(nnx.Module):
    """Vaswani et al. 2017, 3.2.2. Query, key and value are one product (axis C of length 3)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig = PLAIN):
        D, N, H = config.hidden_size, config.num_heads, config.head_size
        self.qkv_kernel = normal(config, rngs, "qkv_kernel_dcnh", (D, 3, N, H))
        self.qkv_bias = zeros("qkv_bias_cnh", (3, N, H))
        self.out_kernel = normal(config, rngs, "out_kernel_nhd", (N, H, D))
        self.out_bias = zeros("vector_d", (D,))
        self.dropout_rate = config.attention_dropout
        self.attend = KERNELS[config.attention].attend
        self.query_update = update_of("query", config, rngs, adapt)
        self.key_update = update_of("key", config, rngs, adapt)
        self.value_update = update_of("value", config, rngs, adapt)
        self.out_update = update_of("out", config, rngs, adapt)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        segment_ids: Int[Array, "B S"],
        dropout_keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B S D"]:
        qkv = jnp.einsum(
            "bsd,dcnh->cbsnh", x, self.qkv_kernel[...].astype(x.dtype),
            out_sharding=RULES.qkv_cbsnh,
        )  # fmt: skip
        query, key, value = qkv + self.qkv_bias[...][:, None, None].astype(x.dtype)
        query, key = self.query_update(x, query), self.key_update(x, key)
        value = self.value_update(x, value)
        mixed = self.attend(query, key, value, segment_ids, self.dropout_rate, dropout_keys)
        out = jnp.einsum(
            "bsnh,nhd->bsd", mixed, self.out_kernel[...].astype(x.dtype),
            out_sharding=RULES.hidden_bsd,
        )  # fmt: skip
        return self.out_update(mixed, out + self.out_bias[...].astype(x.dtype))
