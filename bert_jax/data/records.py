"""Prepared rows on disk: token ids in array_record files, sentence boundaries in an index.

A row is a document, or a part of one that ends at a sentence: at most ROW_TOKENS ids, so that
reading one example never reads a book. Batches of any length are cut from the same rows. A record
is a row, or several short ones together, as each record costs some hundred bytes. To TFDS the
folder is a dataset, of the feature input_ids: tfds.builder_from_directory reads it.
"""

import contextlib
import json
import resource
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from array_record.python import array_record_module
from etils import epath
from jaxtyping import Integer

from bert_jax.data.index import INDEX, load_index
from bert_jax.data.tfds_format import as_example, payload_begin, write_descriptions
from bert_jax.errors import UserError, one_line

FORMAT = 4  # of the folder, and of the rules that fill it; part of the cache's key
ROW_TOKENS = 4096
MANIFEST = "manifest.json"
_RECORD_TOKENS = 1024  # rows are put into one record up to so many
_RECORDS_A_SHARD = 1 << 19  # some gigabytes; an open shard takes 2 to 15 bytes of memory a record
_DATASET = "rows"
_FACTS = {  # of a manifest, that are read
    "vocab_size": int, "dtype": str, "tokenizer_sha256": str, "special_tokens": dict,
    "splits": dict, "shards": dict, "found": dict,
}  # fmt: skip


class SplitWriter:
    """Writes the rows of one split as they come: nothing but a record is kept in memory."""

    def __init__(self, folder: epath.Path, split: str, dtype: np.dtype):
        self._folder, self._split, self._dtype = folder, split, dtype
        self._writer: array_record_module.ArrayRecordWriter | None = None
        self._files: dict[str, IO[bytes]] = {}
        self._counts = dict.fromkeys(INDEX, 0)
        self._record: list[np.ndarray] = []  # rows of the next record
        self._tokens = self._sentences = 0  # in it
        self._document = -1  # of the last row
        for name in INDEX:
            self._files[name] = (folder / f"{split}-{name}.npy").open("wb")
            self._write_header(name)

    def _write_header(self, name: str) -> None:
        """With the count as it is: NumPy leaves room for a larger one in the same place."""
        header = {"descr": INDEX[name], "fortran_order": False, "shape": (self._counts[name],)}
        np.lib.format.write_array_header_1_0(self._files[name], header)

    def add(
        self,
        rows: Sequence[np.ndarray],
        sentence_lengths: Integer[np.ndarray, "sentences"],
        row_sentences: Integer[np.ndarray, "rows"],
        documents: Integer[np.ndarray, "rows"],
    ) -> None:
        """`row_sentences[r]` counts the sentences of row r, `documents[r]` is its document, by
        any number that the one before does not have."""
        if not rows:
            return
        begins = (np.diff(documents, prepend=self._document) != 0).astype(int)
        self._document = int(documents[-1])
        self._append("lengths", sentence_lengths)
        self._append("row_sentences", row_sentences)
        self._append("begins", begins)
        for row, sentences in zip(rows, row_sentences.tolist(), strict=True):
            if self._tokens + len(row) > _RECORD_TOKENS:
                self._write_record()
            self._record.append(row)
            self._tokens += len(row)
            self._sentences += sentences

    def _append(self, name: str, values: Integer[np.ndarray, "n"]) -> None:
        self._files[name].write(values.astype(INDEX[name]).tobytes())
        self._counts[name] += len(values)

    def _write_record(self) -> None:
        if not self._record:
            return
        number, inside = divmod(self._counts["record_sentences"], _RECORDS_A_SHARD)
        if inside == 0:
            self._close_shard()
            path = self._folder / f"{self._split}-{number}.unnamed"
            self._writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        assert self._writer is not None
        tokens = np.concatenate(self._record).astype(self._dtype, copy=False)
        with _writing(self._folder):
            self._writer.write(as_example(tokens.tobytes()))
        self._append("record_sentences", np.array([self._sentences]))
        self._record, self._tokens, self._sentences = [], 0, 0

    def _close_shard(self) -> None:
        if self._writer is not None:
            with _writing(self._folder):
                self._writer.close()
            self._writer = None

    def close(self) -> int:
        """How many records there are."""
        self._write_record()
        self._close_shard()
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)
            file.close()
        records = self._counts["record_sentences"]
        for number, path in enumerate(_shards(self._folder, self._split, records)):
            (self._folder / f"{self._split}-{number}.unnamed").rename(path)
        return records


class Rows:
    """The rows of one split, by number. Pickles (to loader processes) as its path."""

    def __init__(self, folder: epath.PathLike, split: str):
        self.folder, self.split = epath.Path(folder), split
        manifest = read_manifest(self.folder)
        self._dtype = np.dtype(manifest["dtype"])
        self._open: OrderedDict[int, array_record_module.ArrayRecordReader] = OrderedDict()
        try:
            counts = manifest["splits"][split]
            self.index = load_index(self.folder, split, counts)
            self._shards = _shards(self.folder, split, counts["records"])
            for path in self._shards:
                if path.stat().length != manifest["shards"][path.name]:
                    raise ValueError(f"{path.name} was cut off, or is another file")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder}: the prepared corpus is damaged ({error}); delete the folder "
                f"and prepare it again"
            ) from error

    def __len__(self) -> int:
        return len(self.index.row_sentences)

    def __reduce__(self):
        return Rows, (str(self.folder), self.split)

    def read(self, rows: Integer[np.ndarray, "n"]) -> list[Integer[np.ndarray, "_"]]:
        """The ids of each row."""
        index = self.index
        first, last = index.rows[rows], index.rows[rows + 1]
        numbers, places = np.unique(index.records.piece_at(first), return_inverse=True)
        before = index.sentences[index.records[numbers]][places]
        records = self.records(numbers)
        begins, ends = index.sentences[first] - before, index.sentences[last] - before
        return [
            records[place][begin:end]
            for place, begin, end in zip(places.tolist(), begins, ends, strict=True)
        ]

    def records(self, numbers: Integer[np.ndarray, "n"]) -> list[Integer[np.ndarray, "_"]]:
        """The ids of each record, which are those of its rows, one after the other."""
        shards = numbers // _RECORDS_A_SHARD
        out: list[np.ndarray] = [np.empty(0)] * len(numbers)
        for shard in np.unique(shards).tolist():
            (places,) = np.nonzero(shards == shard)
            try:
                payloads = self._reader(shard).read((numbers[places] % _RECORDS_A_SHARD).tolist())
            except Exception as error:  # the extension raises RuntimeError and its own kinds
                raise _damaged(self._shards[shard], error) from error
            for place, payload in zip(places, payloads, strict=True):
                out[place] = np.frombuffer(payload, self._dtype, offset=payload_begin(payload))
        return out

    def _reader(self, shard: int) -> array_record_module.ArrayRecordReader:
        """Opened when it is asked for; those that were asked for last stay open."""
        if shard not in self._open:
            while len(self._open) >= _most_open():
                self._open.popitem(last=False)[1].close()
            self._open[shard] = array_record_module.ArrayRecordReader(str(self._shards[shard]))
        self._open.move_to_end(shard)
        return self._open[shard]


def _most_open() -> int:
    """Half of the files that this process may have open."""
    return max(1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16) // 2)


def _damaged(path: epath.Path, error: Exception) -> UserError:
    reason = one_line(error, 200)
    if "Too many open files" in str(error):
        return UserError(f"{path}: cannot be opened ({reason}); allow more, with ulimit -n 4096")
    return UserError(f"{path}: cannot be read ({reason}); delete the folder and prepare it again")


@contextlib.contextmanager
def _writing(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{folder}: rows cannot be written ({one_line(error, 200)}); make room and start again"
        ) from error


def _shards(folder: epath.Path, split: str, records: int) -> list[epath.Path]:
    """Under the names that TFDS has for them."""
    count = -(-records // _RECORDS_A_SHARD)
    return [
        folder / f"{_DATASET}-{split}.array_record-{number:05d}-of-{count:05d}"
        for number in range(count)
    ]


def shard_sizes(folder: epath.Path, records: dict[str, int]) -> dict[str, int]:
    """Bytes of each shard, by its name; `records` are those of each split."""
    return {
        path.name: path.stat().length
        for split, count in records.items()
        for path in _shards(folder, split, count)
    }


def describe_to_tfds(folder: epath.Path, dtype: np.dtype, records: dict[str, int]) -> None:
    """Write TFDS's two files beside the shards; `records` are those of each split."""
    splits = {}
    for split, count in records.items():
        full, rest = divmod(count, _RECORDS_A_SHARD)
        lengths = [_RECORDS_A_SHARD] * full + [rest] * (rest > 0)
        splits[split] = lengths, sum(shard_sizes(folder, {split: count}).values())
    write_descriptions(folder, _DATASET, dtype, splits)


def read_manifest(folder: epath.PathLike) -> dict:
    """Raises UserError where the folder is no prepared corpus; a manifest is written last."""
    path = epath.Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: not a prepared corpus (no readable {MANIFEST}); make one with "
            f"python -m bert_jax.prepare --output={folder}"
        ) from error
    if found != FORMAT:
        raise UserError(f"{folder}: prepared in format {found}, this is {FORMAT}; prepare it again")
    wrong = [name for name, kind in _FACTS.items() if not isinstance(manifest.get(name), kind)]
    if not wrong and manifest["dtype"] != token_dtype(manifest["vocab_size"]).str:
        wrong = ["dtype"]
    if wrong:
        raise UserError(f"{path}: {wrong[0]} was changed; bring the file back, or prepare it again")
    return manifest


def token_dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2") if vocab_size <= 65536 else np.dtype("<u4")
