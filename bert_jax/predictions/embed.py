"""predict embed."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from bert_jax import pretrained
from bert_jax.errors import UserError
from bert_jax.models.config import SHARED
from bert_jax.predictions import lines
from bert_jax.predictions.base import Asked, add_long, outputs, put_together, row_form, windows
from bert_jax.predictions.lines import Line
from bert_jax.pretrained import Pretrained

POOLS = ("mean", "cls", "max")


class Embed(Asked):
    """A vector for a text, out of the encoder's hidden states.

      python -m bert_jax.predict embed --model=runs/base --normalize < lines.txt > vectors.jsonl

    --pool: the mean of the text's tokens, [CLS] and [SEP] among them, their maximum, or that of
    [CLS] (as it leaves the last layer: no pooler is used). A line is a text or, with --json,
    {"text": ...} or a pair as one row, {"texts": [..., ...]}. Out, a line each:
    {"text": ..., "embedding": [0.123, ...]}.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="each TEXT and line is JSON")
        parser.add_argument("--normalize", action="store_true", help="vectors of length 1")
        add_pooling(parser)
        add_long(parser)

    def __init__(self, arguments: argparse.Namespace):
        source = pretrained.load(arguments.model)
        self._embedder = Embedder(source, arguments.pool or "mean", arguments.layer, arguments.long)
        self._normalize, self._json = arguments.normalize, arguments.json
        self.blank = not arguments.json

    def read(self, line: Line) -> tuple[str, ...]:
        return lines.read_text(line, self._json)

    def answer(self, requests: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        for texts, vector in zip(requests, self._embedder(requests), strict=True):
            vector = unit(vector) if self._normalize else vector
            yield lines.shown(texts) | {"embedding": [round(float(x), 6) for x in vector]}


class Embedder:
    """The vectors of texts: [D] each."""

    def __init__(self, source: Pretrained, pool: str, layer: int | None, long: str):
        self._source = source = source if layer is None else first_layers(source, layer)
        self._long, self._form = long, row_form(source)

        def embed(parameters, batch):
            hidden = source.module(parameters).encoder(
                batch["input_ids"], batch["token_type_ids"], batch["segment_ids"]
            )
            hidden = hidden.astype(jnp.float32)
            real = (batch["segment_ids"] > 0)[..., None]
            if pool == "cls":
                return hidden[:, 0]
            if pool == "max":
                return jnp.max(jnp.where(real, hidden, -jnp.inf), axis=1)
            return jnp.sum(hidden * real, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)

        self._forward = jax.jit(embed)

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> list[Float[np.ndarray, "D"]]:
        examples = windows(self._source, texts, self._long, self._form)
        found = outputs(self._source, self._forward, examples)
        return put_together(found, examples, len(texts), self._long, lambda x: x.max(axis=0))


def unit(vector: Float[np.ndarray, "D"]) -> Float[np.ndarray, "D"]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def first_layers(source: Pretrained, layer: int) -> Pretrained:
    """The model up to a layer, from 1 on, or from the last one, −1, back. Its hidden states are
    those that the whole model has there."""
    layers = source.config.num_layers
    number = layers + 1 + layer if layer < 0 else layer
    if not 1 <= number <= layers:
        raise UserError(f"--layer={layer}: must be from 1 to {layers}, or from -{layers} to -1")
    shared = SHARED[source.config.share]
    pairs = [
        (path, variable.replace(variable.get_value()[:number]))
        if path[:2] == ("encoder", "layers") and path[2] not in shared
        else (path, variable)
        for path, variable in nnx.to_flat_state(source.parameters)
    ]
    config = replace(source.config, num_layers=number)
    return replace(source, config=config, parameters=nnx.from_flat_state(pairs))


def add_pooling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pool", choices=POOLS, help="what is made of the tokens; else the mean")
    parser.add_argument(
        "--layer", type=int, help="whose hidden states are taken, from 1; -2: the last but one"
    )
