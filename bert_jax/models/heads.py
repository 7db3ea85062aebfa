"""Heads: from hidden states to what an objective scores."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from bert_jax.models.config import EncoderConfig
from bert_jax.models.feedforward import ACTIVATIONS
from bert_jax.models.initializers import normal, zeros
from bert_jax.models.norms import LayerNorm
from bert_jax.models.sharding import RULES


class MaskedTokenHead(nnx.Module):
    """norm(activation(W·h + b)), then the word embedding as the output matrix (tied) and a bias.

    The transform is BERT's released code's; tying is Press and Wolf 2017.
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        D, E = config.hidden_size, config.embedding_width
        self.kernel = normal(config, rngs, "kernel_de", (D, E))
        self.bias = zeros("vector_d", (E,))
        self.norm = LayerNorm(E, config.layer_norm_epsilon)
        self.vocab_bias = zeros("vocab_bias_v", (config.padded_vocab_size,))
        self.activation = ACTIVATIONS[config.activation]
        self.vocab_size = config.vocab_size

    def __call__(
        self,
        hidden: Float[Array, "B S D"],
        positions: Int[Array, "B K"],
        word_embedding: Float[Array, "V E"],
    ) -> Float[Array, "B K V"]:
        """Logits, float32, at K positions a row: the head never runs on the others, which is
        85% of its cost saved. The ids that only pad the vocabulary get −inf."""
        x = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        x = self.activation(x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype))
        x = self.norm(x)
        logits = jnp.einsum(
            "bke,ve->bkv", x, word_embedding.astype(x.dtype),
            preferred_element_type=jnp.float32, out_sharding=RULES.logits_bkv,
        )  # fmt: skip
        real = jnp.arange(logits.shape[-1]) < self.vocab_size
        return jnp.where(real, logits + self.vocab_bias[...], -jnp.inf)


class PairHead(nnx.Module):
    """Two logits from the pooled first token, float32: does B follow A (Devlin et al. 2018, 3.1,
    Task #2), or are they in order (Lan et al. 2020, 3.1)?"""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.kernel = normal(config, rngs, "kernel_de", (config.hidden_size, 2))
        self.bias = zeros("vector_d", (2,))

    def __call__(self, pooled: Float[Array, "B D"]) -> Float[Array, "B 2"]:
        return pooled.astype(jnp.float32) @ self.kernel[...] + self.bias[...]


class TokenHead(nnx.Module):
    """One logit a token, float32: wᵀ·activation(W·h + b) + c (Clark et al. 2020, 2, D(x, t); the
    hidden layer is the released code's)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        D = config.hidden_size
        self.kernel = normal(config, rngs, "kernel_de", (D, D))
        self.bias = zeros("vector_d", (D,))
        self.out_kernel = normal(config, rngs, "kernel_de", (D, 1))
        self.out_bias = zeros("vector_d", (1,))
        self.activation = ACTIVATIONS[config.activation]

    def __call__(self, hidden: Float[Array, "B S D"]) -> Float[Array, "B S"]:
        kernel, bias = self.kernel[...].astype(hidden.dtype), self.bias[...].astype(hidden.dtype)
        x = self.activation(hidden @ kernel + bias).astype(jnp.float32)
        return (x @ self.out_kernel[...] + self.out_bias[...])[..., 0]


class LabelHead(nnx.Module):
    """A logit a label, float32: W·h + b, of the pooled first token or of every token (Devlin et al.
    2018, 3.2 and figure 4)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.kernel = normal(config, rngs, "kernel_de", (config.hidden_size, config.num_labels))
        self.bias = zeros("vector_d", (config.num_labels,))

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows C"]:
        return x.astype(jnp.float32) @ self.kernel[...] + self.bias[...]


# By what they score; a model that was pretrained has some of these, a fine-tuned one has one.
HEADS: dict[str, Callable[[EncoderConfig, nnx.Rngs], nnx.Module]] = {
    "mlm": MaskedTokenHead,
    "nsp": PairHead,
    "sop": PairHead,
    "rtd": TokenHead,
    "classify": LabelHead,
    "tag": LabelHead,
    "answer": LabelHead,
    "choose": LabelHead,
}
