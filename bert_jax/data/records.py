"""Prepared rows on disk: token ids in array_record files, sentence boundaries in an index.

A row is a document, or a part of one that ends at a sentence: at most ROW_TOKENS ids, so that
reading one example never reads a book. Batches of any length are cut from the same rows.
"""

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from array_record.python import array_record_module
from etils import epath
from jaxtyping import Integer

from bert_jax.errors import UserError

FORMAT = 2  # of the folder, and of the rules that fill it; part of the cache's key
ROW_TOKENS = 4096
MANIFEST = "manifest.json"
_ROWS_A_SHARD = 65536


@dataclass(frozen=True)
class Index:
    """Where sentences and rows lie. `row_ends[r]` counts the sentences up to the end of row r."""

    sentence_lengths: Integer[np.ndarray, "sentences"]
    row_ends: Integer[np.ndarray, "rows"]
    documents: Integer[np.ndarray, "rows"]  # the number of the document that a row is of

    def sentences(self, row: int) -> slice:
        return slice(self.row_ends[row - 1] if row else 0, self.row_ends[row])


class RowWriter:
    """Writes the rows of one split; `close` writes the index."""

    def __init__(self, folder: epath.Path, split: str, dtype: np.dtype):
        self._folder, self._split, self._dtype = folder, split, dtype
        self._lengths: list[int] = []
        self._row_ends: list[int] = []
        self._documents: list[int] = []
        self._writer: array_record_module.ArrayRecordWriter | None = None
        self.tokens = 0

    def add(self, document: int, sentences: Iterable[Sequence[int]]) -> None:
        """Cut a document's sentences into rows and write them. A sentence longer than a row is
        cut into several."""
        row: list[Sequence[int]] = []
        size = 0
        for sentence in sentences:
            for start in range(0, len(sentence), ROW_TOKENS):
                part = sentence[start : start + ROW_TOKENS]
                if size + len(part) > ROW_TOKENS:
                    self._write(document, row)
                    row, size = [], 0
                row.append(part)
                size += len(part)
        if row:
            self._write(document, row)

    def _write(self, document: int, row: list[Sequence[int]]) -> None:
        if len(self._row_ends) % _ROWS_A_SHARD == 0:
            self._close_shard()
            path = shard(self._folder, self._split, len(self._row_ends) // _ROWS_A_SHARD)
            self._writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        assert self._writer is not None
        with _writing(self._folder):
            self._writer.write(np.concatenate(row).astype(self._dtype).tobytes())
        self._lengths += [len(sentence) for sentence in row]
        self._row_ends.append(len(self._lengths))
        self._documents.append(document)
        self.tokens += sum(len(sentence) for sentence in row)

    def _close_shard(self) -> None:
        if self._writer is not None:
            with _writing(self._folder):
                self._writer.close()

    def close(self) -> None:
        self._close_shard()
        for name, values, dtype in (
            ("lengths", self._lengths, np.uint16),
            ("row_ends", self._row_ends, np.int64),
            ("documents", self._documents, np.int32),
        ):
            with (self._folder / f"{self._split}-{name}.npy").open("wb") as file:
                np.save(file, np.asarray(values, dtype), allow_pickle=False)

    @property
    def counts(self) -> dict[str, int]:
        return {
            "documents": len(set(self._documents)),
            "rows": len(self._row_ends),
            "sentences": len(self._lengths),
            "tokens": self.tokens,
        }


class Rows:
    """The rows of one split, by number. Pickles (to loader processes) as its path."""

    def __init__(self, folder: epath.PathLike, split: str):
        self.folder, self.split = epath.Path(folder), split
        manifest = read_manifest(self.folder)
        self._dtype = np.dtype(manifest["dtype"])
        try:
            self.index = Index(
                *(
                    np.load((self.folder / f"{split}-{name}.npy").open("rb"), allow_pickle=False)
                    for name in ("lengths", "row_ends", "documents")
                )
            )
            if len(self.index.row_ends) != manifest["splits"][split]["rows"]:
                raise ValueError(f"{split} has {len(self.index.row_ends)} rows")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.folder}: the prepared corpus is damaged ({error}); delete the folder "
                f"and prepare it again"
            ) from error

    def __len__(self) -> int:
        return len(self.index.row_ends)

    def __reduce__(self):
        return Rows, (str(self.folder), self.split)

    @functools.cached_property
    def _shards(self) -> list[array_record_module.ArrayRecordReader]:
        count = -(-len(self) // _ROWS_A_SHARD)
        return [_reader(shard(self.folder, self.split, number)) for number in range(count)]

    def read(self, rows: Integer[np.ndarray, "n"]) -> list[Integer[np.ndarray, "_"]]:
        """The ids of each row."""
        shards = rows // _ROWS_A_SHARD
        out: list[np.ndarray] = [np.empty(0)] * len(rows)
        for number in np.unique(shards):
            (places,) = np.nonzero(shards == number)
            try:
                payloads = self._shards[number].read((rows[places] % _ROWS_A_SHARD).tolist())
            except RuntimeError as error:
                raise _damaged(shard(self.folder, self.split, int(number)), error) from error
            for place, payload in zip(places, payloads, strict=True):
                out[place] = np.frombuffer(payload, self._dtype)
        return out


def _reader(path: epath.Path) -> array_record_module.ArrayRecordReader:
    try:
        return array_record_module.ArrayRecordReader(str(path))
    except Exception as error:  # the extension raises RuntimeError and its own kinds
        raise _damaged(path, error) from error


def _damaged(path: epath.Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); delete the folder "
        f"and prepare it again"
    )


@contextlib.contextmanager
def _writing(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{folder}: rows cannot be written ({' '.join(str(error).split())[:200]}); make room "
            f"and start again"
        ) from error


def shard(folder: epath.Path, split: str, number: int) -> epath.Path:
    return folder / f"{split}-{number:05d}.array_record"


def read_manifest(folder: epath.PathLike) -> dict:
    """Raises UserError where the folder is no prepared corpus; a manifest is written last."""
    path = epath.Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
        _ = manifest["vocab_size"], manifest["dtype"], manifest["splits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: not a prepared corpus (no readable {MANIFEST}); make one with "
            f"python -m bert_jax.prepare --output={folder}"
        ) from error
    if found != FORMAT:
        raise UserError(f"{folder}: prepared in format {found}, this is {FORMAT}; prepare it again")
    return manifest


def token_dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2") if vocab_size <= 65536 else np.dtype("<u4")
