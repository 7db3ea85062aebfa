"""What `make demo` trains: BERT tiny over 8,192 tokens, for minutes on two cores.

BERT's model and losses; its recipe is for days, so this one differs where minutes are few: more
tokens are predicted a row (Wettig et al. 2022), the output bias begins at the tokens' frequencies
(Meister et al. 2023), rates are high and nothing is dropped out. Evaluation is the usual one, at
15%.

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
            "model.num_heads": 4,
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
            "optimizer.learning_rate": 3e-3,
            "optimizer.warmup_steps": 100,
            "optimizer.beta2": 0.98,
            "optimizer.bias_correction": True,
            "train.steps": 700,
            "train.log_every": 10,
            "train.eval_every": 175,
            "train.save_every": 175,
            "train.natural_bias": True,
        },
    )
