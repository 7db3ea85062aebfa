"""What transformers computes. Runs in the oracle's environment: torch, transformers, numpy.

  python reference.py make OUT.npz          random weights and inputs of one size, and outputs
  python reference.py run IN.npz OUT.npz    outputs for the weights and inputs of IN

Keys of a file: config (JSON), versions (JSON), weight/NAME, input/NAME; and of what was computed
output/NAME and gradient/NAME. Names are transformers' own.
"""

import json
import platform
import sys

import numpy as np
import torch
import transformers

SIZES = dict(
    vocab_size=97, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=40, max_position_embeddings=37, type_vocab_size=2,
)  # fmt: skip
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


def model_of(sizes: dict) -> transformers.BertForPreTraining:
    config = transformers.BertConfig(
        **sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    config._attn_implementation = "eager"
    return transformers.BertForPreTraining(config).eval()


def make() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    model = model_of(SIZES)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initial values: every part counts
            parameter.add_(0.2 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    rows, length = 5, 31
    real = np.arange(length) < np.array([31, 7, 20, 2, 29])[:, None]
    labels = np.where(real & (rng.random((rows, length)) < 0.3), 1, -100)
    labels[:, 1] = 1  # no row without a label
    labels = np.where(labels == 1, rng.integers(0, SIZES["vocab_size"], labels.shape), -100)
    inputs = {
        # From 1 on: torch's padding_idx hides what id 0 contributes to the embedding's gradient.
        "input_ids": np.where(real, rng.integers(1, SIZES["vocab_size"], (rows, length)), 0),
        "token_type_ids": rng.integers(0, 2, (rows, length)) * real,
        "attention_mask": real.astype(np.int64),
        "labels": labels,
        "next_sentence_label": rng.integers(0, 2, rows),
    }
    return pack(SIZES, weights_of(model), inputs) | compute(model, inputs)


def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = model_of(json.loads(str(given["config"])))
    weights = {k.removeprefix("weight/"): v for k, v in given.items() if k.startswith("weight/")}
    found = model.load_state_dict(
        {name: torch.tensor(value) for name, value in weights.items()}, strict=False
    )
    assert not found.unexpected_keys and set(found.missing_keys) <= set(TIED), found
    model.tie_weights()
    inputs = {k.removeprefix("input/"): v for k, v in given.items() if k.startswith("input/")}
    return compute(model, inputs)


def weights_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in model.named_parameters() if name not in TIED}


def compute(model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    out = model(**tensors, output_hidden_states=True)
    out.loss.backward()
    outputs = {
        "loss": out.loss,
        "prediction_logits": out.prediction_logits,
        "seq_relationship_logits": out.seq_relationship_logits,
        "hidden": out.hidden_states[-1],
    }
    gradients = {
        f"gradient/{name}": p.grad.numpy()
        for name, p in model.named_parameters()
        if name not in TIED
    }
    return {f"output/{k}": v.detach().numpy() for k, v in outputs.items()} | gradients


def pack(sizes: dict, weights: dict, inputs: dict) -> dict[str, np.ndarray]:
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    return {
        "config": np.array(json.dumps(sizes)),
        "versions": np.array(json.dumps(versions)),
        **{f"weight/{name}": value for name, value in weights.items()},
        **{f"input/{name}": value for name, value in inputs.items()},
    }


if __name__ == "__main__":
    if sys.argv[1] == "make":
        np.savez_compressed(sys.argv[2], **make())
    else:
        with np.load(sys.argv[2], allow_pickle=False) as file:
            given = dict(file)
        np.savez_compressed(sys.argv[3], **run(given))
