"""ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators, Clark et al. 2020.

A small generator, a masked language model, fills the masked places with samples; the encoder
learns which tokens were replaced. Loss: MLM + 50 · RTD over all real tokens (2, appendix A).
The embeddings are common to both (3.2). Masked tokens become [MASK] 85 times in 100 and stay as
they are otherwise, never another token (released code). One text in two segments, no NSP.

  python -m bert_jax.pretrain --config=configs/electra.py:small --workdir=runs/electra-small

Figure 3 is --config.generator.width and --config.generator.tie=all|embeddings|none; the rows of
table 5 are, with --config.objective.rtd=0, one of --config.objective.rtd_masked=50 (ELECTRA 15%),
--config.objective.replace_mlm=1, --config.objective.all_tokens_mlm=1, or neither (BERT's MLM). Two
stages (3.2) are two runs: see docs/electra.md.

Presets: small, base and large are the paper's; small-released has the generator of the model that
was released, as wide as the encoder, and its 4 million steps; tiny is for minutes on two cores
(docs/electra.md). Parameters of the discriminator with its head: small 13,549,057, base
109,483,009, large 335,142,913; of the generator beside it 647,162, 9,903,418, 19,512,378.
"""

from ml_collections import ConfigDict

from configs import bert
from configs.common import MINUTES, Presets, differing, preset

ELECTRA = {
    "model.pooler": False,
    "model.pooler_activation": "gelu",  # released code, of the one that fine-tuning adds
    "objective.nsp": 0.0,
    "data.phases": "",
    "objective.rtd": 50.0,
    "data.pairs": "none",
    "data.mask_token_share": 0.85,
    "data.random_token_share": 0.0,
}
SMALL = {
    "model.hidden_size": 256,
    "model.num_heads": 4,
    "model.intermediate_size": 1024,
    "model.embedding_size": 128,
    "data.batch_size": 128,
    "data.max_predictions": 19,  # released code: int((rate + 0.005) · length)
    "optimizer.learning_rate": 5e-4,
}
PRESETS: Presets = {
    # All weights in common (3.2): what the generator learns of context serves the discriminator
    # before it has learned any by itself. Trained at the rate of evaluation, as the share of
    # replaced tokens is what a detector learns first.
    "tiny": MINUTES
    | {
        "model.embedding_size": 64,
        "generator.width": 1.0,
        "generator.tie": "all",
        "objective.rtd": 10.0,
        "data.mask_rate": 0.15,
        "data.max_predictions": 5,
        "train.steps": 900,
        "train.eval_every": 150,
        "train.save_every": 150,
    },
    "small": SMALL,
    "small-released": SMALL | {"generator.width": 1.0, "train.steps": 4_000_000},
    "base": {
        "generator.width": 1 / 3,
        "data.sequence_length": 512,
        "data.max_predictions": 79,
        "optimizer.learning_rate": 2e-4,
        "train.steps": 766_000,
    },
    "large": bert.LARGE
    | {
        "data.sequence_length": 512,
        "data.batch_size": 2048,
        "data.mask_rate": 0.25,
        "data.max_predictions": 130,
        "optimizer.learning_rate": 2e-4,
        "train.steps": 1_750_000,  # 400,000 is the paper's other run
    },
}

# The slice that a preset is meant for, about the chips that the paper had.
PODS = {"small": "v5e:2x2", "small-released": "v5e:2x2", "base": "v5e:4x4", "large": "v6e:16x16"}


def get_config(name: str = "base") -> ConfigDict:
    return differing(bert.get_config("base"), ELECTRA | dict(preset(PRESETS, name)))
