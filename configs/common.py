"""What every run has beside its paper's numbers, and how presets are made."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def common() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            corpus=dict(
                source="installed-docs",  # or files, datasets, mixtures: docs/corpora.md
                prepared="",  # or a folder that bert_jax.prepare wrote
                held_out=0.1,
                lowercase=True,
                tokenizer="wordpiece",  # trained on the corpus; or the folder of one
                new_pieces=0,  # learned on the corpus, behind those of such a folder
                special_tokens="[PAD] [UNK] [CLS] [SEP] [MASK]",
                tokenizer_megabytes=64,  # of text, at most, to train it on
                alpha=1.0,  # of a mixture's members: p ∝ n^alpha
                dedup=False,  # of documents with the same text keep one
                invalid_utf8="fail",  # or replace, or skip the document
            ),
            # The coefficient of each term; 0 leaves it out.
            objective=dict(
                mlm=0.0,
                nsp=0.0,
                sop=0.0,
                rtd=0.0,
                rtd_masked=0.0,
                replace_mlm=0.0,
                all_tokens_mlm=0.0,
            ),
            generator=dict(width=0.25, tie="embeddings"),  # of the last four terms
            mesh=dict(data=-1, fsdp=1, tensor=1, slices=1),
        )
    )


def differing(config: ConfigDict, differences: Mapping[str, Any]) -> ConfigDict:
    """The config with the fields named `part.field` changed; a field must be there before."""
    with config.unlocked():
        for name, value in differences.items():
            *path, last = name.split(".")
            part = config
            for step in path:
                part = part[step]
            if last not in part:
                raise KeyError(f"{name}: no such field")
            part[last] = value
    return config


# For minutes on two cores instead of days on a pod, over a vocabulary of 8,192: more tokens are
# predicted a row (Wettig et al. 2022), the output bias begins at the tokens' frequencies (Meister
# et al. 2023), rates are high and nothing is dropped out. Evaluation is the usual one, at 15%.
MINUTES = {
    "model.vocab_size": 8192,
    "model.num_layers": 2,
    "model.hidden_size": 128,
    "model.num_heads": 4,
    "model.intermediate_size": 512,
    "model.initializer_stddev": 0.06,
    "model.hidden_dropout": 0.0,
    "model.attention_dropout": 0.0,
    "model.dtype": "float32",
    "model.scan_layers": False,
    "corpus.held_out": 0.15,
    "data.sequence_length": 32,
    "data.batch_size": 128,
    "data.mask_rate": 0.3,
    "data.max_predictions": 10,
    "data.short_probability": 0.0,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 3e-3,
    "optimizer.warmup_steps": 100,
    "optimizer.beta2": 0.98,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 1.0,
    "optimizer.bias_correction": True,
    "train.steps": 700,
    "train.log_every": 10,
    "train.eval_every": 175,
    "train.save_every": 175,
    "train.natural_bias": True,
}


Presets = Mapping[str, Mapping[str, Any]]


def preset(presets: Presets, name: str) -> Mapping[str, Any]:
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {', '.join(presets)}")
    return presets[name]
