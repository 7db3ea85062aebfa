"""Rows of the tables: which of their tensors make up which of ours, read both ways."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bert_jax.models.config import EncoderConfig

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Row:
    """One of our parameters. In their names `{}` is the layer, which is our first axis where the
    layers do not share the parameter. Both functions are each other's inverse, bit by bit."""

    ours: str
    theirs: tuple[str, ...]
    join: Callable[[Arrays], np.ndarray]  # theirs to ours, of one layer
    part: Callable[[np.ndarray], Arrays]  # ours to theirs


def same(ours: str, theirs: str) -> Row:
    return Row(ours, (theirs,), lambda x: x[0], lambda x: [x])


def kernel(ours: str, theirs: str) -> Row:
    """torch keeps [out, in]."""
    return Row(ours, (theirs,), lambda x: x[0].T, lambda x: [x.T])


def dense(ours: str, theirs: str, prefix: str = "") -> list[Row]:
    return [
        kernel(f"{ours}.{prefix}kernel", f"{theirs}.weight"),
        same(f"{ours}.{prefix}bias", f"{theirs}.bias"),
    ]


def norm(ours: str, theirs: str) -> list[Row]:
    return [same(f"{ours}.scale", f"{theirs}.weight"), same(f"{ours}.bias", f"{theirs}.bias")]


def vocabulary(ours: str, theirs: str, config: EncoderConfig) -> Row:
    """Ours has rows of 0 up to a multiple of 128; theirs has the true size."""
    size, padding = config.vocab_size, config.padded_vocab_size - config.vocab_size

    def join(x: Arrays) -> np.ndarray:
        return np.pad(x[0], [(0, padding)] + [(0, 0)] * (x[0].ndim - 1))

    return Row(ours, (theirs,), join, lambda x: [x[:size]])


def tables(prefix: str, config: EncoderConfig) -> list[Row]:
    """Embeddings, which all families name alike."""
    ours, theirs = "encoder.embeddings", f"{prefix}.embeddings"
    return [
        vocabulary(f"{ours}.word", f"{theirs}.word_embeddings.weight", config),
        same(f"{ours}.position", f"{theirs}.position_embeddings.weight"),
        same(f"{ours}.type", f"{theirs}.token_type_embeddings.weight"),
        *norm(f"{ours}.norm", f"{theirs}.LayerNorm"),
    ]


def attention(theirs: tuple[str, str, str], out: str, config: EncoderConfig) -> list[Row]:
    """`theirs`: the query, key and value; `out` the product after them."""
    D, N, H = config.hidden_size, config.num_heads, config.head_size
    ours = "encoder.layers.attention"
    return [
        Row(
            f"{ours}.qkv_kernel", tuple(f"{name}.weight" for name in theirs),
            lambda x: np.stack([one.T.reshape(D, N, H) for one in x], axis=1),
            lambda x: [x[:, c].reshape(D, D).T for c in range(3)],
        ),
        Row(
            f"{ours}.qkv_bias", tuple(f"{name}.bias" for name in theirs),
            lambda x: np.stack([one.reshape(N, H) for one in x]),
            lambda x: [x[c].reshape(D) for c in range(3)],
        ),
        Row(
            f"{ours}.out_kernel", (f"{out}.weight",),
            lambda x: x[0].T.reshape(N, H, D), lambda x: [x.reshape(D, D).T],
        ),
        same(f"{ours}.out_bias", f"{out}.bias"),
    ]  # fmt: skip


def layers(prefix: str, config: EncoderConfig) -> list[Row]:
    """Blocks as BERT names them, and most after it."""
    layer = f"{prefix}.encoder.layer.{{}}"
    three = tuple(f"{layer}.attention.self.{one}" for one in ("query", "key", "value"))
    return [
        *attention(three, f"{layer}.attention.output.dense", config),  # type: ignore[arg-type]
        *norm("encoder.layers.attention_norm", f"{layer}.attention.output.LayerNorm"),
        *dense("encoder.layers.feedforward", f"{layer}.intermediate.dense", "up_"),
        *dense("encoder.layers.feedforward", f"{layer}.output.dense", "down_"),
        *norm("encoder.layers.feedforward_norm", f"{layer}.output.LayerNorm"),
    ]


def encoder(prefix: str, config: EncoderConfig) -> list[Row]:
    """Tables and blocks of those that changed no name of BERT's."""
    return [*tables(prefix, config), *layers(prefix, config)]


def masked_token_head(transform: str, after: str, bias: str, config: EncoderConfig) -> list[Row]:
    return [
        *dense("heads.mlm", transform),
        *norm("heads.mlm.norm", after),
        vocabulary("heads.mlm.vocab_bias", bias, config),
    ]
