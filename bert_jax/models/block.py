"""One transformer layer."""

from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.adapters import PLAIN, AdaptConfig, adapter_of
from bert_jax.models.attention import Attention
from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import dropout, fold
from bert_jax.models.feedforward import Mlp
from bert_jax.models.norms import LayerNorm


class PostNormBlock(nnx.Module):
    """x ← norm(x + attention(x)); x ← norm(x + feedforward(x)) (Vaswani et al. 2017, 3.1).

    With bottleneck adapters the output of each sublayer goes through its own before it is added."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig = PLAIN):
        self.attention = Attention(config, rngs, adapt)
        self.attention_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.feedforward = Mlp(config, rngs, adapt)
        self.feedforward_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.dropout_rate = config.hidden_dropout
        self.attention_adapter = adapter_of(config, rngs, adapt)
        self.feedforward_adapter = adapter_of(config, rngs, adapt)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        segment_ids: Int[Array, "B S"],
        dropout_keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B S D"]:
        mixed = self.attention(x, segment_ids, fold(dropout_keys, 0))
        mixed = dropout(mixed, self.dropout_rate, fold(dropout_keys, 1))
        x = self.attention_norm(x + self.attention_adapter(mixed))
        wide = dropout(self.feedforward(x), self.dropout_rate, fold(dropout_keys, 2))
        return self.feedforward_norm(x + self.feedforward_adapter(wide))
