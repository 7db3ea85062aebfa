"""One transformer layer."""

from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.attention import Attention
from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import dropout, fold
from bert_jax.models.feedforward import Mlp
from bert_jax.models.norms import LayerNorm


class PostNormBlock(nnx.Module):
    """x ← norm(x + attention(x)); x ← norm(x + feedforward(x)) (Vaswani et al. 2017, 3.1)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs)
        self.attention_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.feedforward = Mlp(config, rngs)
        self.feedforward_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        x: Float[Array, "B S D"],
        segment_ids: Int[Array, "B S"],
        dropout_keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B S D"]:
        mixed = self.attention(x, segment_ids, fold(dropout_keys, 0))
        x = self.attention_norm(x + dropout(mixed, self.dropout_rate, fold(dropout_keys, 1)))
        wide = self.feedforward(x)
        return self.feedforward_norm(x + dropout(wide, self.dropout_rate, fold(dropout_keys, 2)))
