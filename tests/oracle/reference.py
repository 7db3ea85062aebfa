"""What transformers computes. Runs in the oracle's environment: torch, transformers, numpy.

  python reference.py make FOLDER                    every case: random weights, inputs, outputs
  python reference.py train FOLDER                   fine-tuning: random weights, batches, losses
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
from inputs import labelled, to_learn  # beside this file

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
TINY = dict(
    vocab_size=53, hidden_size=12, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=20, max_position_embeddings=19, type_vocab_size=2,
)  # fmt: skip
FAMILIES = {
    "bert": ("Bert", TINY),
    "roberta": ("Roberta", TINY | ONE_TYPE),
    "xlmr": ("XLMRoberta", TINY | ONE_TYPE),
    "albert": ("Albert", TINY | {"embedding_size": 10}),
    "electra": ("Electra", TINY | {"embedding_size": 10}),
}
NAMES = {"id2label": {0: "low", 1: "middle", 2: "high"},
         "label2id": {"low": 0, "middle": 1, "high": 2}}  # fmt: skip
# Heads of fine-tuned models: how their classes end, and what is in the config.
LABELLED = {
    "classify": ("ForSequenceClassification", NAMES),
    "tag": ("ForTokenClassification", NAMES),
    "answer": ("ForQuestionAnswering", {}),
    "choose": ("ForMultipleChoice", {}),
}
CASES |= {
    f"{name}_{head}": (family + ending, sizes | labels)
    for name, (family, sizes) in FAMILIES.items()
    for head, (ending, labels) in LABELLED.items()
    if name != "xlmr" or head == "classify"
}
CASES["bert_regress"] = (
    "BertForSequenceClassification", TINY | {"num_labels": 1, "problem_type": "regression"},
)  # fmt: skip
# Of those the ones that are fine-tuned.
TRAINED = ("bert_classify", "roberta_tag", "electra_answer")
TRAINING = {"learning_rate": 3e-3, "warmup_steps": 4, "steps": 20}
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
    model = build(name)
    inputs = inputs_for(model)
    return pack(model, inputs) | compute(model, inputs)


def build(name: str) -> torch.nn.Module:
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
    return model


def head_of(model: torch.nn.Module) -> str:
    """That of a fine-tuned model; '' for another."""
    kind = type(model).__name__
    return next((head for head, (ending, _) in LABELLED.items() if kind.endswith(ending)), "")


def inputs_for(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Padded rows, both token types where there are two."""
    config, rng = model.config, np.random.default_rng(0)
    if head := head_of(model):
        length = config.max_position_embeddings - 6
        labels = config.num_labels
        return labelled(head, rng, length, config.vocab_size, config.type_vocab_size,
                        config.pad_token_id, labels)  # fmt: skip
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
    if head := head_of(model):
        out, logits = forward(model, head, inputs)
        out.loss.backward()
        outputs = {"hidden": out.hidden_states[-1], head: logits, "loss": out.loss}
        return {f"output/{k}": v.detach().numpy() for k, v in outputs.items()} | gradients_of(model)
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
        gradients = gradients_of(model)
    return {f"output/{k}": v.detach().numpy() for k, v in outputs.items()} | gradients


def forward(model: torch.nn.Module, head: str, inputs: dict[str, np.ndarray]):
    """The output of a fine-tuned model for labelled rows, and its logits."""
    given = {name: torch.tensor(value) for name, value in inputs.items()}
    if head == "answer":
        given["start_positions"], given["end_positions"] = given.pop("labels").unbind(1)
    out = model(**given, output_hidden_states=True)
    if head == "answer":
        return out, torch.stack([out.start_logits, out.end_logits], dim=-1)
    return out, out.logits


def train(name: str) -> dict[str, np.ndarray]:
    """The losses of torch's AdamW, as transformers' Trainer sets it up, and the gradient's norm
    before it is clipped, over batches [steps, B, ...]."""
    model, head = build(name).train(), name.rpartition("_")[2]  # no dropout: its rates are 0
    config, steps = model.config, TRAINING["steps"]
    batches = to_learn(head, config.vocab_size, config.type_vocab_size, config.pad_token_id,
                       config.num_labels, steps)  # fmt: skip
    given = pack(model, batches)
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    decayed = [p for p in model.parameters() if all(p is not one for one in plain)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=TRAINING["learning_rate"], betas=(0.9, 0.999), eps=1e-8,
    )  # fmt: skip
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, TRAINING["warmup_steps"], steps
    )
    losses, norms = [], []
    for step in range(steps):
        out, _ = forward(model, head, {field: value[step] for field, value in batches.items()})
        out.loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        losses.append(out.loss.item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return given | {
        "training": np.array(json.dumps(TRAINING)),
        "output/loss": np.array(losses, np.float32),
        "output/gradient_norm": np.array(norms, np.float32),
    }


def gradients_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {
        f"gradient/{k}": p.grad.numpy() for k, p in untied(model) if p.grad is not None
    }  # fmt: skip


def untied(model: torch.nn.Module):
    """Every parameter once, by the name it is saved under."""
    tied = getattr(model, "_tied_weights_keys", None) or {}
    named = model.named_parameters(remove_duplicate=False)
    return [(name, parameter) for name, parameter in named if name not in tied]


def pack(model: torch.nn.Module, inputs: dict) -> dict[str, np.ndarray]:
    versions = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {
        "config": np.array(json.dumps(model.config.to_dict())),
        "versions": np.array(json.dumps(versions)),
        **{f"weight/{name}": p.detach().numpy().copy() for name, p in untied(model)},
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
    elif command == "train":
        for name in TRAINED:
            np.savez_compressed(Path(words[0]) / f"{name}.npz", **train(name))
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
