"""Use a pretrained model: text in, one JSON object a line out.

  python -m bert_jax.predict fill-mask --model=runs/demo "Returns the [MASK] of the array."
  cat lines.txt | python -m bert_jax.predict fill-mask --model=runs/demo --top-k=3

MODEL is a workdir of bert_jax.pretrain or a Hugging Face folder; of a run with a generator, the
generator fills the masks. A mask is typed as [MASK] whatever its name. The texts are arguments,
or lines on stdin. Each mask gets its likeliest tokens:
{"text": ..., "masks": [[{"token": ..., "probability": ...}, ...]]}.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import cli, pretrained
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.errors import UserError
from bert_jax.models.sharding import RULES
from bert_jax.objectives.mlm import word_embedding
from bert_jax.training.mesh import one_device

BATCH = 32
LENGTH_STEP = 32  # rows are padded to a multiple: one compilation a multiple


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        cli.leave(f"{message}; see --help")


def main() -> None:
    parser = Parser(
        prog="python -m bert_jax.predict", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("task", choices=["fill-mask"])
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--model", required=True, help="a workdir or a Hugging Face folder")
    parser.add_argument("--top-k", type=int, default=5, help="how many tokens for a [MASK]")
    arguments = parser.parse_intermixed_args()
    with cli.guarded():
        texts = [text.encode(errors="replace").decode() for text in arguments.texts]
        for answer in fill_masks(arguments.model, texts or _lines(), arguments.top_k):
            print(json.dumps(answer, ensure_ascii=False), flush=True)


def fill_masks(model: str, texts: Iterable[str], top_k: int) -> Iterator[dict]:
    """The `top_k` likeliest tokens for every [MASK] of each text, in the order of the texts.

    Raises UserError for a text without [MASK] or longer than the model's positions.
    """
    mesh = one_device()
    with jax.set_mesh(mesh):
        source = pretrained.load(
            model, "generator" if "generator" in pretrained.parts_of(model) else ""
        )
        source.require("mlm", "fill a mask")
        config, tokenizer = source.config, source.tokenizer
        vocabulary = tokenizer.vocabulary
        if not 1 <= top_k <= tokenizer.vocab_size:
            raise UserError(f"--top-k={top_k}: must be from 1 to {tokenizer.vocab_size}")

        @jax.jit
        def likeliest(parameters, input_ids, segment_ids, positions):
            module = source.module(parameters)
            hidden = module.encoder(input_ids, jnp.zeros_like(input_ids), segment_ids)
            logits = module.heads["mlm"](hidden, positions, word_embedding(module.encoder))
            # top_k wants V in one piece.
            whole = jax.sharding.reshard(logits, RULES.whole_logits_bkv)
            whole = whole[..., : tokenizer.vocab_size]  # a model may have ids that mean nothing
            return jax.lax.top_k(jax.nn.softmax(whole), top_k)

        def answers(part: list[str], rows: list[list[int]]) -> Iterator[dict]:
            places = [[i for i, t in enumerate(row) if t == vocabulary.mask] for row in rows]
            length = -(-max(map(len, rows)) // LENGTH_STEP) * LENGTH_STEP
            shape = (BATCH, min(length, config.max_positions))
            input_ids, segment_ids = (
                np.full(shape, vocabulary.pad, np.int32),
                np.zeros(shape, np.int32),
            )
            slots = np.zeros((BATCH, -(-max(map(len, places)) // 8) * 8), np.int32)
            for number, (row, place) in enumerate(zip(rows, places, strict=True)):
                input_ids[number, : len(row)] = row
                segment_ids[number, : len(row)] = 1
                slots[number, : len(place)] = place
            probabilities, tokens = jax.device_get(
                likeliest(source.parameters, input_ids, segment_ids, slots)
            )
            if not np.isfinite(probabilities).all():
                raise UserError(f"{model}: its parameters are not finite: the run had diverged")
            for number, (text, place) in enumerate(zip(part, places, strict=True)):
                masks = [
                    [
                        {"token": tokenizer.piece(int(t)), "probability": round(float(p), 6)}
                        for t, p in zip(tokens[number, k], probabilities[number, k], strict=True)
                    ]
                    for k in range(len(place))
                ]
                yield {"text": text, "masks": masks}

        for batch in itertools.batched(texts, BATCH):
            part: list[str] = []
            rows: list[list[int]] = []
            wrong = None
            for text in batch:
                row = [vocabulary.cls, *tokenizer.encode_prompt(text), vocabulary.sep]
                if wrong := _wrong(text, row, vocabulary, config.max_positions):
                    break
                part.append(text)
                rows.append(row)
            if part:
                yield from answers(part, rows)
            if wrong:
                raise wrong


def _lines() -> Iterator[str]:
    """Of stdin, blank ones aside. A stray byte is no reason to stop."""
    for line in sys.stdin.buffer:
        if text := line.decode(errors="replace").strip():
            yield text


def _wrong(text: str, row: list[int], vocabulary: Vocabulary, positions: int) -> UserError | None:
    shown = text if len(text) <= 60 else text[:57] + "..."
    if vocabulary.mask not in row:
        return UserError(
            f"{shown!r}: has no {vocabulary.mask_token}; type it where a word is to be filled"
        )
    if len(row) > positions:
        return UserError(
            f"{shown!r}: is {len(row)} tokens long and the model has {positions} positions; "
            f"shorten the text"
        )
    return None


if __name__ == "__main__":
    main()
