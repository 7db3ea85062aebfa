"""BERT (Devlin et al. 2018): BertForPreTraining and its parts; mBERT is the same."""

from bert_jax.interop.family import Family, because
from bert_jax.interop.labels import classes, label_heads
from bert_jax.interop.rows import dense, encoder, masked_token_head

BERT = Family(
    model_types=("bert",),
    prefix="bert",
    body=lambda config: encoder("bert", config),
    heads={
        "mlm": lambda config: masked_token_head(
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.bias",
            config,
        ),
        "nsp": lambda config: dense("heads.nsp", "cls.seq_relationship"),
        **label_heads("classifier"),
    },
    architectures={
        (): "BertModel",
        ("mlm",): "BertForMaskedLM",
        ("nsp",): "BertForNextSentencePrediction",
        ("mlm", "nsp"): "BertForPreTraining",
        **classes("Bert"),
    },
    aliases={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    fits=lambda config, heads: because(
        (config.share != "none", f"its layers share nothing, these share={config.share}"),
        (config.embedding_size > 0, "its tables are as wide as the hidden states"),
        (config.position_offset > 0, "its positions begin at row 0"),
    ),
    more_ours=lambda values: {"max_positions": values.get("max_position_embeddings", 512)},
    more_theirs=lambda config: {"max_position_embeddings": config.max_positions},
    pooler="bert.pooler.dense",
)
