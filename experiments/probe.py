"""What a frozen encoder knows of the text that it reads, the same questions for every cell.

  python -m experiments.probe --model=WORKDIR --texts=FILE --output=FILE

The questions are those of questions.py. The encoder, which no training is spent on, gives vectors
(bert_jax.predict embed: the mean over the tokens, the same for every objective); linear classifiers
(ridge regression of ±1) learn from those of half of the documents and are scored on the others.
`words` has the sentence's vector alone; `continuation` and `order` have [pair; a − b; |a − b|;
a ∘ b], of the vectors of the pair as one row, of A and of B. Chance is 0.5.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_jax import cli
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from experiments.questions import read_texts

_RIDGE, _RIDGE_PAIRS = 0.01, 0.1  # a row, on standardised features: four times as many of pairs


def requests(pairs: Sequence[dict]) -> list[dict[str, str | list[str]]]:
    """What the encoder is asked for: of each pair A, B, another; A B, B A, A another."""
    found: list[dict[str, str | list[str]]] = []
    for pair in pairs:
        a, b, other = pair["a"], pair["b"], pair["other"]
        found += [{"text": text} for text in (a, b, other)]
        found += [{"texts": two} for two in ([a, b], [b, a], [a, other])]
    return found


def embed(model: str, asked: Sequence[dict]) -> Float[np.ndarray, "asked D"]:
    words = [sys.executable, "-m", "bert_jax.predict", "embed", f"--model={model}", "--json"]
    lines = "".join(json.dumps(one) + "\n" for one in asked)
    done = subprocess.run(words, input=lines, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().split("\n")[-1] or "it said nothing"
        raise UserError(f"{model}: predict embed failed ({said.removeprefix('error: ')})")
    answers = [line for line in done.stdout.split("\n") if line]
    return np.array([json.loads(line)["embedding"] for line in answers])


def word_score(vectors: Float[np.ndarray, "n two D"], halves: Sequence[int]) -> float:
    """Accuracy on sentences as they are and shuffled, of half 1 after learning from half 0."""
    return _accuracy(vectors[:, 0], vectors[:, 1], np.asarray(halves), _RIDGE)


def pair_scores(
    vectors: Float[np.ndarray, "pairs six D"], halves: Sequence[int]
) -> dict[str, float]:
    """Accuracy on both questions, on the pairs of half 1 after learning from those of half 0."""
    a, b, other, a_b, b_a, a_other = np.moveaxis(vectors, 1, 0)
    right = _features(a_b, a, b)
    questions = {
        "continuation": _features(a_other, a, other),
        "order": _features(b_a, b, a),
    }
    half = np.asarray(halves)
    return {name: _accuracy(right, wrong, half, _RIDGE_PAIRS) for name, wrong in questions.items()}


def _features(pair: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([pair, a - b, np.abs(a - b), a * b], axis=1)


def _accuracy(right: np.ndarray, wrong: np.ndarray, half: np.ndarray, ridge: float) -> float:
    """Each asks twice: of what is right, and of what is wrong."""
    learn, judge = half == 0, half == 1
    seen = np.concatenate([right[learn], wrong[learn]])
    mean, scale = seen.mean(axis=0), seen.std(axis=0) + 1e-9
    x = (seen - mean) / scale
    y = np.repeat([1.0, -1.0], learn.sum())
    weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y)
    yes, no = (((one[judge] - mean) / scale) @ weights for one in (right, wrong))
    return float((np.mean(yes > 0) + np.mean(no <= 0)) / 2)


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.probe", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for name in ("model", "texts", "output"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(words)
    sentences, pairs = read_texts(Path(options.texts))
    asked = [{"text": one[name]} for one in sentences for name in ("text", "shuffled")]
    vectors = embed(options.model, asked + requests(pairs))
    two = vectors[: len(asked)].reshape(len(sentences), 2, -1)
    six = vectors[len(asked) :].reshape(len(pairs), 6, -1)
    found = {"words": word_score(two, [one["half"] for one in sentences])}
    found |= pair_scores(six, [pair["half"] for pair in pairs])
    write_whole(Path(options.output), json.dumps(found) + "\n")
    print("  ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    with cli.guarded():
        main(sys.argv[1:])
