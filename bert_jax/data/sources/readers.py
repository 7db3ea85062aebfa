"""Files and TFDS datasets to documents, streamed. A document's name is its file's and a number."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.data.sources.reading import (
    MAX_CHARACTERS,
    Cleaning,
    Document,
    lines,
    reading,
)
from bert_jax.errors import UserError, one_line

_BATCH = 256  # records that are read together
_TFDS = re.compile(r"tfds:(.+?)(?:#([\w.-]+))?", re.DOTALL)

Reader = Callable[[Path, str, str, Cleaning], Iterator[Document]]


def plain_text(path: Path, name: str, column: str, cleaning: Cleaning) -> Iterator[Document]:
    """Each line a sentence or a paragraph, a blank line between two documents."""
    number, part, size = 0, 0, 0
    paragraphs: list[str] = []
    skipped = False
    offset = 0
    bad: set[int] | None = None  # documents to skip, found when the first comes in parts

    def document(more: bool) -> Document:
        return Document(f"{name}:{number}", tuple(paragraphs), part if part or more else None)

    for line_number, line in enumerate(lines(path), 1):
        at = f"{path}: not UTF-8 at line {line_number}, byte {{byte}}"
        codec = "utf-8-sig" if line_number == 1 else "utf-8"
        text = cleaning.decode(line, at, codec, offset)
        offset += len(line)
        if text is None:
            skipped = True
        elif not text or text.isspace():
            if paragraphs and not skipped:
                yield document(more=False)
            number += bool(paragraphs) or skipped
            paragraphs, part, size, skipped = [], 0, 0, False
        elif not skipped:
            if size > MAX_CHARACTERS:
                if cleaning.invalid_utf8 == "skip" and bad is None:
                    bad = _invalid(path)
                if bad and number in bad:
                    skipped = True
                    continue
                yield document(more=True)
                paragraphs, part, size = [], part + 1, 0
            paragraphs.append(text)
            size += len(text)
    if paragraphs and not skipped:
        yield document(more=False)


def _invalid(path: Path) -> set[int]:
    """Numbers of the documents of a text in which there is a line that is not UTF-8."""
    found, number, begun = set(), 0, False
    for line_number, line in enumerate(lines(path), 1):
        try:
            text = line.decode("utf-8-sig" if line_number == 1 else "utf-8").replace("\0", " ")
        except UnicodeDecodeError:
            found.add(number)
            text = "not blank"
        blank = not text or text.isspace()
        number += begun and blank
        begun = not blank
    return found


def json_lines(path: Path, name: str, column: str, cleaning: Cleaning) -> Iterator[Document]:
    """A JSON object a line, of whose field `column` is the text. Blank lines are passed over."""
    number = -1
    for line_number, line in enumerate(lines(path), 1):
        if line.isspace():
            continue
        number += 1
        at = f"{path}: line {line_number}"
        place = f"{path}: not UTF-8 at line {line_number}, byte {{byte}}"
        decoded = cleaning.decode(line, place)
        if decoded is None:
            continue
        try:
            record = json.loads(decoded.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{at}: is no JSON ({error}); mend or delete it") from None
        text = _field(record, column, at)
        if not text.isascii():  # "\ud800" is JSON, but no text
            raw = text.encode("utf-8", "surrogatepass")
            cleaned = cleaning.decode(raw, f"{at}: not Unicode, half a surrogate pair")
        else:
            cleaned = cleaning.without_nul(text)
        yield from cleaning.document(f"{name}:{number}", cleaned)


def parquet(path: Path, name: str, column: str, cleaning: Cleaning) -> Iterator[Document]:
    """A row a document, of whose string column `column` is the text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with reading(path), pq.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise _no_column(str(path), column, names)
            kind = file.schema_arrow.field(column).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            kinds = (
                pa.string(), pa.large_string(), pa.string_view(),
                pa.binary(), pa.large_binary(), pa.binary_view(),
            )  # fmt: skip
            if kind not in kinds:
                raise UserError(f"{path}: column {column} holds {kind}, no text; name another")
            for batch in file.iter_batches(_BATCH, columns=[column]):
                for raw in batch.column(0).cast(pa.large_binary()).to_pylist():
                    yield from _record(raw, f"{path}: row {number}", f"{name}:{number}", cleaning)
                    number += 1
    except pa.ArrowException as error:
        reason = one_line(error, 200)
        raise UserError(f"{path}: damaged Parquet file ({reason}); fetch it again") from None


def tfds_source(source: str) -> tuple[str, str] | None:
    """Dataset and split of tfds:DATASET[#SPLIT], train where none is named; None for others."""
    match = _TFDS.fullmatch(source)
    return match and (match[1], match[2] or "train")


def tfds_builder(dataset: str) -> Any:
    """TFDS's builder of a dataset that is prepared: a folder, or a name that it finds."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"tfds:{dataset}: {error}; pip install tensorflow-datasets (no TensorFlow)"
        ) from None
    try:
        if Path(dataset).is_dir():
            return tfds.builder_from_directory(dataset)
        return tfds.builder(dataset, try_gcs=False)
    except Exception as error:  # of many kinds, TFDS's own among them
        reason = one_line(error, 200)
        raise UserError(
            f"tfds:{dataset}: no dataset that is prepared here ({reason}); name the folder "
            f"with its dataset_info.json, or set TFDS_DATA_DIR"
        ) from None


def tfds_examples(builder: Any, split: str, where: str) -> Iterator[dict[str, Any]]:
    """The examples of a split in order, read a few hundred at once."""
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits) or "none that is prepared"
        raise UserError(f"{where}: no such split; there are {known}")
    try:
        source = builder.as_data_source(split=split)
        for start in range(0, len(source), _BATCH):
            yield from source.__getitems__(list(range(start, min(start + _BATCH, len(source)))))
    except (RuntimeError, OSError, NotImplementedError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"{where}: cannot be read ({reason}); prepare it again, with file_format=array_record"
        ) from None


def tfds_text(value: bytes | str, place: str) -> str:
    """Raises UserError, which names the place, for what is not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not UTF-8 at byte {error.start}; prepare the dataset again"
        ) from None


def tfds_split(
    builder: Any, split: str, name: str, column: str, cleaning: Cleaning
) -> Iterator[Document]:
    """An example a document, of whose text feature `column` is the text."""
    where = f"tfds:{name}#{split}"
    if column not in builder.info.features:
        raise _no_column(where, column, sorted(builder.info.features))
    for number, record in enumerate(tfds_examples(builder, split, where)):
        raw = record[column]
        if not isinstance(raw, bytes | str):
            raise UserError(f"{where}: feature {column} is no text; name another")
        raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        yield from _record(raw, f"{where}: example {number}", f"{name}:{number}", cleaning)


READERS: dict[str, Reader] = {"text": plain_text, "jsonl": json_lines, "parquet": parquet}


def _record(raw: bytes | None, at: str, name: str, cleaning: Cleaning) -> Iterator[Document]:
    text = cleaning.decode(raw or b"", f"{at}: not UTF-8 at byte {{byte}}")
    yield from cleaning.document(name, text)


def _field(record: Any, column: str, at: str) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{at}: is no JSON object; write {{{json.dumps(column)}: ...}}")
    if column not in record:
        raise _no_column(at, column, list(record))
    if not isinstance(text := record[column] or "", str):
        raise UserError(f"{at}: the field {column} is no text; name another, as FILE@FIELD")
    return text


def _no_column(where: str, column: str, names: list[str]) -> UserError:
    return UserError(
        f"{where}: there is no {column!r}, but {', '.join(map(str, names[:9]))}; name the text as "
        f"SOURCE@NAME"
    )
