"""What a frozen encoder knows of how sentences follow each other, the same for every cell.

  python -m experiments.probe --model=WORKDIR --texts=FILE --output=FILE

The texts are pairs of sentences of held-out documents: A and the B that follows it. Two questions
are asked of the encoder, which no training is spent on: `continuation`, is it B or a sentence of
another document that stands after A, and `order`, is it A B or B A. The encoder gives vectors
(bert_jax.predict embed: the mean over the tokens, the same for every objective) of the pair as one
row, of A and of B; a linear classifier (ridge regression of ±1 on [pair; a − b; |a − b|; a ∘ b])
learns from the pairs of half of the documents and is scored on those of the other half. Chance is
0.5.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_jax import cli
from bert_jax.data.records import Rows
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.errors import UserError
from bert_jax.files import write_whole

TEXTS = "pairs.jsonl"
PAIRS = 3000  # at most, of both halves together
_SHORTEST, _LONGEST = 4, 24  # tokens of a sentence
_RIDGE = 0.1  # a row, on standardised features
_SEED = 0


def write_texts(corpus: Path, path: Path) -> None:
    """The pairs of a prepared corpus, a line each: a, b, another sentence, and its half."""
    if path.exists():
        return
    lines = [json.dumps(pair, ensure_ascii=False) for pair in pairs_of(corpus)]
    if len(lines) < 20:
        raise UserError(
            f"{corpus}: only {len(lines)} pairs of sentences are held out, too few to probe an "
            f"encoder with; raise corpus.held_out, or give more text"
        )
    write_whole(path, "\n".join(lines) + "\n")


def pairs_of(corpus: Path) -> Iterator[dict[str, str | int]]:
    """Neighbours in a document, no sentence in two pairs; `half` goes by the document."""
    documents = _sentences(corpus)
    found = [
        (number, a, b)
        for number, sentences in enumerate(documents)
        for a, b in zip(sentences[::2], sentences[1::2], strict=False)
        if a and b and a != b
    ]
    generator = np.random.default_rng(_SEED)
    chosen = [found[i] for i in generator.permutation(len(found))[:PAIRS]]
    others = generator.permutation(len(chosen))
    for place, (number, a, b) in enumerate(chosen):
        # The next of the others that is of another document, and of the same half.
        for step in range(len(chosen)):
            other, _, text = chosen[others[(place + step) % len(chosen)]]
            if other != number and other % 2 == number % 2:
                yield {"a": a, "b": b, "other": text, "half": number % 2}
                break


def _sentences(corpus: Path) -> list[list[str]]:
    """Of each held-out document; '' for those that are too short or too long."""
    rows, tokenizer = Rows(corpus, "held_out"), load_tokenizer(corpus / "tokenizer")
    numbers = np.arange(len(rows))
    ends = np.cumsum(rows.index.row_sentences, dtype=np.int64)
    documents: dict[int, list[str]] = {}
    owners = rows.index.document_of(numbers).tolist()
    for row, (owner, ids) in enumerate(zip(owners, rows.read(numbers), strict=True)):
        lengths = rows.index.sentence_lengths[(ends[row - 1] if row else 0) : ends[row]]
        for sentence in np.split(ids, np.cumsum(lengths)[:-1]):
            fits = _SHORTEST <= len(sentence) <= _LONGEST
            text = tokenizer.decode(sentence.tolist()) if fits else ""
            documents.setdefault(owner, []).append(text)
    return list(documents.values())


def requests(pairs: Sequence[dict]) -> list[dict[str, str | list[str]]]:
    """What the encoder is asked for: of each pair A, B, another; A B, B A, A another."""
    found: list[dict[str, str | list[str]]] = []
    for pair in pairs:
        a, b, other = pair["a"], pair["b"], pair["other"]
        found += [{"text": text} for text in (a, b, other)]
        found += [{"texts": two} for two in ([a, b], [b, a], [a, other])]
    return found


def embed(model: str, pairs: Sequence[dict]) -> Float[np.ndarray, "pairs six D"]:
    words = [sys.executable, "-m", "bert_jax.predict", "embed", f"--model={model}", "--json"]
    lines = "".join(json.dumps(one) + "\n" for one in requests(pairs))
    done = subprocess.run(words, input=lines, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"{model}: predict embed failed ({said[-1].removeprefix('error: ')})")
    vectors = np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()])
    return vectors.reshape(len(pairs), 6, -1)


def scores(vectors: Float[np.ndarray, "pairs six D"], halves: Sequence[int]) -> dict[str, float]:
    """Accuracy on each question and their mean, on the pairs of half 1 after learning from those
    of half 0."""
    a, b, other, a_b, b_a, a_other = np.moveaxis(vectors, 1, 0)
    right = _features(a_b, a, b)
    questions = {
        "continuation": _features(a_other, a, other),
        "order": _features(b_a, b, a),
    }
    half = np.asarray(halves)
    found = {name: _accuracy(right, wrong, half) for name, wrong in questions.items()}
    return {"mean": sum(found.values()) / len(found)} | found


def _features(pair: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([pair, a - b, np.abs(a - b), a * b], axis=1)


def _accuracy(right: np.ndarray, wrong: np.ndarray, half: np.ndarray) -> float:
    """Each pair asks twice: of what is right, and of what is wrong."""
    learn, judge = half == 0, half == 1
    seen = np.concatenate([right[learn], wrong[learn]])
    mean, scale = seen.mean(axis=0), seen.std(axis=0) + 1e-9
    x = (seen - mean) / scale
    y = np.repeat([1.0, -1.0], learn.sum())
    weights = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
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
    pairs = [json.loads(line) for line in Path(options.texts).read_text().splitlines()]
    found = scores(embed(options.model, pairs), [pair["half"] for pair in pairs])
    write_whole(Path(options.output), json.dumps(found) + "\n")
    print("  ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    with cli.guarded():
        main(sys.argv[1:])
