"""Prepared rows as a person reads them: laid out and masked as in training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.text import Text

from bert_jax.config import RunConfig
from bert_jax.data.draws import key, permute
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import form_batch
from bert_jax.data.prepare import check_tokenizer
from bert_jax.data.records import Rows, read_manifest
from bert_jax.data.tokenizers import Tokenizer, load_tokenizer

# Of sentences A and B, in turns for each document of a row.
COLOURS = (("green", "cyan"), ("yellow", "magenta"))
LEGEND = "«piece→what the model sees» is masked; colours are segments"


def inspect(folder: Path, config: RunConfig, count: int) -> Iterator[Text]:
    """`count` examples of the training split for each phase, under the layout and masking of
    `config`.

    Raises UserError where the folder is no prepared corpus, or damaged.
    """
    check_tokenizer(folder, read_manifest(folder)["vocab_size"])
    tokenizer = load_tokenizer(folder / "tokenizer")
    words = tokenizer.vocabulary
    rows, _ = Rows(folder, "train"), Rows(folder, "held_out")  # both, to see whether they are whole
    for phase in config.phases:
        examples = build_examples(rows, words, phase.data, config.model.type_vocab_size)
        places = np.arange(min(count, len(examples)))
        numbers = permute(places, len(examples), key(config.seed))
        batch = form_batch(examples, numbers, key(config.seed, 0, numbers), phase.data, words)
        begin = f"steps {phase.begin + 1} on: " if len(config.phases) > 1 else ""
        yield Text(
            f"{begin}{len(examples):,} examples of {phase.data.format} in rows of "
            f"{phase.data.sequence_length}. {LEGEND}.", "bold",
        )  # fmt: skip
        for place, number in enumerate(numbers):
            row = {name: values[place] for name, values in batch.items()}
            yield _title(int(number), row, examples.labels)
            yield _tokens(row, tokenizer)


def _title(number: int, row: dict[str, np.ndarray], labels: str | None) -> Text:
    real, masked = int((row["segment_ids"] > 0).sum()), int((row["mlm_weights"] > 0).sum())
    told = f"\nexample {number}: {real} tokens, {masked} masked"
    if left := int(row["mlm_overflow"]):
        told += f" ({left} more had no slot: data.max_predictions)"
    if labels and row[f"{labels}_weights"] > 0:
        kinds = {"nsp": ("B follows A", "B is random"), "sop": ("in order", "swapped")}
        told += f", {labels}: {kinds[labels][int(row[f'{labels}_labels'])]}"
    return Text(told, "bold")


def _tokens(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> Text:
    """Pieces with a space between them, and how many positions are padding."""
    used = row["mlm_weights"] > 0
    hidden = dict(zip(row["mlm_positions"][used], row["mlm_labels"][used], strict=True))
    text = Text()
    real = row["segment_ids"] > 0
    for place in np.nonzero(real)[0]:
        token, segment = int(row["input_ids"][place]), int(row["segment_ids"][place])
        style = COLOURS[(segment - 1) % 2][int(row["token_type_ids"][place]) % 2]
        shown = tokenizer.piece(token)
        if place in hidden:
            text.append(f"«{tokenizer.piece(int(hidden[place]))}→{shown}»", f"reverse {style}")
        else:
            special = tokenizer.vocabulary.special[token]
            text.append(shown, f"bold {style}" if special else style)
        text.append(" ")
    if padding := int((~real).sum()):
        text.append(f"… and {padding} of padding", "dim")
    return text
