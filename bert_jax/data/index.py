"""The index of prepared rows: where sentences, rows, documents, records lie, by lengths alone."""

import functools
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int, Integer

from bert_jax.data.offsets import Offsets

INDEX = {  # as the fields of Index
    "lengths": "<u2", "row_sentences": "<u2", "begins": "<u1", "record_sentences": "<u2",
}  # fmt: skip


@dataclass(frozen=True)
class Index:
    """Where sentences, rows, documents and records lie: the length of each, and their offsets."""

    sentence_lengths: Integer[np.ndarray, "sentences"]  # in tokens
    row_sentences: Integer[np.ndarray, "rows"]
    begins: Integer[np.ndarray, "rows"]  # 1 where a row begins a document, 0 where it goes on
    record_sentences: Integer[np.ndarray, "records"]

    @functools.cached_property
    def sentences(self) -> Offsets:
        """In tokens."""
        return Offsets(self.sentence_lengths)

    @functools.cached_property
    def rows(self) -> Offsets:
        """In sentences."""
        return Offsets(self.row_sentences)

    @functools.cached_property
    def records(self) -> Offsets:
        """In sentences."""
        return Offsets(self.record_sentences)

    @functools.cached_property
    def _documents(self) -> Offsets:
        return Offsets(self.begins)

    def document_of(self, rows: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Numbers of the documents, from 1."""
        return self._documents[rows + 1]

    @property
    def documents(self) -> int:
        """How many there are."""
        return self._documents.total

    @property
    def totals(self) -> list[int]:
        """Tokens, sentences, documents, and sentences again, by the records."""
        return [of.total for of in (self.sentences, self.rows, self._documents, self.records)]


def load_index(folder: epath.Path, split: str, counts: Mapping[str, int]) -> Index:
    """The index of a split, of which the manifest has these counts. Raises OSError where a file
    cannot be read, ValueError where it is damaged."""
    sizes = [counts[name] for name in ("sentences", "rows", "rows", "records")]
    arrays = [load_array(folder / f"{split}-{name}.npy") for name in INDEX]
    for (name, kind), array, size in zip(INDEX.items(), arrays, sizes, strict=True):
        if (array.dtype, array.shape) != (np.dtype(kind), (size,)):
            raise ValueError(f"{split}-{name}.npy has not {size} numbers of {kind}")
    index = Index(*arrays)
    expected = [counts[name] for name in ("tokens", "sentences", "documents", "sentences")]
    if (found := index.totals) != expected:
        raise ValueError(f"the index of {split} adds up to {found}, not to {expected}")
    return index


def load_array(path: epath.Path) -> np.ndarray:
    """Of a local file what is not looked at stays on the disk. Raises OSError and ValueError."""
    local = Path(os.fspath(path))
    try:
        if local.is_file():
            return np.load(local, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False)
    except (SyntaxError, EOFError, tokenize.TokenError) as error:  # a header is read as Python
        raise ValueError(f"{path.name}: {error}") from error
