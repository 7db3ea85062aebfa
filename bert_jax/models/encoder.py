"""The encoder: embeddings, then a stack of blocks, then perhaps a pooler."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.adapters import PLAIN, AdaptConfig
from bert_jax.models.block import PostNormBlock
from bert_jax.models.config import SHARED, EncoderConfig
from bert_jax.models.dropout import fold
from bert_jax.models.embeddings import Embeddings
from bert_jax.models.feedforward import ACTIVATIONS
from bert_jax.models.initializers import normal, zeros

# What of a block is kept for the backward pass, by config.remat.
STORED = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Projection(nnx.Module):
    """W·x + b from the width of the tables to that of the hidden states (Lan et al. 2020, 3.1)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        shape = (config.embedding_width, config.hidden_size)
        self.kernel = normal(config, rngs, "kernel_de", shape)
        self.bias = zeros("vector_d", (config.hidden_size,))

    def __call__(self, x: Float[Array, "B S E"]) -> Float[Array, "B S D"]:
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class Pooler(nnx.Module):
    """activation(W·h₀ + b) of the first token (Devlin et al. 2018: C; the dense and its tanh are
    the code's)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.kernel = normal(config, rngs, "kernel_de", (config.hidden_size,) * 2)
        self.bias = zeros("vector_d", (config.hidden_size,))
        self.activation = ACTIVATIONS[config.pooler_activation]

    def __call__(self, hidden: Float[Array, "B S D"]) -> Float[Array, "B D"]:
        first = hidden[:, 0]
        kernel, bias = self.kernel[...].astype(first.dtype), self.bias[...].astype(first.dtype)
        return self.activation(first @ kernel + bias)


class Encoder(nnx.Module):
    """input_ids to hidden states [B, S, D]; `pooler(hidden)` to [B, D] where config.pooler.

    Parameters of `layers` have the layer as their first axis, those that all layers share have
    not. With `own_embeddings=False` it has no tables: the caller passes another encoder's.
    Updates of shared kernels are shared; bottleneck adapters are each layer's own.
    """

    def __init__(
        self, config: EncoderConfig, rngs: nnx.Rngs, own_embeddings: bool = True,
        adapt: AdaptConfig = PLAIN,
    ):  # fmt: skip
        self.embeddings = Embeddings(config, rngs) if own_embeddings else None
        self.projection = Projection(config, rngs) if config.embedding_size else None
        layer_keys = jax.random.split(rngs.params(), config.num_layers)
        self.layers = nnx.vmap(lambda key: PostNormBlock(config, nnx.Rngs(key), adapt))(layer_keys)
        self.shared = SHARED[config.share]
        if self.shared:
            common = PostNormBlock(config, nnx.Rngs(layer_keys[0]), adapt)
            for name in self.shared:
                setattr(self.layers, name, getattr(common, name))
        self.pooler = Pooler(config, rngs) if config.pooler else None
        self.num_layers = config.num_layers
        self.hidden_dropout = config.hidden_dropout  # that of a head too
        self.scan_layers = config.scan_layers
        self.stored = STORED.get(config.remat)

    def __call__(
        self,
        input_ids: Int[Array, "B S"],
        token_type_ids: Int[Array, "B S"],
        segment_ids: Int[Array, "B S"],
        dropout_keys: Key[Array, "B"] | None = None,
        embeddings: Embeddings | None = None,
        position_ids: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """`segment_ids`: which document a token is of, 0 for padding; tokens see their own
        document alone. `dropout_keys`: one a row; None for no dropout. `embeddings`: the tables
        of another encoder, for one that has none of its own. `position_ids`: those of packed
        rows, which begin anew in each document; None for 0, 1, ... in every row."""
        graphdef, parameters = nnx.split(self.layers)
        # Shared parameters are closed over, not scanned: they are stored and sent once.
        common = nnx.State({name: parameters[name] for name in self.shared})
        own = nnx.State({n: p for n, p in parameters.items() if n not in self.shared})

        def block(x, layer):
            number, layer_parameters = layer
            keys = fold(dropout_keys, number)
            return nnx.merge(graphdef, layer_parameters, common)(x, segment_ids, keys), None

        if self.stored is not None:
            # Inside scan there is nothing to merge with, so its guard would only cost.
            block = jax.checkpoint(block, prevent_cse=not self.scan_layers, policy=self.stored)

        # Layers count from 1: number 0 is the embeddings' own dropout.
        numbers = jnp.arange(1, self.num_layers + 1)
        tables = self.embeddings or embeddings
        assert tables is not None
        x = tables(input_ids, token_type_ids, fold(dropout_keys, 0), position_ids)
        if self.projection is not None:
            x = self.projection(x)
        if self.scan_layers:
            return jax.lax.scan(block, x, (numbers, own))[0]
        for index in range(self.num_layers):
            x, _ = block(x, jax.tree.map(lambda leaf: leaf[index], (numbers, own)))  # noqa: B023
        return x
