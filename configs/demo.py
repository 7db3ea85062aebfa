"""What `make demo` trains: BERT tiny with a vocabulary of 8,192, for minutes on two cores.

python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo
"""

from ml_collections import ConfigDict

from configs import bert
from configs.common import differing


def get_config() -> ConfigDict:
    return differing(
        bert.get_config("tiny"),
        {
            "model.vocab_size": 8192,
            "model.dtype": "float32",
            "corpus.held_out": 0.15,  # enough for 2,000 pairs
            "data.batch_size": 32,
            "optimizer.learning_rate": 2e-3,
            "optimizer.warmup_steps": 100,
            "optimizer.bias_correction": True,
            "train.steps": 900,
            "train.log_every": 10,
            "train.eval_every": 300,
            "train.save_every": 300,
        },
    )
