"""What a frozen encoder is asked, taken from the held-out text of a study's corpus.

`words`: are the words of this sentence in their order, or were all but the first and the last
shuffled? It is the bigram shift of Conneau et al. 2018 (What you can cram into a single vector),
made easier for small models, and no objective here trains on it. A vector that only says which
words there are cannot answer it.

`continuation` and `order` are of pairs, a sentence A and the B that follows it: is it B or a
sentence of another document that stands after A; is it A B or B A. These are what NSP and SOP are
trained on.

Half of the documents is there to learn from, the other to be judged by. Chance is 0.5 everywhere.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bert_jax.data.records import Rows
from bert_jax.data.tokenizers import Tokenizer, load_tokenizer
from bert_jax.errors import UserError
from bert_jax.files import write_whole

TEXTS = "questions.jsonl"
SENTENCES, PAIRS = 2000, 600  # at most, of both halves together
_FEWEST = 5  # of each half
_SPECIAL = 4  # tokens that a pair has beside its own, in RoBERTa's form
_SHORTEST, _LONGEST = 4, 24  # tokens of a sentence
_WORDS = 6  # that a sentence must have to be shuffled
_SEED = 0

Line = dict[str, str | int]


@dataclass(frozen=True)
class Sentence:
    """`tokens`: how many the text has when it is read again, as an encoder reads it."""

    text: str
    tokens: int


def write_texts(corpus: Path, path: Path, length: int) -> None:
    """The questions, a line each, none of more than `length` tokens, special ones among them: the
    shortest rows that any cell is trained on, as positions beyond them are untrained.

    Raises UserError where the held-out text is too little.
    """
    if path.exists():
        return
    documents = sentences_of(corpus)
    shuffled = list(islice(shuffled_of(documents, length), SENTENCES))
    pairs = list(pairs_of(documents, length))
    halves = [[one["half"] for one in lines] for lines in (shuffled, pairs)]
    if min(one.count(half) for one in halves for half in (0, 1)) < _FEWEST:
        raise UserError(
            f"{corpus}: too little text is held out to ask an encoder about it: sentences of "
            f"{_WORDS} words and more, and pairs of neighbours that fit into {length} tokens; "
            f"raise corpus.held_out, or give more text"
        )
    lines = [json.dumps(line, ensure_ascii=False) for line in (*shuffled, *pairs)]
    write_whole(path, "\n".join(lines) + "\n")


def read_texts(path: Path) -> tuple[list[dict], list[dict]]:
    """The sentences and the pairs. Lines end at \\n alone: a text can have other breaks in it."""
    lines = [json.loads(line) for line in path.read_text().split("\n") if line]
    return [one for one in lines if "text" in one], [one for one in lines if "a" in one]


def shuffled_of(documents: Sequence[Sequence[Sentence]], length: int) -> Iterator[Line]:
    """Sentences, each once, with their words in another order; `half` goes by the document."""
    longest = min(_LONGEST, length - 2 * _SPECIAL)  # in another order they can have more tokens
    found = {
        one.text: number
        for number, sentences in enumerate(documents)
        for one in sentences
        if one.tokens <= longest and len(one.text.split()) >= _WORDS
    }
    generator = np.random.default_rng(_SEED)
    texts = list(found)
    for place in generator.permutation(len(texts)):
        first, *inner, last = texts[place].split()
        other = [inner[i] for i in generator.permutation(len(inner))]
        if other != inner:
            shuffled = " ".join([first, *other, last])
            yield {"text": texts[place], "shuffled": shuffled, "half": found[texts[place]] % 2}


def pairs_of(documents: Sequence[Sequence[Sentence]], length: int) -> Iterator[Line]:
    """Neighbours in a document, no sentence in two pairs, each with a sentence of another document
    of the same half; `half` goes by the document."""
    longest = min(_LONGEST, (length - _SPECIAL) // 2)
    found = [
        (number, a.text, b.text)
        for number, sentences in enumerate(documents)
        for a, b in zip(sentences[::2], sentences[1::2], strict=False)
        if a.text != b.text and all(_SHORTEST <= one.tokens <= longest for one in (a, b))
    ]
    generator = np.random.default_rng(_SEED)
    chosen = [found[i] for i in generator.permutation(len(found))[:PAIRS]]
    others = generator.permutation(len(chosen))
    for place, (number, a, b) in enumerate(chosen):
        for step in range(len(chosen)):
            other, _, text = chosen[others[(place + step) % len(chosen)]]
            if other != number and other % 2 == number % 2:
                yield {"a": a, "b": b, "other": text, "half": number % 2}
                break


def sentences_of(corpus: Path) -> list[list[Sentence]]:
    """Of each held-out document."""
    rows, tokenizer = Rows(corpus, "held_out"), load_tokenizer(corpus / "tokenizer")
    numbers = np.arange(len(rows))
    ends = np.cumsum(rows.index.row_sentences, dtype=np.int64)
    documents: dict[int, list[str]] = {}
    owners = rows.index.document_of(numbers).tolist()
    for row, (owner, ids) in enumerate(zip(owners, rows.read(numbers), strict=True)):
        lengths = rows.index.sentence_lengths[(ends[row - 1] if row else 0) : ends[row]]
        for sentence in np.split(ids, np.cumsum(lengths)[:-1]):
            documents.setdefault(owner, []).append(tokenizer.decode(sentence.tolist()))
    return [_counted(texts, tokenizer) for texts in documents.values()]


def _counted(texts: list[str], tokenizer: Tokenizer) -> list[Sentence]:
    counts = [len(ids) for ids in tokenizer.encode(texts)]
    return [Sentence(text, count) for text, count in zip(texts, counts, strict=True)]
