"""ELECTRA (Clark et al. 2020): a discriminator (head rtd) or a generator (head mlm). It has no
pooler; fine-tuning adds one, with the erf GELU."""

from bert_jax.interop.family import Family, because
from bert_jax.interop.labels import classes, label_heads
from bert_jax.interop.rows import dense, layers, masked_token_head, tables
from bert_jax.models.config import EncoderConfig


def _fits(config: EncoderConfig, heads: tuple[str, ...]) -> str:
    return because(
        (config.share != "none", f"its layers share nothing, these share={config.share}"),
        (config.position_offset > 0, "its positions begin at row 0"),
        (config.embedding_size == config.hidden_size, "it projects no tables of equal width"),
        ("mlm" in heads and config.activation != "gelu", "its generator's head has the erf GELU"),
    )


ELECTRA = Family(
    model_types=("electra",),
    prefix="electra",
    body=lambda config: [
        *tables("electra", config),
        *(
            dense("encoder.projection", "electra.embeddings_project")
            if config.embedding_size
            else []
        ),
        *layers("electra", config),
    ],
    heads={
        "mlm": lambda config: masked_token_head(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head.bias",
            config,
        ),
        "rtd": lambda config: [
            *dense("heads.rtd", "discriminator_predictions.dense"),
            *dense("heads.rtd", "discriminator_predictions.dense_prediction", "out_"),
        ],
        **label_heads("classifier.out_proj"),
    },
    architectures={
        (): "ElectraModel",
        ("mlm",): "ElectraForMaskedLM",
        ("rtd",): "ElectraForPreTraining",
        **classes("Electra"),
    },
    aliases={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    fits=_fits,
    more_ours=lambda values: {
        "max_positions": values.get("max_position_embeddings", 512),
        "embedding_size": 0
        if values["embedding_size"] == values["hidden_size"]
        else values["embedding_size"],
    },
    more_theirs=lambda config: {
        "max_position_embeddings": config.max_positions,
        "embedding_size": config.embedding_width,
        "summary_last_dropout": config.hidden_dropout,
    },
    defaults={"embedding_size": 128},
    poolers={"classify": "classifier.dense", "choose": "sequence_summary.summary"},
    pooler_activation="gelu",
    only={
        "choose": {
            "summary_type": "first",
            "summary_use_proj": True,
            "summary_activation": "gelu",
        }
    },
)
