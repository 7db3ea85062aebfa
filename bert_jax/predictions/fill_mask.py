"""predict fill-mask."""

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from bert_jax import pretrained
from bert_jax.data.labelled.features import Examples, Rows
from bert_jax.errors import UserError
from bert_jax.models.sharding import RULES
from bert_jax.objectives.mlm import word_embedding
from bert_jax.predictions.base import Asked, outputs, row_form
from bert_jax.predictions.lines import Line

_SLOTS = 8  # the masks of a batch's rows are padded to a multiple: one compilation each


class _Prompt(NamedTuple):
    text: str
    ids: list[int]


class FillMask(Asked):
    """The likeliest tokens for each mask of a text.

      python -m bert_jax.predict fill-mask --model=runs/demo "Returns the [MASK] of the array."
      cat lines.txt | python -m bert_jax.predict fill-mask --model=runs/demo --top-k=3

    A mask is typed as [MASK] whatever its name; of a run with a generator, the generator fills
    the masks. A line is a text, blank ones are passed over. Out, a line each:
    {"text": ..., "masks": [[{"token": ..., "probability": ...}, ...]]}.
    """

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--top-k", type=int, default=5, help="how many tokens for a [MASK]")

    def __init__(self, arguments: argparse.Namespace):
        model, top_k = arguments.model, arguments.top_k
        part = "generator" if "generator" in pretrained.parts_of(model) else ""
        self._source = source = pretrained.load(model, part)
        source.require("mlm", "fill a mask")
        if not 1 <= top_k <= source.tokenizer.vocab_size:
            raise UserError(f"--top-k={top_k}: must be from 1 to {source.tokenizer.vocab_size}")

        def likeliest(parameters, batch):
            """[B, K, top_k, 2]: probability and token."""
            module = source.module(parameters)
            hidden = module.encoder(
                batch["input_ids"], batch["token_type_ids"], batch["segment_ids"]
            )
            logits = module.heads["mlm"](hidden, batch["slots"], word_embedding(module.encoder))
            # top_k wants V in one piece.
            whole = jax.sharding.reshard(logits, RULES.whole_logits_bkv)
            whole = whole[..., : source.tokenizer.vocab_size]  # a model may have more ids
            probabilities, tokens = jax.lax.top_k(jax.nn.softmax(whole), top_k)
            return jax.numpy.stack([probabilities, tokens.astype(probabilities.dtype)], axis=-1)

        self._forward = jax.jit(likeliest)

    def read(self, line: Line) -> _Prompt:
        """Raises UserError for a text without [MASK] or longer than the model's positions."""
        text = line.text.strip()
        words, positions = self._source.tokenizer.vocabulary, self._source.config.max_positions
        ids = self._source.tokenizer.encode_prompt(text)
        shown = text if len(text) <= 60 else text[:57] + "..."
        if words.mask not in ids:
            raise UserError(
                f"{shown!r}: has no {words.mask_token}; type it where a word is to be filled"
            )
        if len(ids) + 2 > positions:
            raise UserError(
                f"{shown!r}: is {len(ids) + 2} tokens long and the model has {positions} "
                f"positions; shorten the text"
            )
        return _Prompt(text, ids)

    def answer(self, requests: list[_Prompt]) -> Iterator[dict[str, Any]]:
        words = self._source.tokenizer.vocabulary
        rows = Rows(words, row_form(self._source))
        for prompt in requests:
            rows.add(prompt.ids)
        count = len(requests)
        examples = Examples(
            **rows.arrays(), labels=np.zeros(count, np.int32),
            weights=np.zeros(count, np.float32), owners=np.arange(count),
        )  # fmt: skip
        places = [np.flatnonzero(ids == words.mask) for ids in rows.ids]

        def slots(numbers: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
            most = max(len(places[number]) for number in numbers if number >= 0)
            found = np.zeros((len(numbers), -(-most // _SLOTS) * _SLOTS), np.int32)
            for row, number in enumerate(numbers):
                if number >= 0:
                    found[row, : len(places[number])] = places[number]
            return {"slots": found}

        filled = outputs(self._source, self._forward, examples, slots)
        for prompt, place, values in zip(requests, places, filled, strict=True):
            masks = [
                [
                    {
                        "token": self._source.tokenizer.piece(int(token)),
                        "probability": round(float(probability), 6),
                    }
                    for probability, token in values[slot]
                ]
                for slot in range(len(place))
            ]
            yield {"text": prompt.text, "masks": masks}
