"""What labelled files hold, one frozen record an example, and lines as all readers take them.

Every record knows its place, 'file:line', so that a mistake found later still names it.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert_jax.data.sources.reading import lines
from bert_jax.errors import UserError


@dataclass(frozen=True, slots=True)
class TextRecord:
    """One text or two. `label`: a class's name, or a number (regression)."""

    texts: tuple[str, ...]
    label: str | float
    place: str


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A sentence. `tags`: one a word, or None (prediction). `line`: of its first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    path: str
    line: int

    @property
    def place(self) -> str:
        return self.place_of(0)

    def place_of(self, word: int) -> str:
        return f"{self.path}:{self.line + word}"


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """`text` stands in the context from character `start` on."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """A question about a context. `answers`: all that count as right, () where there is none
    (SQuAD 2.0), None where nothing is said (prediction)."""

    id: str
    question: str
    context: str
    answers: tuple[AnswerSpan, ...] | None
    place: str


@dataclass(frozen=True, slots=True)
class ChoiceRecord:
    """A context and what may follow it. `label`: which choice is right."""

    context: str
    choices: tuple[str, ...]
    label: int
    place: str


def not_empty[Record](path: object, records: Iterable[Record]) -> Iterator[Record]:
    """The same records. Raises UserError at the end of none."""
    found = False
    for record in records:
        found = True
        yield record
    if not found:
        raise UserError(f"{path}: is empty; name a file with at least one example")


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a file as text with their ends, decompressed by its ending.

    Raises UserError, which names the line, for what is not UTF-8 or has a NUL.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file; name a file with labelled examples")
    for number, raw in enumerate(lines(path), 1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}:{number}: not UTF-8 at byte {error.start} of the line; convert it first, "
                f"for example with iconv -t UTF-8"
            ) from None
        yield checked(text, f"{path}:{number}")


def checked(text: str, place: str) -> str:
    """The text. Raises UserError where a character is none: a NUL, or half a surrogate pair, as
    JSON can write them. They are not replaced, since places in a text are counted."""
    if "\0" in text:
        raise UserError(f"{place}: a NUL character, which no text has; take it out")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place}: half a surrogate pair, which is no text; mend it") from None
    return text


def near(name: str, names: Sequence[str]) -> str:
    """What there is, and which of it may be meant."""
    shown = ", ".join(names[:9]) + (", ..." if len(names) > 9 else "")
    close = difflib.get_close_matches(name, names, n=1)
    return f"there are {shown or 'none'}" + (f"; did you mean {close[0]}?" if close else "")
