"""A corpus: the documents of its source in a fixed order, and what they are a function of."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.data.sources.grammar import Member, parse
from bert_jax.data.sources.installed import installed_docs, installed_docs_versions, module_sizes
from bert_jax.data.sources.readers import READERS, tfds_builder, tfds_split
from bert_jax.data.sources.reading import Cleaning, Document, reading
from bert_jax.errors import UserError

# Part of every fingerprint: raise it when a rule of sources/, docstrings.py or sentences.py
# changes.
EXTRACTION = 4


class SourceChanged(UserError):
    """A file is another one than when reading began: nothing that was read of it counts."""


class Corpus:
    """What a line of sources/grammar.py names."""

    def __init__(self, source: str):
        """Raises UserError where a file is not there, or the line is wrong."""
        self.source = source
        self.members = parse(source)
        self._hashed: dict[Path, tuple[int, int]] = {}  # size and time of change of each file

    def documents(
        self, cleaning: Cleaning, factors: Sequence[float] | None = None, fraction: float = 0.0
    ) -> Iterator[Document]:
        """Every member's documents, one after the other, as often as its factor says.

        A factor of 2.3 reads all documents twice, and 30% of them, chosen by a hash of their
        names, a third time; the second and third time come after all members' first. What is held
        out at `fraction` is read once at most, whichever members name it. Without factors, the
        weights of the line.

        The first document is read at once, so a source that cannot be read, or holds no document,
        raises UserError here and not in the caller's loop.
        """
        factors = factors or [1.0 if member.share else member.weight for member in self.members]
        found = self._passes(cleaning, factors, fraction)
        first = next(found, None)
        if (
            first is None
            and min(factors) < 1
            and any(self._passes(cleaning, [1.0] * len(factors), 0.0))
        ):
            raise UserError(f"{self.source}: no document is left at these weights; raise them")
        if first is None:
            raise UserError(f"{self.source}: no text in it; give a file with one sentence a line")
        return itertools.chain([first], found)

    def _passes(
        self, cleaning: Cleaning, factors: Sequence[float], fraction: float
    ) -> Iterator[Document]:
        for number in range(max(1, *(-int(-factor // 1) for factor in factors))):
            # What was found is counted once.
            cleaning = cleaning if number == 0 else Cleaning(cleaning.invalid_utf8)
            read: dict[tuple[str, ...], list[float]] = {}  # how often, by the members before
            for member, factor in zip(self.members, factors, strict=True):
                if factor <= number:
                    continue
                for place, documents in self._places(member, cleaning):
                    before = read.setdefault(place, [])
                    for document in documents:
                        name = document.name
                        if _copies(name, factor, fraction) > number and not (
                            before
                            and held_out(name, fraction)
                            and any(_copies(name, other, fraction) for other in before)
                        ):
                            yield document
                    before.append(factor)

    @property
    def needs_sizes(self) -> bool:
        """Whether factors depend on how much text there is."""
        return any(member.share for member in self.members)

    def factors(self, characters: Sequence[int], alpha: float) -> list[float]:
        """How many times each member is read, for one with so many characters of text.

        Its weight times, or such that shares come out; with alpha < 1 members are sampled with
        p ∝ n^alpha (Conneau et al. 2020, 3.1), and all together are as much text as before.
        """
        total = sum(characters)
        if self.needs_sizes:
            wanted = [member.weight / 100 * total for member in self.members]
        else:
            sizes = [m.weight * n for m, n in zip(self.members, characters, strict=True)]
            powers = [size**alpha for size in sizes]
            wanted = [power / sum(powers) * sum(sizes) for power in powers]
        return [w / n if n else 0.0 for w, n in zip(wanted, characters, strict=True)]

    def fingerprint(self) -> dict[str, Any]:
        """What `documents` is a function of: equal fingerprints, equal documents.

        Raises UserError where the source cannot be read.
        """
        return {
            "extraction": EXTRACTION,
            "sources": [fact for member in self.members for fact in self._facts(member)],
        }

    def read(self, member: Member, cleaning: Cleaning) -> Iterator[Document]:
        """The documents of one member, once.

        Raises SourceChanged for a file that was written to since its fingerprint was taken.
        """
        for _, documents in self._places(member, cleaning):
            yield from documents

    def _places(
        self, member: Member, cleaning: Cleaning
    ) -> Iterator[tuple[tuple[str, ...], Iterator[Document]]]:
        """As `read`, by the file or dataset and what of it is read, which say together which
        documents they are."""
        if member.dataset:
            builder, split, column = tfds_builder(member.dataset), member.split, member.column
            name = builder.info.full_name
            found = tfds_split(builder, split, name, column, cleaning)
            paths = [path for path, _ in _dataset_files(builder, split)]
            yield (name, split, column), self._unchanged(found, paths)
        for file in member.files:
            found = READERS[file.kind](file.path, file.name, member.column, cleaning)
            place = (file.name, file.kind, member.column)
            yield place, self._unchanged(found, [file.path])
        if not member.dataset and not member.files:
            yield (), installed_docs()

    def _unchanged(
        self, documents: Iterator[Document], paths: Sequence[Path]
    ) -> Iterator[Document]:
        """The documents; at their end the files have to be as they were hashed."""
        yield from documents
        for path in paths:
            with reading(path):
                if self._hashed.get(path, found := _state(path)) != found:
                    raise SourceChanged(
                        f"{path}: was changed while it was read; start again when it stays as it is"
                    )

    def _facts(self, member: Member) -> Iterator[dict[str, Any]]:
        if not member.dataset and not member.files:
            # Versions alone do not say it: distributions leave modules out, or add some.
            modules = hashlib.sha256("\n".join(module_sizes()).encode()).hexdigest()
            yield {"versions": installed_docs_versions(), "modules": modules}
        # The name is a part of every document's name, which decides what is held out.
        for file in member.files:
            yield {"name": file.name} | self._hash(file.path)
        if member.dataset:
            for path, name in _dataset_files(tfds_builder(member.dataset), member.split):
                yield {"name": name} | self._hash(path)

    def _hash(self, path: Path) -> dict[str, Any]:
        with reading(path), open(path, "rb") as file:
            self._hashed[path] = _state(path)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": digest, "bytes": os.fstat(file.fileno()).st_size}


def held_out(name: str, fraction: float) -> bool:
    """Whether the document of that name is kept from training: about `fraction` of all names.

    A property of the name alone, so it survives any change to the other documents and their
    order, and what is held out at one fraction is held out at every larger one.
    """
    return hashed(name) < fraction * 2**64


def hashed(text: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _copies(name: str, factor: float, fraction: float) -> int:
    whole = int(factor)
    copies = whole + (factor > whole and hashed(f"copies of {name}") < (factor - whole) * 2**64)
    return min(copies, 1) if copies > 1 and held_out(name, fraction) else copies


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _dataset_files(builder: Any, split: str) -> Iterator[tuple[Path, str]]:
    """Of a TFDS dataset, those that one of its splits is read from, and what they are called."""
    info, features = builder.info.splits.get(split), Path(os.fspath(builder.data_dir))
    paths = sorted(map(Path, info.filepaths)) if info else []
    features /= "features.json"
    for path in [*paths, *([features] if features.exists() else [])]:
        yield path, f"{builder.info.full_name}/{path.name}"
