"""Prepared rows on disk: token ids in array_record files, sentence boundaries in an index.

A row is a document, or a part of one that ends at a sentence: at most ROW_TOKENS ids, so that
reading one example never reads a book. Batches of any length are cut from the same rows. To
TFDS the folder is a dataset, of the feature input_ids: tfds.builder_from_directory reads it.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from array_record.python import array_record_module
from etils import epath
from jaxtyping import Integer

from bert_jax.errors import UserError, one_line

FORMAT = 3  # of the folder, and of the rules that fill it; part of the cache's key
ROW_TOKENS = 4096
MANIFEST = "manifest.json"
_ROWS_A_SHARD = 65536
_DATASET, _FEATURE = "rows", "input_ids"
_INDEX = {"lengths": "<u2", "row_ends": "<i8", "documents": "<i4"}  # as the fields of Index


@dataclass(frozen=True)
class Index:
    """Where sentences and rows lie. `row_ends[r]` counts the sentences up to the end of row r."""

    sentence_lengths: Integer[np.ndarray, "sentences"]
    row_ends: Integer[np.ndarray, "rows"]
    documents: Integer[np.ndarray, "rows"]  # the number of the document that a row is of

    def sentences(self, row: int) -> slice:
        return slice(self.row_ends[row - 1] if row else 0, self.row_ends[row])


class SplitWriter:
    """Writes the rows of one split, of which there will be so many `rows` and `sentences`: as
    they come, nothing is kept in memory."""

    def __init__(
        self, folder: epath.Path, split: str, dtype: np.dtype, rows: int, sentences: int
    ):  # fmt: skip
        self._folder, self._split, self._dtype = folder, split, dtype
        self._rows, self._row, self._sentence = rows, 0, 0
        self._writer: array_record_module.ArrayRecordWriter | None = None
        self._files: dict[str, IO[bytes]] = {}
        for (name, kind), count in zip(_INDEX.items(), (sentences, rows, rows), strict=True):
            file = self._files[name] = (folder / f"{split}-{name}.npy").open("wb")
            header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)

    def add(
        self,
        rows: Sequence[np.ndarray],
        sentence_lengths: Integer[np.ndarray, "sentences"],
        row_sentences: Integer[np.ndarray, "rows"],
        documents: Integer[np.ndarray, "rows"],
    ) -> None:
        """`row_sentences[r]` counts the sentences of row r, `documents[r]` is its document."""
        for row in rows:
            if self._row % _ROWS_A_SHARD == 0:
                self._close_shard()
                number = self._row // _ROWS_A_SHARD
                path = shard(self._folder, self._split, number, self._rows)
                self._writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            assert self._writer is not None
            with _writing(self._folder):
                self._writer.write(_example(row.astype(self._dtype, copy=False).tobytes()))
            self._row += 1
        ends = self._sentence + np.cumsum(row_sentences)
        self._sentence += len(sentence_lengths)
        for (name, kind), values in zip(
            _INDEX.items(), (sentence_lengths, ends, documents), strict=True
        ):
            self._files[name].write(values.astype(kind).tobytes())

    def _close_shard(self) -> None:
        if self._writer is not None:
            with _writing(self._folder):
                self._writer.close()
            self._writer = None

    def close(self) -> None:
        self._close_shard()
        for file in self._files.values():
            file.close()


class Rows:
    """The rows of one split, by number. Pickles (to loader processes) as its path."""

    def __init__(self, folder: epath.PathLike, split: str):
        self.folder, self.split = epath.Path(folder), split
        manifest = read_manifest(self.folder)
        self._dtype = np.dtype(manifest["dtype"])
        try:
            self.index = Index(*(_load(self.folder / f"{split}-{name}.npy") for name in _INDEX))
            counts = manifest["splits"][split]
            found = len(self.index.row_ends), len(self.index.sentence_lengths)
            if found != (counts["rows"], counts["sentences"]):
                raise ValueError(f"{split} has {found[0]} rows of {found[1]} sentences")
            for number in range(self._shard_count):
                path = shard(self.folder, split, number, len(self))
                if path.stat().length != manifest["shards"][path.name]:
                    raise ValueError(f"{path.name} was cut off, or is another file")
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
        numbers = range(self._shard_count)
        return [_reader(shard(self.folder, self.split, n, len(self))) for n in numbers]

    @property
    def _shard_count(self) -> int:
        return -(-len(self) // _ROWS_A_SHARD)

    def read(self, rows: Integer[np.ndarray, "n"]) -> list[Integer[np.ndarray, "_"]]:
        """The ids of each row."""
        shards = rows // _ROWS_A_SHARD
        out: list[np.ndarray] = [np.empty(0)] * len(rows)
        for number in np.unique(shards):
            (places,) = np.nonzero(shards == number)
            try:
                payloads = self._shards[number].read((rows[places] % _ROWS_A_SHARD).tolist())
            except RuntimeError as error:
                path = shard(self.folder, self.split, int(number), len(self))
                raise _damaged(path, error) from error
            for place, payload in zip(places, payloads, strict=True):
                out[place] = np.frombuffer(payload, self._dtype, offset=_begin(payload))
        return out


def _reader(path: epath.Path) -> array_record_module.ArrayRecordReader:
    try:
        return array_record_module.ArrayRecordReader(str(path))
    except Exception as error:  # the extension raises RuntimeError and its own kinds
        raise _damaged(path, error) from error


def _damaged(path: epath.Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be read ({one_line(error, 200)}); delete the folder and prepare it again"
    )


@contextlib.contextmanager
def _writing(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{folder}: rows cannot be written ({one_line(error, 200)}); make room and start again"
        ) from error


def shard(folder: epath.Path, split: str, number: int, rows: int) -> epath.Path:
    """Under the name that TFDS has for it; `rows` is how many the split has."""
    count = -(-rows // _ROWS_A_SHARD)
    return folder / f"{_DATASET}-{split}.array_record-{number:05d}-of-{count:05d}"


def shard_sizes(folder: epath.Path, rows: dict[str, int]) -> dict[str, int]:
    """Bytes of each shard, by its name; `rows` are those of each split."""
    return {
        path.name: path.stat().length
        for split, count in rows.items()
        for number in range(-(-count // _ROWS_A_SHARD))
        for path in [shard(folder, split, number, count)]
    }


def describe_to_tfds(folder: epath.Path, dtype: np.dtype, rows: dict[str, int]) -> None:
    """Write TFDS's two files beside the shards; `rows` are those of each split."""
    splits = []
    for split, count in rows.items():
        full, rest = divmod(count, _ROWS_A_SHARD)
        lengths = [_ROWS_A_SHARD] * full + [rest] * (rest > 0)
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(shard_sizes(folder, {split: count}).values())),
                "shardLengths": [str(length) for length in lengths],
            }
        )
    info = {"fileFormat": "array_record", "name": _DATASET, "splits": splits, "version": "1.0.0"}
    module = "tensorflow_datasets.core.features"
    tensor = {
        "pythonClassName": f"{module}.tensor_feature.Tensor",
        "tensor": {
            "shape": {"dimensions": ["-1"]},
            "dtype": np.dtype(dtype).name,
            "encoding": "bytes",
        },
    }
    features = {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": {_FEATURE: tensor}},
    }
    for name, content in (("dataset_info", info), ("features", features)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _example(payload: bytes) -> bytes:
    """A tf.train.Example whose one feature is these bytes, as protocol buffers write it."""
    feature = _field(1, _field(1, payload))  # Feature.bytes_list, BytesList.value
    entry = _field(1, _FEATURE.encode()) + _field(2, feature)
    return _field(1, _field(1, entry))  # Example.features, Features.feature


def _field(number: int, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def _begin(example: bytes) -> int:
    """Where the bytes of `_example` begin: after its feature's name, three tags and sizes."""
    place = example.index(_FEATURE.encode()) + len(_FEATURE)
    for _ in range(3):
        place += 1
        while example[place] > 127:
            place += 1
        place += 1
    return place


def _load(path: epath.Path) -> np.ndarray:
    """Of a local file what is not looked at stays on the disk."""
    local = Path(os.fspath(path))
    if local.is_file():
        return np.load(local, mmap_mode="r", allow_pickle=False)
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False)


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
