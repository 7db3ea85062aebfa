"""XLM-R: Unsupervised Cross-lingual Representation Learning at Scale, Conneau et al. 2020.

RoBERTa over 100 languages: a SentencePiece vocabulary of 250,000 and no lower-casing; 1.5 million
steps of 8,192 (3, appendix). The rates are RoBERTa's, as the paper gives none. Languages are the
members of a mixture, sampled with p ∝ n^0.3 (3.1).

  python -m bert_jax.pretrain --config=configs/xlmr.py:base --workdir=runs/xlmr-base \\
      --config.corpus.source='en.txt.zst + sw.txt.zst + ur.txt.zst'

Presets: base and large. Parameters, encoder with pooler: base 278,043,648, large 559,890,432.
"""

from ml_collections import ConfigDict

from configs import roberta
from configs.common import Presets, differing, preset

XLMR = {
    "corpus.tokenizer": "sentencepiece",
    "corpus.alpha": 0.3,
    "model.vocab_size": 250_002,
    "train.steps": 1_500_000,
}
PRESETS: Presets = {"base": {}, "large": {}}

PODS = dict.fromkeys(PRESETS, "v5p:8x8x8")  # the slice that a preset is meant for


def get_config(name: str = "base") -> ConfigDict:
    return differing(roberta.get_config(name), XLMR | dict(preset(PRESETS, name)))
