"""Lines of stdin or the command line, in chunks as large as they come."""

import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax.data.labelled.records import checked, near
from bert_jax.errors import UserError

# What is looked ahead: enough to make full batches of every length, and no more memory than that.
LINES, CHARACTERS = 512, 1 << 20
_LONGEST = 1 << 24  # bytes of a line; a longer one is surely no text
_BLOCK = 1 << 16


class Line(NamedTuple):
    text: str
    place: str  # stdin:7, or argument 1


def arguments(texts: Sequence[str]) -> list[Line]:
    """What the shell gave; a byte that is no text is no reason to stop."""
    return [
        Line(text.encode(errors="replace").decode(), f"argument {number}")
        for number, text in enumerate(texts, 1)
    ]


def stdin_chunks(descriptor: int) -> Iterator[list[Line]]:
    """The lines of a file or pipe without their ends, in order. A chunk is what can be had without
    waiting, up to the limits: who types a line gets its answer, and a file comes in large chunks.

    Raises UserError for a line that is too long.
    """
    number, rest, chunk, size, open_ = 0, bytearray(), list[Line](), 0, True
    while open_:
        if chunk and not select.select([descriptor], [], [], 0)[0]:
            yield chunk
            chunk, size = [], 0
        block = _read(descriptor)
        open_ = bool(block)
        if not open_ and rest:
            block = b"\n"  # that of a last line without an end
        first, *others = block.split(b"\n")
        rest += first
        if len(rest) > _LONGEST:
            raise UserError(
                f"stdin:{number + 1}: longer than {_LONGEST} bytes; part the text by line ends"
            )
        for other in others:
            number += 1
            text = _text(bytes(rest), number).removesuffix("\r")
            chunk.append(Line(text.removeprefix("\ufeff") if number == 1 else text,
                              f"stdin:{number}"))  # fmt: skip
            size += len(text)
            rest = bytearray(other)
            if len(chunk) == LINES or size >= CHARACTERS:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        print(
            f"note: stdin:{number}: is not UTF-8 at byte {error.start + 1}; U+FFFD stands for what "
            f"cannot be read",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return line.decode(errors="replace")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _BLOCK)
    except OSError as error:
        raise UserError(
            f"stdin: cannot be read ({error.strerror}); give the texts there or as arguments"
        ) from error


def json_fields(
    line: Line, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """The object that a line is. Raises UserError, which names the line, where it is none, lacks a
    field, or has one that nothing reads."""
    form = "{" + ", ".join(f'"{name}": ...' for name in required) + "}"
    try:
        values = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{line.place}: is no JSON ({error}); write {form} in a line") from None
    if not isinstance(values, dict):
        raise UserError(f"{line.place}: is no JSON object; write {form}")
    for name in required:
        if name not in values:
            raise UserError(f"{line.place}: there is no {name!r}; {near(name, list(values))}")
    known = [*required, *optional]
    for name in values:
        if name not in known:
            raise UserError(f"{line.place}: {name!r} is not read here; {near(name, known)}")
    return values


def text_of(value: Any, name: str, line: Line) -> str:
    """Raises UserError, which names the line, where the field is no text."""
    if not isinstance(value, str):
        raise UserError(f"{line.place}: {name!r} is no text ({value!r:.40}); mend it")
    return checked(value, line.place)


def texts_of(value: Any, name: str, line: Line, allowed: Callable[[int], bool]) -> tuple[str, ...]:
    """As `text_of`, of a list of texts, of which there may be so many as are allowed."""
    if not isinstance(value, list) or not allowed(len(value)):
        raise UserError(f"{line.place}: {name!r} is {value!r:.40}; see --help for what it must be")
    return tuple(text_of(one, name, line) for one in value)


def read_text(line: Line, as_json: bool, pairs: bool = True) -> tuple[str, ...]:
    """The line as a text or, `as_json`, {"text": ...} or a pair, {"texts": [..., ...]}."""
    if not as_json:
        return (line.text,)
    if not pairs:
        return (text_of(json_fields(line, ["text"])["text"], "text", line),)
    values = json_fields(line, [], ["text", "texts"])
    if len(values) != 1:
        raise UserError(f'{line.place}: write {{"text": ...}} or {{"texts": [..., ...]}}')
    if "text" in values:
        return (text_of(values["text"], "text", line),)
    return texts_of(values["texts"], "texts", line, lambda count: count == 2)


def shown(texts: tuple[str, ...]) -> dict[str, Any]:
    """What an answer repeats of its request."""
    return {"text": texts[0]} if len(texts) == 1 else {"texts": list(texts)}
