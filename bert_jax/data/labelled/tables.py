"""Rows of CSV, TSV, JSON lines and TFDS, by the names of their columns; and the records in them."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.data.labelled.records import (
    ChoiceRecord,
    TextRecord,
    checked,
    near,
    not_empty,
    text_lines,
)
from bert_jax.data.sources.readers import tfds_builder, tfds_examples, tfds_source, tfds_text
from bert_jax.data.sources.reading import MAX_LINE_BYTES
from bert_jax.data.sources.streams import COMPRESSED
from bert_jax.errors import UserError

LABELS = ("class", "number")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Table:
    """Rows with named columns, told apart by the ending of `source`: .csv, .tsv, .jsonl (.ndjson,
    .json), each also packed (.gz, .xz, .zst, .bz2); or tfds:NAME or FOLDER[#SPLIT].

    `quoted`: in CSV and TSV, whether quotation marks hold a field together. GLUE's TSV files are
    not quoted: there a mark is a character as any other. `header`: the names of the columns of a
    CSV or TSV that begins with its first row.
    """

    source: str
    quoted: bool = True
    header: tuple[str, ...] = ()

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        """Of each row its place and its values in `columns`: text in CSV and TSV, else what JSON
        or TFDS has, with classes of TFDS by their names. Streamed.

        Raises UserError for a column that is not there, and for what is no row.
        """
        if tfds := tfds_source(self.source):
            return not_empty(self.source, _tfds_rows(*tfds, columns))
        path = Path(self.source)
        ending = (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix
        if ending in _JSON_LINES:
            return not_empty(path, _json_rows(path, columns))
        if ending not in _DELIMITERS:
            raise UserError(
                f"{path}: what it holds is told by its ending, which must be .csv, .tsv or .jsonl "
                f"(and .gz, .xz, .zst or .bz2 where it is packed); rename it"
            )
        return not_empty(path, self._delimited_rows(path, _DELIMITERS[ending], columns))

    def classes(self, column: str) -> tuple[str, ...]:
        """The names of the column's classes in the order of their ids, where the source declares
        them, as TFDS does; else ()."""
        if not (tfds := tfds_source(self.source)):
            return ()
        features = tfds_builder(tfds[0]).info.features
        return tuple(getattr(features[column], "names", None) or ()) if column in features else ()

    def _delimited_rows(
        self, path: Path, delimiter: str, columns: Sequence[str]
    ) -> Iterator[tuple[str, list[Any]]]:
        found = _fields(path, delimiter, self.quoted)
        first = (f"{path}:1", list(self.header)) if self.header else next(found, None)
        if first is None:
            return
        place, header = first
        if twice := [name for name in columns if header.count(name) > 1]:
            raise UserError(f"{place}: two columns are called {twice[0]!r}; rename one")
        for name in columns:
            if name not in header:
                raise _no_column(place, name, header)
        wanted = [header.index(name) for name in columns]
        for place, row in found:
            if len(row) != len(header):
                mark = "a tab" if delimiter == "\t" else "a comma"
                raise UserError(
                    f"{place}: {len(row)} columns, and {len(header)} are named; mend the row "
                    f"({mark} or a quotation mark too many or too few)"
                )
            yield place, [row[number] for number in wanted]


def read_texts(
    table: Table, texts: Sequence[str], label: str, kind: str = "class"
) -> Iterator[TextRecord]:
    """Records of one text column or two, streamed. `kind`: what the column `label` holds, a
    'class' (a name, or an integer, which becomes one) or a 'number'.

    Raises UserError, which names file and line, for a column that is not there, a text that is
    none, a label that is missing, and a number that is none or not finite.
    """
    if kind not in LABELS or not 1 <= len(texts) <= 2:
        raise ValueError(f"{kind=} {texts=}: one or two texts, and a class or a number")
    read: Callable[[Any, str, str], str | float] = _class if kind == "class" else _number
    for place, (*values, right) in table.rows([*texts, label]):
        found = tuple(
            _text(value, place, column) for value, column in zip(values, texts, strict=True)
        )
        yield TextRecord(found, read(right, place, label), place)


def read_choices(
    table: Table, context: str, choices: Sequence[str], label: str
) -> Iterator[ChoiceRecord]:
    """Records of a context column and a column for each choice, streamed; `label` the column with
    the number of the right one, from 0. Raises UserError as `read_texts`."""
    if len(choices) < 2:
        raise UserError(f"{table.source}: {len(choices)} columns of choices; name two or more")
    for place, (*values, right) in table.rows([context, *choices, label]):
        first, *others = (
            _text(value, place, column)
            for value, column in zip(values, [context, *choices], strict=True)
        )
        name = _class(right, place, label)
        if name not in map(str, range(len(choices))):
            raise UserError(
                f"{place}: {label} is {name!r}, and must be the number of the right choice, 0 to "
                f"{len(choices) - 1}"
            )
        yield ChoiceRecord(first, tuple(others), int(name), place)


def _fields(path: Path, delimiter: str, quoted: bool) -> Iterator[tuple[str, list[str]]]:
    """The fields of each row that is not blank. In quotation marks a field may have several
    lines; the place is of the first."""
    if not quoted:
        for number, line in enumerate(text_lines(path), 1):
            if line := line.rstrip("\r\n"):
                yield f"{path}:{number}", line.split(delimiter)
        return
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(text_lines(path), delimiter=delimiter, strict=True)
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{place}: {error} (quotation marks that do not close?); mend it, or set "
                f"task.quoted=false where they are characters as any other"
            ) from None
        if row is None:
            return
        if delimiter == "\t" and any("\n" in field for field in row):
            raise UserError(
                f"{place}: between quotation marks a field goes on over lines, as no field of a "
                f"TSV does; set task.quoted=false where they are characters as any other"
            )
        if row:
            yield place, row


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    for number, line in enumerate(text_lines(path), 1):
        if line.isspace() or not line:
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: is no JSON ({error}); mend or delete it") from None
        if not isinstance(row, dict):
            raise UserError(f"{place}: is no JSON object; write {{{json.dumps(columns[0])}: ...}}")
        for name in columns:
            if name not in row:
                raise _no_column(place, name, list(row))
        yield place, [row[name] for name in columns]


def _tfds_rows(dataset: str, split: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    builder = tfds_builder(dataset)
    where = f"tfds:{dataset}#{split}"
    features = builder.info.features
    for name in columns:
        if name not in features:
            raise _no_column(where, name, sorted(features))
    classes = {name: getattr(features[name], "names", None) for name in columns}
    for number, example in enumerate(tfds_examples(builder, split, where)):
        place = f"{where}: example {number}"
        yield place, [_plain(example[name], classes[name], place) for name in columns]


def _plain(value: Any, classes: list[str] | None, place: str) -> Any:
    """A value of TFDS as JSON would have it; a class by its name, None for −1 (no label)."""
    if classes is not None:
        return classes[int(value)] if 0 <= int(value) < len(classes) else None
    if isinstance(value, bytes):
        return tfds_text(value, place)
    return value.item() if hasattr(value, "item") and not value.ndim else value


def _text(value: Any, place: str, column: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: the column {column} is no text ({value!r:.40}); mend the row")
    return checked(value, place)


def _class(value: Any, place: str, column: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int) or value == "":
        raise UserError(
            f"{place}: the column {column} has no label ({value!r:.40}); write one, or leave the "
            f"row out"
        )
    if isinstance(value, str) and value != value.strip():
        raise UserError(
            f"{place}: the label {value!r:.40} begins or ends with a blank, and would be a class "
            f"of its own; take it away"
        )
    return checked(str(value), place)


def _number(value: Any, place: str, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{place}: the column {column} is {value!r:.40}, which is no number; mend the row"
        )
    return number


def _no_column(place: str, name: str, names: Sequence[str]) -> UserError:
    return UserError(f"{place}: there is no column {name!r}; {near(name, names)}")
