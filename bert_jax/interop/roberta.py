"""RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020), which differ in the vocabulary alone.

Their code numbers positions from the padding's id + 1, so the padding's id is part of the
architecture.
"""

from bert_jax.interop.family import Family, because
from bert_jax.interop.labels import classes, label_heads
from bert_jax.interop.rows import encoder, masked_token_head

ROBERTA = Family(
    model_types=("roberta", "xlm-roberta", "camembert"),
    prefix="roberta",
    body=lambda config: encoder("roberta", config),
    heads={
        "mlm": lambda config: masked_token_head(
            "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", config
        ),
        **label_heads("classifier.out_proj"),
    },
    architectures={(): "RobertaModel", ("mlm",): "RobertaForMaskedLM", **classes("Roberta")},
    aliases={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    fits=lambda config, heads: because(
        (config.share != "none", f"its layers share nothing, these share={config.share}"),
        (config.embedding_size > 0, "its tables are as wide as the hidden states"),
        (config.position_offset == 0, "its positions begin after the padding's row"),
        ("mlm" in heads and config.activation != "gelu", "its head has the erf GELU"),
    ),
    more_ours=lambda values: {
        "position_offset": values["pad_token_id"] + 1,
        "max_positions": values.get("max_position_embeddings", 512) - values["pad_token_id"] - 1,
    },
    more_theirs=lambda config: {
        "max_position_embeddings": config.max_positions + config.position_offset,
    },
    defaults={"pad_token_id": 1},
    pooler="roberta.pooler.dense",
    poolers={"classify": "classifier.dense"},
)
