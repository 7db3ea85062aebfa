"""BERT: Pre-training of Deep Bidirectional Transformers, Devlin et al. 2018.

The encoder of section 3 and the recipe of A.2: 15% of the tokens predicted (80% [MASK], 10%
random, 10% kept), next sentence prediction, Adam with decoupled weight decay, a million steps
of 256 sequences, 90% of length 128 and the last 10% of 512 (data.phases; the rate decays over
both). Evaluation is at data.sequence_length, 128, in both.

  python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=runs/bert-base

Presets: base and large are the paper's, uncased, base-cased and large-cased the released cased
ones, multilingual the released one over 104 languages; tiny, mini, small and medium are those of
Turc et al. 2019, here of length 128 alone. Parameters, encoder with pooler: tiny 4,385,920, mini
11,170,560, small 28,763,648, medium 41,373,184, base 109,482,240 (cased 108,310,272), large
335,141,888 (cased 333,579,264), multilingual 177,853,440.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.common import Presets, common, differing, preset


def _size(layers: int, hidden: int) -> dict[str, int]:
    return {
        "model.num_layers": layers,
        "model.hidden_size": hidden,
        "model.num_heads": hidden // 64,
        "model.intermediate_size": 4 * hidden,
    }


def _cased(vocab_size: int) -> dict[str, Any]:
    return {"model.vocab_size": vocab_size, "corpus.lowercase": False}


LARGE = _size(24, 1024)
# steps:length:batch:K; what is left out is as in data.*. K as 0.15 · 512 rounded (released code).
PHASES = {"data.phases": "90% 10%:512::77"}
PRESETS: Presets = {
    "tiny": _size(2, 128),
    "mini": _size(4, 256),
    "small": _size(4, 512),
    "medium": _size(8, 512),
    "base": _size(12, 768) | PHASES,
    "large": LARGE | PHASES,
    "base-cased": PHASES | _cased(28996),
    "large-cased": LARGE | PHASES | _cased(28996),
    "multilingual": PHASES | _cased(119547),
}

# The slice that a preset is meant for, about the chips that its paper had.
PODS = dict.fromkeys(("tiny", "mini", "small", "medium"), "v5e:2x2")
PODS |= dict.fromkeys(("base", "base-cased", "multilingual"), "v5e:4x4")
PODS |= dict.fromkeys(("large", "large-cased"), "v5e:8x8")


def get_config(name: str = "base") -> ConfigDict:
    config = common()
    config.model = dict(
        vocab_size=30522,
        hidden_size=768,
        embedding_size=0,
        num_layers=12,
        share="none",
        num_heads=12,
        intermediate_size=3072,
        max_positions=512,
        position_offset=0,
        type_vocab_size=2,
        activation="gelu",
        hidden_dropout=0.1,
        attention_dropout=0.1,
        layer_norm_epsilon=1e-12,
        initializer_stddev=0.02,
        pooler=True,
        pooler_activation="tanh",
        num_labels=0,
        vocab_multiple=128,
        dtype="bfloat16",
        scan_layers=True,
        attention="einsum",
        remat="none",
    )
    config.objective.mlm = 1.0
    config.objective.nsp = 1.0
    config.data = dict(
        sequence_length=128,
        batch_size=256,
        format="segment-pair",
        pairs="nsp",
        max_predictions=20,
        phases="",
        mask_rate=0.15,
        mask_rounding="stochastic",
        mask_units="token",
        mask_token_share=0.8,
        random_token_share=0.1,
        static_copies=0,
        short_probability=0.1,
        packing=False,
        workers=0,
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-4,
        warmup_steps=10_000,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-6,
        weight_decay=0.01,
        clip_norm=1.0,
        bias_correction=False,
    )
    config.train = dict(
        steps=1_000_000,
        log_every=100,
        eval_every=10_000,
        eval_examples=100_000,
        save_every=10_000,
        keep=3,
        keep_best=0,
        keep_every=0,
        accumulation=1,
        max_skipped=10,
        deterministic=False,
        natural_bias=False,
    )
    return differing(config, preset(PRESETS, name))
