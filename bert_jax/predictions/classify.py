"""predict classify."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_jax import pretrained
from bert_jax.data.labelled.labels import names_or_numbers
from bert_jax.errors import UserError
from bert_jax.predictions import lines
from bert_jax.predictions.base import (
    Asked,
    add_long,
    logits_of,
    outputs,
    put_together,
    row_form,
    windows,
)
from bert_jax.predictions.lines import Line
from bert_jax.pretrained import Pretrained
from bert_jax.task import read_task
from bert_jax.tasks.scores.classes import softmax
from bert_jax.tasks.sentences import Classification


class Classify(Asked):
    """The class of a text or of a pair of texts; of a regression, the number.

      python -m bert_jax.predict classify --model=runs/sst2 "A film that charms."
      python -m bert_jax.predict classify --model=runs/mnli --json < pairs.jsonl

    A line is a text or, with --json, {"text": ...} or, of a model that was fine-tuned on pairs,
    {"texts": [..., ...]}. Out, a line each: {"text": ..., "label": "pos", "probability": 0.9,
    "probabilities": {"neg": 0.1, "pos": 0.9}}, or {"text": ..., "number": 3.2}.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="each TEXT and line is JSON")
        add_long(parser)

    def __init__(self, arguments: argparse.Namespace):
        source = pretrained.load(arguments.model)
        source.require("classify", "classify")
        self._scorer = Scorer(source, "classify", arguments.long)
        self._json, self.blank = arguments.json, not arguments.json

    def read(self, line: Line) -> tuple[str, ...]:
        texts = lines.read_text(line, self._json)
        self._scorer.check(texts, line.place)
        return texts

    def answer(self, requests: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        names = self._scorer.names
        for texts, values in zip(requests, self._scorer(requests), strict=True):
            if not names:
                yield lines.shown(texts) | {"number": round(float(values[0]), 6)}
                continue
            best = int(values.argmax())
            rounded = [round(float(value), 6) for value in values]
            yield lines.shown(texts) | {
                "label": names[best],
                "probability": rounded[best],
                "probabilities": dict(zip(names, rounded, strict=True)),
            }


class Scorer:
    """What a head says of texts and pairs: probabilities of the classes, or one number."""

    def __init__(self, source: Pretrained, head: str, long: str):
        self._source, self._long = source, long
        self._form = row_form(source)
        self._forward = logits_of(source, Classification(name=head))
        self.names = names_or_numbers(source.labels, source.config.num_labels)
        task = read_task(source.name)
        self.columns = task.texts.split() if task else []  # that it was fine-tuned on, if known

    def check(self, texts: tuple[str, ...], place: str) -> None:
        """Raises UserError for a text where the model was fine-tuned on pairs, and for the other
        way round."""
        if self.columns and len(self.columns) != len(texts):
            what = " and ".join(self.columns)
            form = '{"texts": [..., ...]}' if len(self.columns) == 2 else '{"text": ...}'
            raise UserError(
                f"{place}: {len(texts)} text(s), and {self._source.name} was fine-tuned on {what}; "
                f"give --json and write {form}"
            )

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> list[Float[np.ndarray, "C"]]:
        """Texts and pairs may be mixed where nothing is known of the model."""
        found: list[np.ndarray] = [np.empty(0)] * len(texts)
        for count in {len(one) for one in texts}:
            mine = [number for number, one in enumerate(texts) if len(one) == count]
            examples = windows(self._source, [texts[n] for n in mine], self._long, self._form)
            logits = outputs(self._source, self._forward, examples)
            values = [softmax(one) if self.names else one for one in logits]
            joined = put_together(values, examples, len(mine), self._long, self._largest)
            for number, value in zip(mine, joined, strict=True):
                found[number] = value
        return found

    def _largest(self, values: Float[np.ndarray, "W C"]) -> Float[np.ndarray, "C"]:
        """Those of the window that is surest of its class; the largest number."""
        return values[int(values.max(axis=1).argmax())]
