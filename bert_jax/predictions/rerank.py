"""predict rerank."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax import pretrained
from bert_jax.errors import UserError
from bert_jax.predictions import lines
from bert_jax.predictions.base import Asked, add_long
from bert_jax.predictions.classify import Scorer
from bert_jax.predictions.embed import Embedder, add_pooling, unit
from bert_jax.predictions.lines import Line
from bert_jax.pretrained import Pretrained


class _Query(NamedTuple):
    query: str
    texts: tuple[str, ...]
    place: str


class Rerank(Asked):
    """Texts in the order in which they fit a query.

      python -m bert_jax.predict rerank --model=runs/rank "a question" "one text" "another"
      python -m bert_jax.predict rerank --model=runs/base --pool=cls < queries.jsonl

    A line is {"query": ..., "texts": [...]}; on the command line the query comes first. A model
    that was fine-tuned to classify pairs scores each text by the probability of --label, the query
    being the first of the pair; of a regression, or a choice, by the number that the head gives;
    any other model by the cosine of the two embeddings (--pool, --layer as in embed). Out, a line
    each: {"query": ..., "ranking": [{"text": ..., "score": 0.9, "index": 1}, ...]}, the best first;
    index counts the texts from 0.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--label", help="of a classifier, the class of texts that fit")
        add_pooling(parser)
        add_long(parser)

    def __init__(self, arguments: argparse.Namespace):
        source = pretrained.load(arguments.model)
        heads = [head for head in ("classify", "choose") if head in source.heads]
        self._scores = (
            _by_head(source, heads[0], arguments) if heads else _by_cosine(source, arguments)
        )

    @staticmethod
    def given(texts: Sequence[str]) -> list[Line]:
        if len(texts) < 2:
            raise UserError("one text given; give the query and the texts, or lines on stdin")
        query, *others = (line.text for line in lines.arguments(texts))
        return [Line(json.dumps({"query": query, "texts": others}), "arguments")]

    def read(self, line: Line) -> _Query:
        values = lines.json_fields(line, ["query", "texts"])
        query = lines.text_of(values["query"], "query", line)
        texts = lines.texts_of(values["texts"], "texts", line, lambda count: True)
        return _Query(query, texts, line.place)

    def answer(self, requests: list[_Query]) -> Iterator[dict[str, Any]]:
        scores = iter(self._scores(requests))
        for request in requests:
            mine = [next(scores) for _ in request.texts]
            order = sorted(range(len(mine)), key=lambda number: (-mine[number], number))
            ranking = [
                {"text": request.texts[n], "score": round(mine[n], 6), "index": n} for n in order
            ]
            yield {"query": request.query, "ranking": ranking}


Scores = Callable[[list[_Query]], list[float]]  # of all texts of all queries


def _by_head(source: Pretrained, head: str, arguments: argparse.Namespace) -> Scores:
    if arguments.pool or arguments.layer is not None:
        raise UserError(
            f"--pool, --layer: are of embeddings, and {source.name} has a head that scores pairs"
        )
    scorer, number = Scorer(source, head, arguments.long), 0
    if len(scorer.columns) == 1:
        raise UserError(
            f"{source.name}: was fine-tuned on single texts ({scorer.columns[0]}); name a "
            f"classifier of pairs, or the encoder that it began from"
        )
    if arguments.label and not scorer.names:
        raise UserError(f"--label={arguments.label}: {source.name} has no classes")
    if scorer.names and arguments.label not in scorer.names:
        raise UserError(
            f"--label={arguments.label or ''}: name the class of texts that fit, one of "
            f"{', '.join(scorer.names)}"
        )
    if scorer.names:
        number = scorer.names.index(arguments.label)

    def scores(requests: list[_Query]) -> list[float]:
        pairs = [(request.query, text) for request in requests for text in request.texts]
        return [float(values[number]) for values in scorer(pairs)]

    return scores


def _by_cosine(source: Pretrained, arguments: argparse.Namespace) -> Scores:
    if arguments.label:
        raise UserError(f"--label={arguments.label}: {source.name} has no classes")
    embedder = Embedder(source, arguments.pool or "mean", arguments.layer, arguments.long)

    def scores(requests: list[_Query]) -> list[float]:
        texts = [(text,) for request in requests for text in (request.query, *request.texts)]
        vectors = iter(unit(vector) for vector in embedder(texts))
        found = list[float]()
        for request in requests:
            query = next(vectors)
            found += [float(query @ next(vectors)) for _ in request.texts]
        return found

    return scores
