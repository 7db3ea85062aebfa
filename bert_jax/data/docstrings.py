"""The paragraphs of a docstring, without code, tables and rulers.

By rule, for reST with numpydoc sections (numpy, scipy), Google sections (jax) and the free form
of the standard library: the same result on every machine.
"""

import inspect
import re
from collections.abc import Iterator

_RULER = re.compile(r"([^\w\s])\1{2,}")
_TABLE = re.compile(r"[=-]+(?: +[=-]+)+|[+|].*[+|]")  # a border, or a row between bars
_DIRECTIVE = re.compile(r"\.\.(?: +([\w:-]+)::)?(?: +(.*))?")
# Directives that hold prose; of every other (math, plot, code-block, ...) the body is dropped.
_PROSE = frozenset("note warning caution important tip hint seealso deprecated".split())
_CODE = (">>>", "In [", "$ ", "::=")
_TERM = re.compile(r"[\w*`., ]+ : .+")  # numpydoc's "name : type"
_MARKUP = (
    (re.compile(r"\s?\[[\w.-]+\]_"), ""),  # citations
    (re.compile(r":[\w:]+:(?=`)"), ""),  # roles
    (re.compile(r"``?~?([^`]*?)(?: <[^`>]+>)?``?_{0,2}"), r"\1"),
    (re.compile(r"^[-*•] +"), ""),
    (re.compile(r"(?<!\w)\*{1,2}([^*\s][^*]*)\*{1,2}(?!\w)"), r"\1"),
    (re.compile(r"\s+"), " "),
)


def prose(docstring: str) -> Iterator[str]:
    """Paragraphs, each unwrapped to one line, markup removed.

    Doctests, literal and fenced code, formulas set apart, tables, rulers and headings are
    dropped. A parameter's "name : type" stays, as the first sentence of its description.
    """
    for lines in _paragraphs(inspect.cleandoc(docstring.expandtabs()).splitlines()):
        text = " ".join(lines)
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
        text = text.strip()
        letters = sum(map(str.isalpha, text))
        if len(text.split()) >= 4 and letters >= 0.6 * len(text.replace(" ", "")):
            yield text


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Lines that belong together: up to a blank line, or to where an indented part ends."""
    open_lines: list[str] = []
    last = 0  # indent of the line before
    hidden: int | None = None  # what is indented deeper than this is dropped
    until_blank = fenced = False
    for line in [*lines, ""]:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if text.startswith("```"):
            fenced = not fenced
            continue
        if not text:
            until_blank = False
        if hidden is not None and text and indent <= hidden:
            hidden = None
        if fenced or until_blank or hidden is not None:
            text = ""
        elif directive := _DIRECTIVE.fullmatch(text):
            hidden = None if directive[1] in _PROSE else indent
            text = directive[2] or "" if directive[1] in _PROSE else ""
        elif text.startswith(_CODE) or " ::= " in text or _TABLE.fullmatch(text):
            until_blank, text = True, ""
        elif text and _RULER.fullmatch(text):
            open_lines, text = open_lines[:-1], ""  # the line above it was a heading
        if open_lines and (not text or indent < last):
            yield open_lines
            open_lines = []
        last = indent
        if text.endswith("::"):
            hidden, text = indent, text[:-1]
        if text:
            is_term = not open_lines and _TERM.fullmatch(text) and not text.endswith(".")
            open_lines.append(text + "." if is_term else text)
