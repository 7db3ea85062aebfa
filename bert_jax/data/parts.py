"""Chunks of a corpus, encoded one by one into part files: what workers do, in any order.

A chunk is a stretch of documents, a function of the corpus alone; its part file is a function of
the chunk and the tokenizer, and is there whole or not at all.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt16, UInt64

from bert_jax.data.corpora import hashed, held_out
from bert_jax.data.records import ROW_TOKENS
from bert_jax.data.sentences import split_sentences
from bert_jax.data.sources.reading import Document
from bert_jax.data.tokenizers import Tokenizer

CHUNK_CHARACTERS = 1 << 22
_SENTENCES_A_CALL = 8192


class Chunk(NamedTuple):
    number: int
    first: int  # the number of its first document, in the corpus
    documents: list[Document]


@dataclass(frozen=True)
class Encoding:
    """How documents are encoded. Pickles to workers."""

    tokenizer: str  # folder
    dtype: str
    held_out: float


@dataclass(frozen=True)
class Part:
    """An encoded chunk. Documents of which no token came have no row."""

    tokens: Shaped[np.ndarray, "tokens"]
    sentence_lengths: UInt16[np.ndarray, "sentences"]
    row_sentences: Int64[np.ndarray, "rows"]  # how many
    row_documents: Int64[np.ndarray, "rows"]  # which of this part
    numbers: Int64[np.ndarray, "documents"]  # in the corpus; of parts of one document the same
    digests: UInt64[np.ndarray, "documents 2"]  # of their text
    names: UInt64[np.ndarray, "documents"]  # hashed
    held_out: Bool[np.ndarray, "documents"]
    characters: Int64[np.ndarray, "documents"]

    def save(self, path: Path) -> None:
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                np.savez(file, allow_pickle=False, **vars(self))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def chunks(documents: Iterable[Document]) -> Iterator[Chunk]:
    """Stretches of at least CHUNK_CHARACTERS, the last one aside."""
    number, first, size = 0, 0, 0
    found: list[Document] = []
    count = 0  # of documents, those in several parts once
    for document in documents:
        if not document.part:
            if size >= CHUNK_CHARACTERS:
                yield Chunk(number, first, found)
                number, first, found, size = number + 1, count, [], 0
            count += 1
        elif size >= CHUNK_CHARACTERS:
            yield Chunk(number, first, found)
            number, first, found, size = number + 1, count - 1, [], 0
        found.append(document)
        size += document.characters
    if found:
        yield Chunk(number, first, found)


def encode(chunk: Chunk, tokenizer: Tokenizer, encoding: Encoding) -> Part:
    texts: list[str] = []
    counts: list[int] = []
    numbers: list[int] = []
    characters: list[int] = []
    digests: list[bytes] = []
    number = chunk.first - (not chunk.documents[0].part)
    for document in chunk.documents:
        number += not document.part
        sentences = sentences_of(document)
        numbers.append(number)
        counts.append(len(sentences))
        characters.append(sum(map(len, sentences)))
        digests.append(digest(document, sentences))
        # To RoBERTa's tokenizer a sentence after another begins with the space between them;
        # to those trained here it makes no difference.
        begins = sentences[: 0 if document.part else 1]
        texts += begins
        texts += [" " + sentence for sentence in sentences[len(begins) :]]
    ids: list[Sequence[int]] = []
    for start in range(0, len(texts), _SENTENCES_A_CALL):
        ids += tokenizer.encode(texts[start : start + _SENTENCES_A_CALL])
    tokens = np.fromiter(itertools.chain.from_iterable(ids), encoding.dtype, sum(map(len, ids)))
    lengths: list[int] = []
    row_sentences: list[int] = []
    row_documents: list[int] = []
    ends = np.cumsum(counts).tolist()
    for place, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        rows = list(cut_rows(len(sentence) for sentence in ids[start:end]))
        row_sentences += map(len, rows)
        row_documents += [place] * len(rows)
        lengths += itertools.chain.from_iterable(rows)
    names = [document.name for document in chunk.documents]
    return Part(
        tokens=tokens,
        sentence_lengths=np.array(lengths, np.uint16),
        row_sentences=np.array(row_sentences, np.int64),
        row_documents=np.array(row_documents, np.int64),
        numbers=np.array(numbers, np.int64),
        digests=np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2).astype(np.uint64),
        names=np.array([hashed(name) for name in names], np.uint64),
        held_out=np.array([held_out(name, encoding.held_out) for name in names]),
        characters=np.array(characters, np.int64),
    )


def sentences_of(document: Document) -> list[str]:
    return [s for paragraph in document.paragraphs for s in split_sentences(paragraph)]


def digest(document: Document, sentences: Sequence[str]) -> bytes:
    """16 bytes that documents of the same text have in common. A document too long for one part
    is like no other: it is not compared."""
    alone = () if document.part is None else (document.name, str(document.part))
    text = " ".join([*sentences, *alone])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def cut_rows(sentences: Iterable[int]) -> Iterator[list[int]]:
    """The lengths of a document's sentences, cut into rows of at most ROW_TOKENS. A sentence
    longer than a row is cut into several; one without a token is left out."""
    row: list[int] = []
    size = 0
    for sentence in sentences:
        for start in range(0, sentence, ROW_TOKENS):
            length = min(sentence - start, ROW_TOKENS)
            if size + length > ROW_TOKENS:
                yield row
                row, size = [], 0
            row.append(length)
            size += length
    if row:
        yield row
