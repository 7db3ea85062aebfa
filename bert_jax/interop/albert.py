"""ALBERT (Lan et al. 2020). Theirs shares whole layers or none: what shares a part of them is
written as layers of their own, with equal numbers."""

from collections.abc import Mapping
from typing import Any

from bert_jax.errors import UserError
from bert_jax.interop.family import Family, because
from bert_jax.interop.labels import classes, label_heads
from bert_jax.interop.rows import Row, attention, dense, masked_token_head, norm, tables
from bert_jax.models.config import EncoderConfig


def _body(config: EncoderConfig) -> list[Row]:
    layer = "albert.encoder.albert_layer_groups.{}.albert_layers.0"
    three = (f"{layer}.attention.query", f"{layer}.attention.key", f"{layer}.attention.value")
    return [
        *tables("albert", config),
        *dense("encoder.projection", "albert.encoder.embedding_hidden_mapping_in"),
        *attention(three, f"{layer}.attention.dense", config),
        *norm("encoder.layers.attention_norm", f"{layer}.attention.LayerNorm"),
        *dense("encoder.layers.feedforward", f"{layer}.ffn", "up_"),
        *dense("encoder.layers.feedforward", f"{layer}.ffn_output", "down_"),
        *norm("encoder.layers.feedforward_norm", f"{layer}.full_layer_layer_norm"),
    ]


def _ours(values: Mapping[str, Any]) -> dict[str, Any]:
    groups, count = values["num_hidden_groups"], values["num_hidden_layers"]
    if values.get("inner_group_num", 1) != 1 or groups not in (1, count):
        raise UserError(
            f"config.json: num_hidden_groups={groups} and inner_group_num="
            f"{values.get('inner_group_num', 1)}: only one group, or one a layer, is supported"
        )
    return {
        "max_positions": values.get("max_position_embeddings", 512),
        "embedding_size": values["embedding_size"],
        "share": "all" if groups == 1 else "none",
    }


ALBERT = Family(
    model_types=("albert",),
    prefix="albert",
    body=_body,
    heads={
        "mlm": lambda config: masked_token_head(
            "predictions.dense", "predictions.LayerNorm", "predictions.bias", config
        ),
        "sop": lambda config: dense("heads.sop", "sop_classifier.classifier"),
        **label_heads("classifier"),
    },
    architectures={
        (): "AlbertModel",
        ("mlm",): "AlbertForMaskedLM",
        ("mlm", "sop"): "AlbertForPreTraining",
        **classes("Albert"),
    },
    aliases={
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
    fits=lambda config, heads: because(
        (config.embedding_size == 0, "it always projects its tables"),
        (config.position_offset > 0, "its positions begin at row 0"),
    ),
    more_ours=_ours,
    more_theirs=lambda config: {
        "max_position_embeddings": config.max_positions,
        "embedding_size": config.embedding_size,
        "num_hidden_groups": 1 if config.share == "all" else config.num_layers,
        "inner_group_num": 1,
        "classifier_dropout_prob": config.hidden_dropout,
    },
    defaults={"hidden_act": "gelu_new", "num_hidden_groups": 1, "embedding_size": 128,
              "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    pooler="albert.pooler",
)  # fmt: skip
