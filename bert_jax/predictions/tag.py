"""predict tag."""

import argparse
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax import pretrained
from bert_jax.data.labelled.labels import LabelSet, names_or_numbers
from bert_jax.data.labelled.records import TagRecord
from bert_jax.data.labelled.tag_features import tag_examples
from bert_jax.errors import UserError
from bert_jax.predictions import lines
from bert_jax.predictions.base import Asked, logits_of, note, outputs, row_form
from bert_jax.predictions.lines import Line
from bert_jax.tasks.scores.classes import softmax
from bert_jax.tasks.scores.entities import SCHEMES, entities
from bert_jax.tasks.tokens import Tagging


class _Sentence(NamedTuple):
    text: str
    begins: tuple[int, ...]  # of each word, in the text
    words: tuple[str, ...]
    place: str


class Tag(Asked):
    """A tag for each word of a text and, of BIO and BILOU tags, the entities.

      python -m bert_jax.predict tag --model=runs/ner "Ada Lovelace lived in London."

    A line is a text, whose words are parted by blanks, with punctuation at either end of a word a
    word of its own; or, with --json, {"text": ...} or {"words": [...]}, whose text is the words
    between blanks. Begin and end count characters of the text. Out, a line each:
    {"text": ..., "words": [{"word": "Ada", "tag": "B-PER", "probability": 0.9, "begin": 0,
    "end": 3}, ...], "entities": [{"type": "PER", "text": "Ada Lovelace", "begin": 0, "end": 12}]}.
    A text longer than the model's positions is read in windows that share words; each word is
    tagged once.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="each TEXT and line is JSON")

    def __init__(self, arguments: argparse.Namespace):
        self._source = source = pretrained.load(arguments.model)
        source.require("tag", "tag words")
        self._names = names_or_numbers(source.labels, source.config.num_labels)
        self._scheme = _scheme(self._names)
        self._forward = logits_of(source, Tagging())
        self._json, self.blank = arguments.json, not arguments.json

    def read(self, line: Line) -> _Sentence:
        if not self._json:
            return _split(line.text, line.place)
        values = lines.json_fields(line, [], ["text", "words"])
        if len(values) != 1:
            raise UserError(f'{line.place}: write {{"text": ...}} or {{"words": [...]}}')
        if "text" in values:
            return _split(lines.text_of(values["text"], "text", line), line.place)
        words = lines.texts_of(values["words"], "words", line, lambda count: True)
        if not all(word.strip() for word in words):
            raise UserError(f"{line.place}: one of the 'words' is blank; leave it out")
        begins = np.cumsum([0, *(len(word) + 1 for word in words)])[: len(words)]
        return _Sentence(" ".join(words), tuple(begins.tolist()), words, line.place)

    def answer(self, requests: list[_Sentence]) -> Iterator[dict[str, Any]]:
        records = [TagRecord(one.words, None, one.place, 1) for one in requests]
        labels = LabelSet.given(self._names)
        examples = tag_examples(records, self._source.tokenizer, row_form(self._source), labels)
        if examples.cut:
            note(
                f"a word is longer than the model's {self._source.config.max_positions} positions; "
                f"its beginning alone is read"
            )
        by_word = examples.by_word(outputs(self._source, self._forward, examples))
        for sentence, logits in zip(requests, by_word, strict=True):
            yield self._tagged(sentence, softmax(logits) if len(logits) else logits)

    def _tagged(self, sentence: _Sentence, probabilities: np.ndarray) -> dict[str, Any]:
        tags = [self._names[int(one.argmax())] for one in probabilities]
        ends = [begin + len(w) for begin, w in zip(sentence.begins, sentence.words, strict=True)]
        words = [
            {"word": word, "tag": tag, "probability": round(float(one.max()), 6),
             "begin": begin, "end": end}
            for word, tag, one, begin, end in zip(
                sentence.words, tags, probabilities, sentence.begins, ends, strict=True
            )
        ]  # fmt: skip
        found: dict[str, Any] = {"text": sentence.text, "words": words}
        if self._scheme:
            found["entities"] = [
                {
                    "type": entity.type,
                    "text": sentence.text[sentence.begins[entity.begin] : ends[entity.end - 1]],
                    "begin": sentence.begins[entity.begin],
                    "end": ends[entity.end - 1],
                }
                for entity in entities(tags, self._scheme)
            ]
        return found


def _scheme(names: Sequence[str]) -> str:
    """That of SCHEMES which all tags are of, '' for none."""
    for scheme, parts in SCHEMES.items():
        if all(name == "O" or (name[:1] in parts and name[1:2] in ("", "-")) for name in names):
            return scheme
    return ""


def _split(text: str, place: str) -> _Sentence:
    """The words of a text: what stands between blanks, and the punctuation at its ends."""
    spans = list[tuple[int, int]]()
    begin = None
    for at, character in enumerate(text + " "):
        if not character.isspace():
            begin = at if begin is None else begin
            continue
        if begin is not None:
            spans += _without_punctuation(text, begin, at)
        begin = None
    words = tuple(text[begin:end] for begin, end in spans)
    return _Sentence(text, tuple(begin for begin, _ in spans), words, place)


def _without_punctuation(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    first, last = begin, end
    while first < last and unicodedata.category(text[first])[0] == "P":
        first += 1
    while last > first and unicodedata.category(text[last - 1])[0] == "P":
        last -= 1
    before = [(at, at + 1) for at in range(begin, first)]
    after = [(at, at + 1) for at in range(last, end)]
    return before + ([(first, last)] if first < last else []) + after
