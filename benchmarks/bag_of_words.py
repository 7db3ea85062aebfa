"""The baseline of text classification: logistic regression on which words a text has.

  python -m benchmarks.bag_of_words --data=data/sst2 --texts=sentence --label=label

Reads train.jsonl and dev.jsonl. The strength of the regularisation, and whether pairs of words
count too, is chosen on a tenth of the training texts; the texts of dev are scored once.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from benchmarks import turns
from bert_jax import cli
from bert_jax.errors import UserError

STRENGTHS = (0.1, 0.3, 1.0, 3.0)
LONGEST = (1, 2)  # single words; pairs of neighbours too


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of both files")
    parser.add_argument("--texts", default="sentence", help="the columns of text, with blanks")
    parser.add_argument("--label", default="label", help="the column of the class")
    arguments = parser.parse_args()
    names = [*arguments.texts.split(), arguments.label]
    (texts, labels), (dev_texts, dev_labels) = (
        read(arguments.data / file, names) for file in ("train.jsonl", "dev.jsonl")
    )
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
    turns.write({"accuracy": accuracy, "strength": strength, "longest": longest}, arguments.json)


def read(path: Path, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Texts, their columns joined, and labels. Raises UserError for what cannot be learned from."""
    texts, labels = list[str](), []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            *found, label = (json.loads(line)[name] for name in names)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number} is no JSON object; mend it") from error
        except KeyError as error:
            raise UserError(
                f"{path}: line {number} has no {error}; --texts and --label name columns"
            ) from error
        texts.append("\t".join(map(str, found)))
        labels.append(label)
    if len(set(labels)) < 2 or len(labels) < 20:
        raise UserError(
            f"{path}: {len(labels)} rows of {len(set(labels))} classes; a classifier needs twenty "
            f"rows, of two"
        )
    return texts, np.array(labels)


def model(strength: float, longest: int):
    words = CountVectorizer(binary=True, ngram_range=(1, longest), token_pattern=r"\S+")
    return make_pipeline(words, LogisticRegression(C=strength, max_iter=500))


if __name__ == "__main__":
    with cli.guarded():
        main()
