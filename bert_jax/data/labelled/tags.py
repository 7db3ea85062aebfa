"""CoNLL files: a word and its tag on a line, a blank line after each sentence."""

from collections.abc import Iterator
from pathlib import Path

from bert_jax.data.labelled.records import TagRecord, not_empty, text_lines
from bert_jax.errors import UserError

# What may follow an entity's prefix, within the entity; and which of them end it.
_INNER = {"bio": "I", "bilou": "IL"}
_OPENING = {"bio": "B", "bilou": "BU"}
_OPEN = {"bio": "", "bilou": "BI"}  # it must go on after these
SCHEMES = (*_INNER, "none")


def read_tags(
    path: Path | str, tag: int = -1, word: int = 0, scheme: str = "bio"
) -> Iterator[TagRecord]:
    """The sentences of a file, streamed. Columns are parted by a tab or, in a line without one,
    by blanks; `word` and `tag` number them from 0, or from the end with −1. Lines -DOCSTART- are
    passed over.

    `scheme`: 'bio' (Ramshaw and Marcus 1995, IOB2: every entity begins with B), 'bilou' (Ratinov
    and Roth 2009), or 'none' (any tags, such as parts of speech).

    Raises UserError, which names file and line, for a column that is not there or empty, lines of
    another number of columns than the first, and tags that break the scheme.
    """
    if scheme not in SCHEMES:
        raise UserError(f"scheme={scheme!r}: must be one of {', '.join(SCHEMES)}")
    path = Path(path)
    return not_empty(path, _sentences(path, tag, word, scheme))


def _sentences(path: Path, tag: int, word: int, scheme: str) -> Iterator[TagRecord]:
    words: list[str] = []
    tags: list[str] = []
    expected = number = 0

    def sentence() -> TagRecord:
        record = TagRecord(tuple(words), tuple(tags), str(path), number - len(words))
        if scheme != "none":
            check_tags(record, scheme)
        return record

    for number, line in enumerate(text_lines(path), 1):
        columns = _columns(line)
        if not columns or columns[0] == "-DOCSTART-":
            if words:
                yield sentence()
            words, tags = [], []
            continue
        place = f"{path}:{number}"
        if len(columns) != (expected := expected or len(columns)):
            raise UserError(
                f"{place}: {len(columns)} columns, and the lines before have {expected}; mend the "
                f"line"
            )
        words.append(_column(columns, word, "word", place))
        tags.append(_column(columns, tag, "tag", place))
    if words:
        number += 1  # a blank line that is not there
        yield sentence()


def check_tags(record: TagRecord, scheme: str) -> None:
    """Raises UserError, which names the line, for the first tag that breaks the scheme."""
    before, kind = "O", ""  # prefix and type of the tag before
    for number, tag in enumerate((*(record.tags or ()), "O")):
        prefix, dash, mine = tag.partition("-")
        inner = prefix in _INNER[scheme]
        if tag == "O":
            mine = ""
        elif not (dash and mine and len(prefix) == 1 and (inner or prefix in _OPENING[scheme])):
            prefixes = ", ".join(f"{p}-TYPE" for p in _OPENING[scheme] + _INNER[scheme])
            raise UserError(
                f"{record.place_of(number)}: {tag!r} is no tag of {scheme.upper()}; write O, "
                f"{prefixes}"
            )
        previous = f"{before}-{kind}" if kind else before
        goes_on = mine == kind and before in (_OPEN[scheme] or "BI")
        if inner and not goes_on:
            raise UserError(
                f"{record.place_of(number)}: {tag} cannot follow "
                f"{previous if number else 'the beginning of a sentence'}; an entity begins with "
                f"{_OPENING[scheme][0]}-{mine} (in files of the older IOB1 it need not: convert "
                f"them first)"
            )
        if before in _OPEN[scheme] and kind and not (inner and goes_on):
            raise UserError(
                f"{record.place_of(number - 1)}: {previous} must be followed by I-{kind} or "
                f"L-{kind}; an entity of one word is U-{kind}"
            )
        before, kind = prefix, mine


def _columns(line: str) -> list[str]:
    if line.isspace():
        return []
    line = line.rstrip("\r\n")
    return line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]


def _column(columns: list[str], number: int, name: str, place: str) -> str:
    if not -len(columns) <= number < len(columns):
        raise UserError(
            f"{place}: there is no column {number} for the {name}; there are {len(columns)}, "
            f"numbered from 0"
        )
    if not (found := columns[number].strip()):
        raise UserError(f"{place}: the {name} is empty; mend the line")
    return found
