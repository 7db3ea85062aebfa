"""What transformers computes. Runs in the oracle's environment: torch, transformers, numpy.

  python reference.py make FOLDER                    every case: random weights, inputs, outputs
  python reference.py run MODEL IN.npz OUT.npz       outputs of a saved model for the inputs of IN
  python reference.py count IN.json OUT.json         parameters of each config of a list
  python reference.py tokenize MODEL IN.json OUT.json   ids of the texts, special tokens too

Keys of a file: config (JSON), versions (JSON), weight/NAME, input/NAME; and of what was computed
output/NAME and gradient/NAME. Names are transformers' own.
"""

import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

# Sizes are odd on purpose: no two letters of a shape are equal.
SMALL = dict(
    vocab_size=97, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=40, max_position_embeddings=37, type_vocab_size=2,
)  # fmt: skip
WIDE = dict(
    vocab_size=131, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
    intermediate_size=28, max_position_embeddings=23, type_vocab_size=2,
)  # fmt: skip
ONE_TYPE = {"type_vocab_size": 1, "pad_token_id": 1}
CASES = {
    "bert": ("BertForPreTraining", SMALL),
    "bert_wide": ("BertForPreTraining", WIDE | {"hidden_act": "gelu_new"}),
    "roberta": ("RobertaForMaskedLM", SMALL | ONE_TYPE),
    "roberta_wide": ("RobertaForMaskedLM", WIDE | {"pad_token_id": 1, "layer_norm_eps": 1e-5}),
    "roberta_bare": ("RobertaModel", WIDE | ONE_TYPE),
    "xlmr": ("XLMRobertaForMaskedLM", SMALL | ONE_TYPE),
    "xlmr_wide": ("XLMRobertaForMaskedLM", WIDE | ONE_TYPE),
    "roberta_bare_small": ("RobertaModel", SMALL | {"pad_token_id": 1}),
    "xlmr_bare": ("XLMRobertaModel", WIDE | ONE_TYPE),
    "albert": ("AlbertForPreTraining", SMALL | {"embedding_size": 14}),
    "albert_wide": (
        "AlbertForPreTraining",
        WIDE | {"embedding_size": 20, "num_hidden_groups": 2, "hidden_act": "gelu"},
    ),
    "electra": ("ElectraForPreTraining", SMALL | {"embedding_size": 14}),
    "electra_wide": ("ElectraForPreTraining", WIDE | {"embedding_size": 20}),
    "generator": ("ElectraForMaskedLM", SMALL | {"embedding_size": 14}),
    "generator_wide": ("ElectraForMaskedLM", WIDE | {"embedding_size": 34}),
}
# What their outputs are called, and what we call the head.
LOGITS = {
    "BertForPreTraining": {"mlm": "prediction_logits", "nsp": "seq_relationship_logits"},
    "AlbertForPreTraining": {"mlm": "prediction_logits", "sop": "sop_logits"},
    "RobertaForMaskedLM": {"mlm": "logits"},
    "XLMRobertaForMaskedLM": {"mlm": "logits"},
    "BertForMaskedLM": {"mlm": "logits"},
    "ElectraForPreTraining": {"rtd": "logits"},
    "ElectraForMaskedLM": {"mlm": "logits"},
    "AlbertForMaskedLM": {"mlm": "logits"},
    "BertForNextSentencePrediction": {"nsp": "logits"},
}
PAIR_LABELS = {
    "BertForPreTraining": "next_sentence_label",
    "BertForNextSentencePrediction": "labels",
    "AlbertForPreTraining": "sentence_order_label",
}


def make(name: str) -> dict[str, np.ndarray]:
    architecture, sizes = CASES[name]
    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    config = kind.config_class(
        **sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        architectures=[architecture],
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initial values: every part counts
            parameter.add_(0.2 * torch.randn_like(parameter))
    inputs = inputs_for(model.config)
    weights = {k: p.detach().numpy() for k, p in untied(model)}
    return pack(model.config, weights, inputs) | compute(model, inputs)


def inputs_for(config) -> dict[str, np.ndarray]:
    """Padded rows, both token types where there are two."""
    rng = np.random.default_rng(0)
    rows, pad = 5, config.pad_token_id
    length = config.max_position_embeddings - 6
    real = np.arange(length) < np.array([length, 7, length - 4, 2, length - 2])[:, None]
    # From 2 on: torch's padding_idx hides what that id contributes to the embedding's gradient.
    ids = np.where(real, rng.integers(2, config.vocab_size, real.shape), pad)
    asked = real & (rng.random(real.shape) < 0.3)
    asked[:, 1] = True  # no row without a label
    labels = np.where(asked, rng.integers(0, config.vocab_size, real.shape), -100)
    return {
        "input_ids": ids,
        "token_type_ids": rng.integers(0, config.type_vocab_size, real.shape) * real,
        "attention_mask": real.astype(np.int64),
        "labels": labels,
        "pair_labels": rng.integers(0, 2, rows),
    }


def compute(model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    labels, pair = tensors.pop("labels"), tensors.pop("pair_labels")
    kind = type(model).__name__
    given = dict(tensors)
    if kind in LOGITS:
        # The discriminator's labels are 0 and 1 at every token.
        given["labels"] = (labels >= 0).long() if "rtd" in LOGITS[kind] else labels
    if kind in PAIR_LABELS:
        given[PAIR_LABELS[kind]] = pair
    out = model(**given, output_hidden_states=True)
    outputs = {"hidden": out.hidden_states[-1]}
    body = getattr(model, model.base_model_prefix, model)
    if getattr(body, "pooler", None) is not None:
        outputs["pooled"] = body(**tensors).pooler_output
    for head, name in LOGITS.get(kind, {}).items():
        outputs[head] = getattr(out, name)
    gradients = {}
    if kind in LOGITS:
        outputs["loss"] = out.loss
        out.loss.backward()
        gradients = {
            f"gradient/{k}": p.grad.numpy()
            for k, p in untied(model) if p.grad is not None
        }  # fmt: skip
    return {f"output/{k}": v.detach().numpy() for k, v in outputs.items()} | gradients


def untied(model: torch.nn.Module):
    """Every parameter once, by the name it is saved under."""
    tied = getattr(model, "_tied_weights_keys", None) or {}
    named = model.named_parameters(remove_duplicate=False)
    return [(name, parameter) for name, parameter in named if name not in tied]


def pack(config, weights: dict, inputs: dict) -> dict[str, np.ndarray]:
    versions = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {
        "config": np.array(json.dumps(config.to_dict())),
        "versions": np.array(json.dumps(versions)),
        **{f"weight/{name}": value for name, value in weights.items()},
        **{f"input/{name}": value for name, value in inputs.items()},
    }


def run(folder: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    config._attn_implementation = "eager"
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model, info = kind.from_pretrained(folder, config=config, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert not set(info["unexpected_keys"]) - {k for k in info["unexpected_keys"] if "pooler" in k}
    return compute(model.eval(), inputs)


def count(values: dict) -> int:
    kind = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):
        model = kind(kind.config_class(**values))
        model.tie_weights()
    return sum(parameter.numel() for _, parameter in untied(model))


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "make":
        for name in CASES:
            np.savez_compressed(Path(words[0]) / f"{name}.npz", **make(name))
    elif command == "run":
        with np.load(words[1], allow_pickle=False) as file:
            given = {k.removeprefix("input/"): v for k, v in file.items() if "input/" in k}
        np.savez_compressed(words[2], **run(words[0], given))
    elif command == "count":
        configs = json.loads(Path(words[0]).read_text())
        Path(words[1]).write_text(json.dumps([count(values) for values in configs]))
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(words[0])
        texts = json.loads(Path(words[1]).read_text())
        Path(words[2]).write_text(json.dumps(tokenizer(texts)["input_ids"]))
