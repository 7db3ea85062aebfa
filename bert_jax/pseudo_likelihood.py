"""How well a masked language model expects a text: its pseudo-log-likelihood.

Salazar et al. 2020 (Masked Language Model Scoring, section 2): every token is masked in turn, and
PLL is the sum of log p(token | all others), in nats; the pseudo-perplexity of a corpus is
exp(-sum of PLL / tokens). A model with longer pieces has fewer of them, so models of unequal
vocabularies are compared by word and by character.

Where a word has several pieces the others give a masked one away, which makes rare words seem
likely (Kauf and Ivanova 2023). MASKS has their remedy, PLL-word-l2r: with a token, the rest of its
word to the right is masked as well, so that a word's sum is log p(word | other words).
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from bert_jax import pretrained
from bert_jax.data.labelled.batches import form_batch
from bert_jax.data.labelled.features import Examples
from bert_jax.data.labelled.windows import windowed_texts
from bert_jax.data.sources.reading import lines
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.errors import UserError
from bert_jax.kinds import rows_of
from bert_jax.objectives.mlm import cross_entropy, word_embedding
from bert_jax.pretrained import Pretrained
from bert_jax.tasks.scores.spread import Interval, bootstrap

MASKS = ("token", "word")
_TOKENS = 4096  # of a batch, padding counted: rows of one length, as many as that makes
_SHORTEST = 32  # rows are padded to this, or twice, four times, ...: one compilation each

Report = Callable[[int, int], None]  # tokens scored, and in all


@dataclass(frozen=True)
class Scored:
    """Of N texts, in order. `nats`: -PLL; `unknown`: tokens that stand for what has no piece."""

    texts: tuple[str, ...]
    nats: Float[np.ndarray, "N"]
    tokens: Int[np.ndarray, "N"]
    unknown: Int[np.ndarray, "N"]

    @property
    def words(self) -> Int[np.ndarray, "N"]:
        """As white space parts them, whatever the vocabulary."""
        return np.array([len(text.split()) for text in self.texts])

    @property
    def characters(self) -> Int[np.ndarray, "N"]:
        """With one space between two words."""
        return np.array([len(" ".join(text.split())) for text in self.texts])

    def counts(self) -> dict[str, Int[np.ndarray, "N"]]:
        return {
            "tokens": self.tokens,
            "words": self.words,
            "characters": self.characters,
            "unknown_tokens": self.unknown,
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """Each text with its PLL and counts."""
        counts = self.counts()
        for number, text in enumerate(self.texts):
            mine = {name: int(each[number]) for name, each in counts.items()}
            yield {"text": text, "pll": -float(self.nats[number])} | mine

    def intervals(self) -> dict[str, Interval]:
        """Each score with its bootstrap over the texts."""

        def of(count: Int[np.ndarray, "N"], scale: Callable[[float], float]) -> Interval:
            def score(rows: Int[np.ndarray, "B"]) -> float:
                return scale(float(self.nats[rows].sum() / count[rows].sum()))

            return bootstrap(score, len(self.texts), seed=0)

        def perplexity(nats: float) -> float:
            return float(np.exp(nats))

        return {
            "pseudo_perplexity": of(self.tokens, perplexity),
            "pseudo_perplexity_by_word": of(self.words, perplexity),
            "bits_by_character": of(self.characters, lambda nats: nats / float(np.log(2))),
        }


def load_masked_model(model: str) -> Pretrained:
    """The MODEL; of a run with a generator, the generator. Raises UserError where it has no
    masked-token head."""
    part = "generator" if "generator" in pretrained.parts_of(model) else ""
    source = pretrained.load(model, part)
    source.require("mlm", "score a text")
    return source


def read_texts(file: str, limit: int = 0) -> tuple[str, ...]:
    """The lines of the file ('-': of stdin), packed or not, that are not blank; the first `limit`
    of them, 0 for all. Raises UserError for a file without text, or of another encoding."""
    path = Path(file)
    if file != "-" and not path.is_file():
        what = "is a folder" if path.exists() else "no such file"
        raise UserError(f"--text={file}: {what}; name a text file, or - for stdin")
    found: list[str] = []
    for number, line in enumerate(sys.stdin.buffer if file == "-" else lines(path), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"--text={file}: line {number} is not UTF-8 at its byte {error.start}; convert it "
                f"first, for example with iconv -t UTF-8"
            ) from None
        if text:
            found.append(text)
        if limit and len(found) == limit:
            break
    if not found:
        raise UserError(f"--text={file}: has no text; give a file with a text a line")
    return tuple(found)


def score(
    source: Pretrained, texts: Sequence[str], masked: str, report: Report = lambda *_: None
) -> Scored:
    """The texts under the model, each by itself between [CLS] and [SEP]; what is longer than the
    model's positions in windows of equal length, each token in the context of its own. Those of
    which no token comes are left out. `masked`: one of MASKS.

    Raises UserError where there is no token at all, or the parameters are not finite.
    """
    form, words = rows_of(source.config, source.config.max_positions), source.tokenizer.vocabulary
    texts = [text for text, ids in zip(texts, source.tokenizer.encode(list(texts)), strict=True)
             if ids]  # fmt: skip
    if not texts:
        raise UserError("the text has no token; give another file")
    windows = windowed_texts([(text,) for text in texts], source.tokenizer, form)
    ends = mask_ends(windows, words, masked)
    nats, sizes = np.zeros(len(texts)), windows.lengths - 2
    total, done = int(sizes.sum()), 0
    forward = _forward(source)
    for length, numbers, places in _batches(windows, source.config.max_positions):
        batch = form_batch(windows, numbers, length)
        there = np.flatnonzero(numbers >= 0)
        labels = np.take_along_axis(batch["input_ids"], places[:, None], axis=1)
        until = ends[windows.begins[np.maximum(numbers, 0)] + places]
        columns = np.arange(length)
        hidden = (columns >= places[:, None]) & (columns < until[:, None])
        batch["input_ids"] = np.where(hidden, np.int32(words.mask), batch["input_ids"])
        batch |= {"positions": places[:, None], "targets": labels}
        values = np.asarray(jax.device_get(forward(source.parameters, batch)), np.float64)[there]
        if not np.isfinite(values).all():
            raise UserError(f"{source.name}: its parameters are not finite: the run had diverged")
        np.add.at(nats, windows.owners[numbers[there]], values)
        done += len(there)
        report(done, total)
    tokens, unknown = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    np.add.at(tokens, windows.owners, sizes)
    rows = np.repeat(np.arange(len(windows)), windows.lengths)
    np.add.at(unknown, windows.owners[rows], windows.input_ids == words.unk)
    return Scored(tuple(texts), nats, tokens, unknown)


def mask_ends(windows: Examples, words: Vocabulary, masked: str) -> Int[np.ndarray, "T"]:
    """For each token, where in its row what is masked with it ends."""
    ends = np.zeros(len(windows.input_ids), np.int64)
    for number in range(len(windows)):
        row = windows.row(number)
        size = row.stop - row.start
        places = np.arange(size)
        if masked == "word":
            starts = np.flatnonzero(words.word_starts(windows.input_ids[None, row])[0])
            ends[row] = np.append(starts, size)[np.searchsorted(starts, places, side="right")]
        else:
            ends[row] = places + 1
    return ends


def _batches(
    windows: Examples, positions: int
) -> Iterator[tuple[int, Int[np.ndarray, "B"], Int[np.ndarray, "B"]]]:
    """A length, then for each row the number of its window and which of its tokens is masked; a
    row that only fills the batch has number -1."""
    lengths = [min(_SHORTEST, positions)]
    while lengths[-1] < positions:
        lengths.append(min(2 * lengths[-1], positions))
    bucket = np.searchsorted(lengths, windows.lengths)
    for kind, length in enumerate(lengths):
        mine, rows = np.flatnonzero(bucket == kind), max(_TOKENS // length, 1)
        ends = np.cumsum(windows.lengths[mine] - 2)  # of the tokens of these windows
        for begin in range(0, int(ends[-1]) if len(ends) else 0, rows):
            token = np.arange(begin, begin + rows)
            there = token < ends[-1]
            window = np.searchsorted(ends, np.where(there, token, 0), side="right")
            first = np.where(window > 0, ends[window - 1], 0)
            places = np.where(there, token - first + 1, 0)  # after [CLS]
            yield length, np.where(there, mine[window], -1), places.astype(np.int32)


def _forward(source: Pretrained) -> Callable[..., Array]:
    def nats(parameters, batch):
        """[B]: of the target at the one position of each row."""
        module = source.module(parameters)
        hidden = module.encoder(batch["input_ids"], batch["token_type_ids"], batch["segment_ids"])
        logits = module.heads["mlm"](hidden, batch["positions"], word_embedding(module.encoder))
        return cross_entropy(logits, batch["targets"])[:, 0]

    return jax.jit(nats)
