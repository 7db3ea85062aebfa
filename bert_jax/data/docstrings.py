"""English out of documentation: the prose of a docstring, without code, tables and formulas.

Three dialects at once: reST with numpydoc sections (numpy, scipy), Google sections (jax, flax),
and the older free form of the standard library. By rule: no model, no download, the same result
on every machine. A little English is lost rather than anything else let through.
"""

import inspect
import itertools
import re
from collections.abc import Iterator

from bert_jax.data.sentences import split_sentences

_RULER = re.compile(r"([=\-~^\"'*#+_`:.<>])\1{2,}")
_TABLE_BORDER = re.compile(r"[=\-+|]+[=\-+| ]*[+| ][=\-+| ]*[=\-+|]|\|.*\|")
_DIRECTIVE = re.compile(r"\.\.(?:\s+(?:([\w:-]+?)::)?\s*(.*))?")
# Directives whose body is prose; of every other (math, plot, code-block, ...) it is not.
_PROSE_DIRECTIVES = frozenset(
    "note warning caution important attention tip hint admonition topic deprecated "
    "versionadded versionchanged versionremoved".split()
)
_NUMPY_TERMS = frozenset(
    "parameters;other parameters;returns;yields;receives;raises;warns;attributes;methods".split(";")
)
_DROPPED_SECTIONS = frozenset(("see also", "references", "reference"))
_GOOGLE_HEADER = re.compile(
    r"(Args|Arguments|Parameters|Params|Returns?|Raises|Yields|Attributes|Examples?|Notes?|"
    r"Keyword Args|Kwargs|References?|See [Aa]lso|Usage|Example [Uu]sage):+"
)
_ENTRY = re.compile(r"[`*]{0,2}[\w.\[\], `*]{1,60}?(?:\s*\([^)]*\))?\s*:\s+(?=\S)")
_DASHED = re.compile(r"^[\w.\"'*\[\]]+(?:\([^)]*\))?(?:, [\w.*]+(?:\([^)]*\))?)*\s+-{1,3}\s+(?=\S)")
_FIELD = re.compile(r":\w+(?:\s+[^:]*)?:(?:\s+|$)")
_BULLET = re.compile(r"(?:[-*+•–o]|#\.|\[?\(?(?:\d{1,2}|[a-zA-Z]|i{1,3}|iv)[.)\]])\s+(?=\S)")
_TYPE_LINE = re.compile(r"[`*]{0,3}[\w.]+[`*]*(?:\s*,\s*[`*]*[\w.]+[`*]*)*\s+:(?:\s.*)?")
_TYPE_AND_DEFAULT = re.compile(r"^[^.]{0,80}?\b[Dd]efaults?\s?(?:=|:|to|is)\s?\S+\.\s+(?=[A-Z])")


def prose(docstring: str) -> Iterator[str]:
    """The English paragraphs of a docstring, each unwrapped to one line, markup removed.

    Doctests, code, formulas, tables, headings, citations and the names and types of parameters
    are dropped, and so is any paragraph that does not read like English.
    """
    lines = inspect.cleandoc(docstring).splitlines()
    reader = _Paragraphs()
    for line, following in itertools.pairwise([*lines, ""]):
        reader.read(line, following)
    reader.close()
    for paragraph, is_suspect in reader.done:
        text = _without_markup(paragraph)
        if _is_english(text, is_suspect):
            yield text


class _Paragraphs:
    """Gathers the lines of a docstring into paragraphs, one line at a time."""

    def __init__(self) -> None:
        # (text, is it indented under a line that ends with a colon: likely an example)
        self.done: list[tuple[str, bool]] = []
        self.lines: list[str] = []  # of the open paragraph
        self.indent = 0  # of its last line
        self.colon: int | None = None  # the indent of the last line that ended with a colon
        self.hidden: int | None = None  # what is indented deeper than this is dropped
        self.fence = self.until_blank = False
        self.section, self.section_indent, self.google = "", 0, False
        self.entry_indent: int | None = None
        self.previous = ""  # line

    def close(self) -> None:
        """End the open paragraph."""
        if self.lines and self.section not in _DROPPED_SECTIONS:
            if self.colon is not None and self.indent <= self.colon:
                self.colon = None
            self.done.append((" ".join(self.lines), self.colon is not None))
            if self.colon is None and self.lines[-1].endswith(":"):
                self.colon = self.indent
        self.lines = []

    def read(self, line: str, following: str) -> None:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if self._is_dropped(text, indent):
            self.close()
        elif _RULER.fullmatch(text):
            self._heading(indent)
        elif directive := _DIRECTIVE.fullmatch(text):
            self.close()
            name, argument = directive.groups()
            if name not in _PROSE_DIRECTIVES:
                self.hidden = indent
            elif argument and not name.startswith(("version", "deprecated")):
                self._add(argument, indent)
        elif header := _GOOGLE_HEADER.fullmatch(text):
            self.close()
            self.section, self.section_indent, self.google = header[1].lower(), indent, True
            self.entry_indent = None
        else:
            self._prose(text, indent, is_term=following.startswith(" " * (indent + 1)))
        self.previous = text

    def _is_dropped(self, text: str, indent: int) -> bool:
        """Blank lines, and every line of a region that is not prose."""
        is_fence = text.startswith(("```", "~~~ "))
        self.fence ^= is_fence
        if self.fence or is_fence:
            return True
        if not text:
            self.until_blank = False
            return True
        if self.hidden is not None:
            if indent > self.hidden:
                return True
            self.hidden = None
        if text.startswith((">>>", "In [", "$ ", "% ", "# ")) or "::=" in text:
            self.until_blank = True
        elif _TABLE_BORDER.fullmatch(text):
            self.until_blank, self.lines = True, []
        return self.until_blank

    def _heading(self, indent: int) -> None:
        """The line above a ruler was a heading, even if it was taken for a parameter."""
        self.lines = self.lines[:-1]
        self.close()
        if self.previous:
            self.section, self.section_indent, self.google = self.previous.lower(), indent, False

    def _prose(self, text: str, indent: int, is_term: bool) -> None:
        if self.google and indent <= self.section_indent:
            self.section, self.google = "", False
        if not self.google and self.section in _NUMPY_TERMS and indent <= self.section_indent:
            if is_term or _TYPE_LINE.fullmatch(text) or len(text.split()) < 6:
                self.close()
                return
        if marker := _FIELD.match(text) or _BULLET.match(text) or _DASHED.match(text):
            self.close()
            if marker[0].startswith((":type", ":rtype", ":vartype")):
                self.hidden = indent
                return
            text = _DASHED.sub("", text[marker.end() :])
        elif self.google and indent == (self.entry_indent or indent):
            self.entry_indent = indent
            if entry := _ENTRY.match(text):
                self.close()
                text = text[entry.end() :]
        elif self.lines and (indent < self.indent or indent > self.indent and len(self.lines) > 1):
            self.close()
        # In a definition list the term is no sentence, what follows it is.
        is_term = is_term and not self.lines
        if not (is_term and (_TYPE_LINE.fullmatch(text) or len(text.split()) < 4)):
            self._add(text, indent)

    def _add(self, text: str, indent: int) -> None:
        self.indent = indent
        if text.endswith("::"):
            self.hidden = indent
            text = text[:-1].lstrip(":")
        if text:
            self.lines.append(text)
        if self.hidden is not None:
            self.close()


# Words that no English text goes without, and that no English sentence ends with.
_COMMON = frozenset(
    "the a an of to in is are be and or for with by that if as from on at can will where which "
    "when used has have was should may must than its each all one no into such between this it "
    "not does do".split()
)
_PLAIN_WORD = re.compile(r"[\"'(“‘]*[A-Za-z][a-z’'-]*[\"')”’]*[.,:;?!]*[\"')”’]*")
_LOST = "\ufffc"  # stands where something was that English cannot say
_SIMPLE_FORMULA = re.compile(
    r"(?:\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|pi|rho|sigma|tau|phi|chi|psi|"
    r"omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Omega|times|infty)\b|[\w\s+\-*/=<>(),.^])+"
)
_MARKUP = re.compile(
    r"(?P<footnote>\s?(?<![\w\])])\[[\w.-]+\]_?(?![\w\[(])(?:_|\b|(?=[\s.,;)]|$)))"
    r"|`(?P<quoted>[^`'\s][^`']{0,40})'(?!\w)"
    r"|(?::(?P<role>[\w:]+):)?(?P<ticks>``?)(?P<code>[^`]+)(?P=ticks)_{0,2}"
    r"|\$(?P<tex>[^$\s][^$]*)\$"
    r"|(?<!\w)\*\*(?P<strong>[^*\s][^*]*)\*\*(?!\w)"
    r"|(?<![\w*])\*(?P<emphasis>[^*\s][^*]*)\*(?![\w*])"
    r"|\[(?P<link>[^\]]+)\]\([^)\s]+\)"
    r"|(?P<lost>https?://\S+|%\(\w[\w:]*\)s|\|\w+\|)"
    r"|\\(?P<escaped>\S)|\\ "
)
# "As usual. For example:" whose example has been dropped.
_LEAD_IN = re.compile(r"(?<=[.!?]) [^.!?:]{1,24}:$")
_STRAY = re.compile(r"(?::[\w:]+:)?`+")
_TARGET = re.compile(r"(?<=\S)\s*<[^<>]+>$")


def _unmarked(match: re.Match[str]) -> str:
    kind = match.lastgroup
    content = match[kind] if kind else ""
    if kind == "footnote":
        # "described in [1]." says nothing without its number; "as usual [1]." does.
        before = match.string[: match.start()].rpartition(" ")[2].lower()
        return _LOST if before in _COMMON or before == "see" else ""
    if kind in ("lost", "quoted"):
        return _LOST if kind == "lost" else f"'{content}'"
    if kind == "tex" or match["role"] == "math":
        short = len(content) <= 24 and _SIMPLE_FORMULA.fullmatch(content)
        return content.replace("\\", "") if short else _LOST
    if kind == "code" and match["ticks"] == "`":
        content = _TARGET.sub("", content)
        return content.rpartition(".")[2] if content.startswith("~") else content.lstrip("!")
    return content


def _without_markup(text: str) -> str:
    text = _TYPE_AND_DEFAULT.sub("", _MARKUP.sub(_unmarked, text))
    if _LOST in text:
        text = " ".join(s for s in split_sentences(text) if _LOST not in s)
    text = _LEAD_IN.sub("", " ".join(_STRAY.sub("", text).split())).replace(",.", ".")
    if text.rpartition(" ")[2].lower() in _COMMON:
        # What the last sentence ran on into was a formula or an example, and is gone.
        text = " ".join(split_sentences(text)[:-1])
    return text


def _is_english(text: str, is_suspect: bool) -> bool:
    """By its words: enough of them, mostly plain, some of those no English text goes without."""
    words = text.split()
    if len(words) < 4 or " # " in text:
        return False
    letters = sum(map(str.isalpha, text)) / sum(map(len, words))
    plain = sum(1 for word in words if _PLAIN_WORD.fullmatch(word)) / len(words)
    common = sum(1 for word in words if word.lower() in _COMMON)
    if is_suspect and (common < 2 or not text.endswith((".", ":", "?", "!"))):
        return False
    is_sentence = text.endswith(".") and text[0].isupper()
    return letters >= 0.8 and plain >= 0.65 and common >= len(words) // 12 + (not is_sentence)
