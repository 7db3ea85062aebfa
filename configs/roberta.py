"""RoBERTa: A Robustly Optimized BERT Pretraining Approach, Liu et al. 2019.

BERT's encoder with other data: masks drawn anew in every epoch (4.1), full sentences in place of
segment pairs and no NSP (4.2), batches of 8,000 (4.3), byte-level BPE (4.4). Adam with β₂ 0.98,
ε 1e-6, no clipping, linear decay over 500,000 steps of length 512 (appendix, table 9).

  python -m bert_jax.pretrain --config=configs/roberta.py:base --workdir=runs/roberta-base

Table 2's formats are data.format (segment-pair, sentence-pair, full-sentences, doc-sentences), with
--config.objective.nsp=1 --config.data.pairs=nsp --config.model.pooler=true for its two NSP rows;
table 1's static masking is --config.data.static_copies=10.

Presets: base and large are the paper's; tiny is for minutes on two cores (docs/roberta.md).
Parameters with the masked-token head: base 124,697,433, large 355,412,057.
"""

from ml_collections import ConfigDict

from configs import bert
from configs.common import MINUTES, Presets, differing, preset

ROBERTA = {
    "corpus.tokenizer": "bpe",
    "corpus.lowercase": False,
    "corpus.special_tokens": "<s> <pad> </s> <unk> ... <mask>",
    "model.vocab_size": 50265,
    "model.position_offset": 2,  # fairseq's: the row of the padding and the one before
    "model.type_vocab_size": 1,
    "model.layer_norm_epsilon": 1e-5,
    "model.pooler": False,
    "objective.nsp": 0.0,
    "data.phases": "",
    "data.format": "full-sentences",
    "data.pairs": "none",
    "data.sequence_length": 512,
    "data.batch_size": 8192,
    "data.max_predictions": 80,
    "data.short_probability": 0.0,
    "optimizer.learning_rate": 6e-4,
    "optimizer.warmup_steps": 24_000,
    "optimizer.beta2": 0.98,
    "optimizer.clip_norm": 0.0,
    "optimizer.bias_correction": True,
    "train.steps": 500_000,
}
PRESETS: Presets = {
    "tiny": MINUTES,
    "base": {},
    "large": bert.LARGE | {"optimizer.learning_rate": 4e-4, "optimizer.warmup_steps": 30_000},
}

PODS = {"base": "v6e:16x16", "large": "v5p:8x8x8"}  # the slice that a preset is meant for


def get_config(name: str = "base") -> ConfigDict:
    return differing(bert.get_config("base"), ROBERTA | dict(preset(PRESETS, name)))
