"""Names and shapes of transformers' BertForPreTraining to ours and back, for the comparison.

One entry a tensor: our path, their name, and the two reshapings. `{}` in a name is the layer,
which is our leading axis. Each reshaping is linear, so gradients go the same way.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from bert_jax.models.config import EncoderConfig

_LAYER = "bert.encoder.layer.{}."


def _rows(config: EncoderConfig) -> list[tuple[str, str, Any, Any]]:
    D, N, H, V = config.hidden_size, config.num_heads, config.head_size, config.vocab_size
    pad = config.padded_vocab_size - V

    def same(x):
        return x

    def transposed(x):
        return x.T

    def padded(x):
        return np.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1))

    def cut(x):
        return x[:V]

    def norm(ours: str, theirs: str) -> list:
        return [
            (f"{ours}.scale", f"{theirs}.weight", same, same),
            (f"{ours}.bias", f"{theirs}.bias", same, same),
        ]

    def dense(ours: str, theirs: str, into=transposed, back=transposed) -> list:
        kernel, bias = ours.format("kernel"), ours.format("bias")
        return [(kernel, f"{theirs}.weight", into, back), (bias, f"{theirs}.bias", same, same)]

    return [
        ("encoder.embeddings.word", "bert.embeddings.word_embeddings.weight", padded, cut),
        ("encoder.embeddings.position", "bert.embeddings.position_embeddings.weight", same, same),
        ("encoder.embeddings.type", "bert.embeddings.token_type_embeddings.weight", same, same),
        *norm("encoder.embeddings.norm", "bert.embeddings.LayerNorm"),
        *dense(
            "encoder.layers.attention.out_{}", _LAYER + "attention.output.dense",
            lambda x: x.T.reshape(N, H, D), lambda x: x.reshape(D, D).T,
        ),
        *norm("encoder.layers.attention_norm", _LAYER + "attention.output.LayerNorm"),
        *dense("encoder.layers.feedforward.up_{}", _LAYER + "intermediate.dense"),
        *dense("encoder.layers.feedforward.down_{}", _LAYER + "output.dense"),
        *norm("encoder.layers.feedforward_norm", _LAYER + "output.LayerNorm"),
        *dense("encoder.pooler.{}", "bert.pooler.dense"),
        *dense("heads.mlm.{}", "cls.predictions.transform.dense"),
        *norm("heads.mlm.norm", "cls.predictions.transform.LayerNorm"),
        ("heads.mlm.vocab_bias", "cls.predictions.bias", padded, cut),
        *dense("heads.nsp.{}", "cls.seq_relationship"),
    ]  # fmt: skip


def to_ours(theirs: Mapping[str, np.ndarray], config: EncoderConfig) -> dict[str, np.ndarray]:
    D, N, H, layers = config.hidden_size, config.num_heads, config.head_size, config.num_layers
    out = {}
    for ours, name, into, _ in _rows(config):
        if "{}" in name:
            out[ours] = np.stack([into(theirs[name.format(i)]) for i in range(layers)])
        else:
            out[ours] = into(theirs[name])
    for part, shape in (("weight", (D, N, H)), ("bias", (N, H))):
        three = [
            np.stack([theirs[f"{_LAYER.format(i)}attention.self.{one}.{part}"].T.reshape(shape)
                      for one in ("query", "key", "value")])
            for i in range(layers)
        ]  # fmt: skip
        stacked = np.stack(three)
        if part == "weight":  # L C D N H to L D C N H
            out["encoder.layers.attention.qkv_kernel"] = stacked.transpose(0, 2, 1, 3, 4)
        else:
            out["encoder.layers.attention.qkv_bias"] = stacked
    return out


def to_theirs(ours: Mapping[str, np.ndarray], config: EncoderConfig) -> dict[str, np.ndarray]:
    D = config.hidden_size
    out = {}
    for path, name, _, back in _rows(config):
        if "{}" in name:
            for i in range(config.num_layers):
                out[name.format(i)] = back(ours[path][i])
        else:
            out[name] = back(ours[path])
    for i in range(config.num_layers):
        for c, one in enumerate(("query", "key", "value")):
            prefix = f"{_LAYER.format(i)}attention.self.{one}."
            kernel = ours["encoder.layers.attention.qkv_kernel"][i][:, c]
            out[prefix + "weight"] = kernel.reshape(D, D).T
            out[prefix + "bias"] = ours["encoder.layers.attention.qkv_bias"][i][c].reshape(D)
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def flat(state: nnx.State) -> dict[str, np.ndarray]:
    return {
        ".".join(map(str, path)): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(state)
    }
