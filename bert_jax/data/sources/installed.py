"""Real English on every machine that can run this project, with no download: Python's language
reference and the docstrings of the standard library and of the required packages. They are read
from source files; nothing is imported or executed.
"""

import ast
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from bert_jax.data.docstrings import prose
from bert_jax.data.sentences import split_sentences
from bert_jax.data.sources.reading import Document
from bert_jax.errors import UserError

INSTALLED_DOCS = "installed-docs"
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
        fresh: dict[str, str] = {}
        for paragraph in itertools.chain.from_iterable(map(prose, docstrings)):
            key = "".join(filter(str.isalnum, paragraph.lower()))
            if key not in seen and key not in fresh:
                fresh[key] = paragraph
        sentences = [s for paragraph in fresh.values() for s in split_sentences(paragraph)]
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


def module_sizes() -> list[str]:
    """Every module that is read, with its size."""
    return [f"{name} {path.stat().st_size}" for name, path in sorted(_sources().items())]
