"""ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, Lan et al. 2020.

One set of parameters for all layers and tables of width 128 (3.1), sentence-order prediction in
place of NSP (3.1), n-grams of up to three words masked together (4.1), LAMB at 0.00176 over 125,000
steps of 4,096 sequences of length 512 (4.1), SentencePiece with 30,000 pieces.

  python -m bert_jax.pretrain --config=configs/albert.py:base --workdir=runs/albert-base

Table 4 is --config.model.share=all|attention|feedforward|none, table 3 with
--config.model.embedding_size (0 for E = H), table 5 --config.objective.sop=0 with
--config.objective.nsp=1 --config.data.pairs=nsp, or with --config.data.pairs=none.

Presets: base, large, xlarge and xxlarge are the paper's; those with -v2 the second release:
nothing dropped out, and longer (10 million steps for base, 3 million for the others); tiny is for
minutes on two cores (docs/albert.md). Parameters, encoder with pooler: base 11,683,584, large
17,683,968, xlarge 58,724,864, xxlarge 222,595,584.
"""

from ml_collections import ConfigDict

from configs import bert
from configs.common import MINUTES, Presets, differing, preset

ALBERT = {
    "corpus.tokenizer": "sentencepiece",
    "corpus.special_tokens": "<pad> <unk> [CLS] [SEP] [MASK]",
    "model.vocab_size": 30_000,
    "model.embedding_size": 128,
    "model.share": "all",
    "model.activation": "gelu_tanh",  # released code
    "objective.nsp": 0.0,
    "objective.sop": 1.0,
    "data.phases": "",
    "data.pairs": "sop",
    "data.mask_units": "ngram",
    "data.sequence_length": 512,
    "data.batch_size": 4096,
    "data.max_predictions": 80,
    "optimizer.name": "lamb",
    "optimizer.learning_rate": 1.76e-3,
    "optimizer.warmup_steps": 3125,  # released code
    "train.steps": 125_000,
}


def _size(layers: int, hidden: int, heads: int) -> dict[str, int]:
    return {
        "model.num_layers": layers,
        "model.hidden_size": hidden,
        "model.num_heads": heads,
        "model.intermediate_size": 4 * hidden,
    }


def _v2(steps: int) -> dict[str, float]:
    return {"model.hidden_dropout": 0.0, "model.attention_dropout": 0.0, "train.steps": steps}


PAPER = {
    "base": _size(12, 768, 12),
    "large": _size(24, 1024, 16),
    "xlarge": _size(24, 2048, 16),  # heads as released: of size 128
    "xxlarge": _size(12, 4096, 64),
}
PRESETS: Presets = (
    {"tiny": MINUTES | {"model.embedding_size": 64}}
    | PAPER
    | {
        f"{name}-v2": size | _v2(10_000_000 if name == "base" else 3_000_000)
        for name, size in PAPER.items()
    }
)

# The slice that a preset is meant for.
_PODS = {"base": "v5e:16x16", "large": "v5p:4x8x8", "xlarge": "v5p:4x8x8", "xxlarge": "v5p:8x8x8"}
PODS = _PODS | {f"{name}-v2": pod for name, pod in _PODS.items()}


def get_config(name: str = "base") -> ConfigDict:
    return differing(bert.get_config("base"), ALBERT | dict(preset(PRESETS, name)))
