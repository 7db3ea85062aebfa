"""Token, position and segment embeddings."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import dropout
from bert_jax.models.initializers import normal
from bert_jax.models.norms import LayerNorm
from bert_jax.models.sharding import RULES


class Embeddings(nnx.Module):
    """norm(word + position + type), then dropout (Devlin et al. 2018, figure 2). [B, S, E]."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        E = config.embedding_width
        positions = config.position_offset + config.max_positions
        self.word = normal(config, rngs, "embedding_vd", (config.padded_vocab_size, E))
        self.position = normal(config, rngs, "table_pd", (positions, E))
        self.type = normal(config, rngs, "table_pd", (config.type_vocab_size, E))
        self.norm = LayerNorm(E, config.layer_norm_epsilon)
        self.first_position = config.position_offset
        self.dropout_rate = config.hidden_dropout
        self.dtype = jnp.dtype(config.dtype)

    def __call__(
        self,
        input_ids: Int[Array, "B S"],
        token_type_ids: Int[Array, "B S"],
        dropout_keys: Key[Array, "B"] | None,
        position_ids: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S E"]:
        """`position_ids`: None for 0, 1, ... in every row."""
        x = self.word[...].at[input_ids].get(out_sharding=RULES.hidden_bsd)
        if position_ids is None:
            end = self.first_position + input_ids.shape[1]
            x += self.position[...][self.first_position : end]
        else:
            places = self.first_position + position_ids
            x += self.position[...].at[places].get(out_sharding=RULES.hidden_bsd)
        x += self.type[...].at[token_type_ids].get(out_sharding=RULES.hidden_bsd)
        x = self.norm(x).astype(self.dtype)
        return dropout(x, self.dropout_rate, dropout_keys)
