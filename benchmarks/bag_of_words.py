"""The baseline of text classification: logistic regression on which words a text has.

  python -m benchmarks.bag_of_words --data=data/sst2 --texts=sentence --label=label

Reads train.jsonl and dev.jsonl. The strength of the regularisation, and whether pairs of words
count too, is chosen on a tenth of the training texts; the texts of dev are scored once.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

DATA = flags.DEFINE_string("data", None, "the folder of train.jsonl and dev.jsonl", required=True)
TEXTS = flags.DEFINE_string("texts", "sentence", "the columns of text, parted by blanks")
LABEL = flags.DEFINE_string("label", "label", "the column of the class")
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
LONGEST = (1, 2)  # single words; pairs of neighbours too


def main(_: list[str]) -> None:
    (texts, labels), (dev_texts, dev_labels) = read("train.jsonl"), read("dev.jsonl")
    mine, others, mine_labels, others_labels = train_test_split(
        texts, labels, test_size=0.1, random_state=0
    )
    choices = [(strength, longest) for longest in LONGEST for strength in STRENGTHS]
    inside, strength, longest = max(
        (model(*choice).fit(mine, mine_labels).score(others, others_labels), *choice)
        for choice in choices
    )
    accuracy = model(strength, longest).fit(texts, labels).score(dev_texts, dev_labels)
    words = "words" if longest == 1 else "words and pairs of them"
    print(f"{words}, C={strength}: accuracy {accuracy:.4f} on dev ({inside:.4f} on the tenth)")


def read(name: str) -> tuple[list[str], np.ndarray]:
    path = Path(DATA.value) / name
    if not path.exists():
        sys.exit(f"error: {path}: no such file; --data names the folder of {name}")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    names = [*TEXTS.value.split(), LABEL.value]
    if missing := [one for one in names if one not in rows[0]]:
        sys.exit(f"error: {path}: has no column {missing[0]!r}; there are {', '.join(rows[0])}")
    return (
        ["\t".join(row[one] for one in names[:-1]) for row in rows],
        np.array([row[names[-1]] for row in rows]),
    )


def model(strength: float, longest: int):
    words = CountVectorizer(binary=True, ngram_range=(1, longest), token_pattern=r"\S+")
    return make_pipeline(words, LogisticRegression(C=strength, max_iter=500))


if __name__ == "__main__":
    app.run(main)
