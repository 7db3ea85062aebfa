"""What `make demo` trains: BERT tiny for minutes on two cores.

BERT's model and losses; where its recipe is not the paper's stands in MINUTES of common.py. The
tokenizer is SentencePiece.

  python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo
"""

from ml_collections import ConfigDict

from configs import bert
from configs.common import MINUTES, differing


def get_config() -> ConfigDict:
    return differing(bert.get_config("tiny"), MINUTES | {"corpus.tokenizer": "sentencepiece"})
