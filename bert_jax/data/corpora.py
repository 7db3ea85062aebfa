"""Where text comes from: documents of paragraphs of sentences, in a fixed order.

Two sources. `installed-docs` is real English on every machine that can run this project, with
no download: Python's language reference and the docstrings of the standard library and of the
required packages. It is read from their source files; nothing is imported or executed. A path
is a plain text file of the user's own.
"""

import ast
import contextlib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import itertools
import lzma
import os
import platform
import stat
import sysconfig
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.data.docstrings import prose
from bert_jax.data.sentences import split_sentences
from bert_jax.errors import UserError

INSTALLED_DOCS = "installed-docs"
# Part of every fingerprint: raise it when a rule here, in docstrings.py or sentences.py changes.
EXTRACTION = 1
# Whose docstrings are read beside the standard library's: folder and distribution.
PACKAGES = {
    "flax": "flax",
    "grain": "grain",
    "jax": "jax",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "scipy": "scipy",
}
# Tests (jax keeps megabytes of serialised programs among its own) and what belongs to others.
_SKIPPED_FOLDERS = frozenset(
    "test tests idle_test internal_test_util site-packages dist-packages __pycache__".split()
)
MIN_SENTENCES = 2
MIN_CHARACTERS = 200
# A line of a plain text file is held in memory whole; a longer one is surely not text.
MAX_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Document:
    """`paragraphs[p][s]` is sentence s of paragraph p; neither level is empty."""

    name: str
    paragraphs: tuple[tuple[str, ...], ...]


def documents(source: str) -> Iterator[Document]:
    """The documents of `installed-docs` or of the plain text file at that path.

    The first document is read at once, so a source that cannot be read, or holds no document,
    raises UserError here and not in the caller's loop.
    """
    found = installed_docs() if source == INSTALLED_DOCS else plain_text(source)
    first = next(found, None)
    if first is None:
        raise UserError(f"{source}: no text in it; give a file with one sentence a line")
    return itertools.chain([first], found)


def fingerprint(source: str) -> dict[str, Any]:
    """What `documents(source)` is a function of: equal fingerprints, equal documents.

    Raises UserError where the source cannot be read.
    """
    if source == INSTALLED_DOCS:
        # Versions alone do not say it: distributions leave modules out, or add some.
        sizes = [f"{name} {path.stat().st_size}" for name, path in sorted(_sources().items())]
        modules = hashlib.sha256("\n".join(sizes).encode()).hexdigest()
        decides: dict[str, Any] = {"versions": installed_docs_versions(), "modules": modules}
    else:
        path = _regular_file(source)
        with _reading(path), open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # The name is a part of every document's name, which decides what is held out.
        decides = {"name": path.name, "sha256": digest, "bytes": path.stat().st_size}
    return decides | {"extraction": EXTRACTION}


def held_out(name: str, fraction: float) -> bool:
    """Whether the document of that name is kept from training: about `fraction` of all names.

    A property of the name alone, so it survives any change to the other documents and their
    order, and what is held out at one fraction is held out at every larger one.
    """
    leading = hashlib.sha256(name.encode()).digest()[:8]
    return int.from_bytes(leading, "big") < fraction * 2**64


# Plain text.


def plain_text(path: str | os.PathLike[str]) -> Iterator[Document]:
    """Documents of a UTF-8 file: each line a sentence or a paragraph, a blank line between two.

    A document's name is the file's name and its place from 0 ("wiki.txt:0"). Names ending in
    .gz and .xz are decompressed. The file is streamed. Raises UserError, while iterating, for
    what cannot be read or is not UTF-8.
    """
    file_path = _regular_file(path)
    ordinal = 0
    paragraphs: list[tuple[str, ...]] = []
    for line in itertools.chain(_lines(file_path), [""]):
        sentences = tuple(split_sentences(line))
        if sentences:
            paragraphs.append(sentences)
        elif paragraphs:
            yield Document(f"{file_path.name}:{ordinal}", tuple(paragraphs))
            ordinal += 1
            paragraphs = []


def _lines(path: Path) -> Iterator[str]:
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    with _reading(path), openers.get(path.suffix, open)(path, "rb") as file:
        offset = 0
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES)
            if not line:
                return
            if len(line) == MAX_LINE_BYTES:
                raise UserError(
                    f"{path}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; "
                    "put one sentence or paragraph on a line"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: not UTF-8 at line {number}, byte {offset + error.start}; "
                    "convert it first, for example with iconv -t UTF-8"
                ) from None
            offset += len(line)
            yield text


def _regular_file(path: str | os.PathLike[str]) -> Path:
    """Only a regular file can be read twice: once for its fingerprint, once for its text."""
    path = Path(path)
    with _reading(path):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; give one text file, for example made with cat")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is not a regular file; write the text to a file first")
    return path


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while reading `path` into one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give a text file's path or {INSTALLED_DOCS!r}"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged {path.suffix} file ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); mend that or give another file"
        ) from None


# Installed documentation.


def installed_docs_versions() -> dict[str, str]:
    """The versions that `installed_docs()` is a function of; UserError where one is missing."""
    versions = {"python": platform.python_version()}
    for package, distribution in PACKAGES.items():
        try:
            versions[package] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            raise _not_installed(package) from None
    return versions


def installed_docs() -> Iterator[Document]:
    """One document a topic of the language reference and a module, sorted by name.

    A paragraph is kept where it occurs first and dropped everywhere else, compared by letters
    and digits alone: these packages repeat one another's paragraphs by the hundred, and one
    that stands in both a training and a held-out document would be learned by heart. Documents
    left with under MIN_SENTENCES sentences or MIN_CHARACTERS characters are dropped.
    """
    sources = _sources()
    texts: dict[str, list[str] | Path] = dict(sources)
    texts.update((f"topic {name}", [text]) for name, text in _topics().items())

    seen: set[str] = set()
    for name in sorted(texts):
        text = texts[name]
        docstrings = list(_docstrings(text)) if isinstance(text, Path) else text
        fresh: dict[str, tuple[str, ...]] = {}
        for paragraph in itertools.chain.from_iterable(map(prose, docstrings)):
            key = "".join(filter(str.isalnum, paragraph.lower()))
            if key not in seen and key not in fresh:
                fresh[key] = tuple(split_sentences(paragraph))
        sentences = [sentence for paragraph in fresh.values() for sentence in paragraph]
        if len(sentences) >= MIN_SENTENCES and sum(map(len, sentences)) >= MIN_CHARACTERS:
            seen.update(fresh)
            yield Document(name, tuple(fresh.values()))


def _sources() -> dict[str, Path]:
    """The source file of every module that is read."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    sources = dict(_modules(stdlib, ""))
    for package in PACKAGES:
        # For a top-level name this looks the package up and executes nothing of it.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise _not_installed(package)
        for folder in spec.submodule_search_locations:
            sources.update(_modules(Path(folder), f"{package}."))
    return sources


def _not_installed(package: str) -> UserError:
    return UserError(
        f"{INSTALLED_DOCS}: {package} is not installed in this Python; "
        "pip install -r requirements.txt"
    )


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """(dotted module name, source file) of all modules under a package or the stdlib."""
    for parent, folders, files in os.walk(folder):
        # What is no identifier is no package: the stdlib's config-3.12-..., lib-dynload.
        folders[:] = [f for f in folders if f.isidentifier() and f not in _SKIPPED_FOLDERS]
        inside = Path(parent).relative_to(folder).parts
        for file in files:
            stem, suffix = os.path.splitext(file)
            if suffix == ".py" and stem.isidentifier():
                parts = inside if stem == "__init__" and inside else (*inside, stem)
                yield prefix + ".".join(parts), Path(parent, file)


def _parse(path: Path) -> ast.Module | None:
    """None for a file that is not valid source: packages ship some on purpose, as templates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning: "\d" in a string that is not raw
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            return None


def _topics() -> dict[str, str]:
    path = Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py"
    tree = _parse(path) if path.is_file() else None
    for node in tree.body if tree else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "topics":
            return ast.literal_eval(node.value)
    raise UserError(f"{INSTALLED_DOCS}: this Python has no {path}; install a full CPython")


def _docstrings(path: Path) -> Iterator[str]:
    """Of a module, then of its classes and functions as they follow in the source."""
    tree = _parse(path)
    # Statements only, in source order: a docstring cannot hide inside an expression.
    pending: list[ast.AST] = [tree] if tree else []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield docstring
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added_docs(node.value)
        for field in ("finalbody", "orelse", "handlers", "body"):
            pending.extend(reversed(getattr(node, field, ())))


def _added_docs(call: ast.Call) -> Iterator[str]:
    """numpy and scipy document what is written in C by add_newdoc(name, ..., docstring)."""
    if getattr(call.func, "id", "") == "add_newdoc":
        for node in ast.walk(call.args[-1]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
