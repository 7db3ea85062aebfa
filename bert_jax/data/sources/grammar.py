"""The line that names a corpus: files, datasets, and mixtures of them.

SOURCE  = MEMBER [ + MEMBER ...]                     with spaces around the +
MEMBER  = [2x | 0.5x | 30%] [KIND:] PLACE[@COLUMN]
PLACE   = installed-docs | files, by comma or with * ? [] ** | tfds:NAME or FOLDER[#SPLIT]
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bert_jax.data.sources.installed import INSTALLED_DOCS
from bert_jax.data.sources.readers import READERS
from bert_jax.data.sources.reading import regular_file
from bert_jax.data.sources.streams import COMPRESSED
from bert_jax.errors import UserError

ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(x|%)\s+(.*)", re.DOTALL)
_KIND = re.compile(rf"({'|'.join(READERS)}|tfds):(.+)", re.DOTALL)
_COLUMN = re.compile(r"(.+)@([\w.-]+)", re.DOTALL)
_SPLIT = re.compile(r"(.+)#([\w.-]+)", re.DOTALL)


@dataclass(frozen=True)
class TextFile:
    path: Path
    kind: str  # of READERS
    name: str = ""  # its documents are called after it


@dataclass(frozen=True)
class Member:
    """One source of a mixture. Without files and dataset it is the installed documentation."""

    spec: str  # as it was written
    weight: float = 1.0  # how many times it is read, or its share of the text
    share: bool = False
    column: str = "text"
    files: tuple[TextFile, ...] = ()
    dataset: str = ""  # of TFDS: a name with config and version, or a folder
    split: str = "train"


def parse(source: str) -> tuple[Member, ...]:
    """The members of a source. Raises UserError for a file that is not there and a wrong line."""
    if _is_there(source):
        return _named([_member(source, source, 1.0, False)])
    members = []
    for spec in re.split(r"\s\+\s", source.strip()):
        weight = _WEIGHT.fullmatch(spec.strip())
        number, unit, rest = weight.groups() if weight else ("1", "x", spec.strip())
        if float(number) <= 0:
            raise UserError(f"corpus.source={source}: {spec} has no weight; leave it out")
        members.append(_member(spec.strip(), rest, float(number), unit == "%"))
    shares = [member.weight for member in members if member.share]
    if shares and (len(shares) != len(members) or abs(sum(shares) - 100) > 0.01):
        raise UserError(
            f"corpus.source={source}: shares must stand before all members and add up to 100%; "
            f"these are {sum(shares):g}% of {len(shares)}"
        )
    return _named(members)


def _named(members: list[Member]) -> tuple[Member, ...]:
    """With each file called by as much of the end of its path as no other file of any member has:
    by its name, mostly."""
    paths = {Path(os.path.abspath(file.path)) for member in members for file in member.files}
    ends = Counter(end for path in paths for end in _ends(path))

    def name(file: TextFile) -> str:
        path = Path(os.path.abspath(file.path))
        return next((end for end in _ends(path) if ends[end] == 1), str(path))

    return tuple(
        replace(member, files=tuple(replace(file, name=name(file)) for file in member.files))
        for member in members
    )


def _ends(path: Path) -> Iterator[str]:
    for start in range(len(path.parts) - 1, 0, -1):
        yield "/".join(path.parts[start:])


def _member(spec: str, rest: str, weight: float, share: bool) -> Member:
    if not rest:
        raise UserError("corpus.source is empty; name a file, a dataset or installed-docs")
    if rest == INSTALLED_DOCS:
        return Member(spec, weight, share)
    kind, column, named = "", "text", None
    if not _is_there(rest):
        if match := _KIND.fullmatch(rest):
            kind, rest = match.groups()
        if not _is_there(rest) and (named := _COLUMN.fullmatch(rest)):
            rest, column = named.groups()
    if "://" in rest:
        raise UserError(
            f"{rest}: texts are read from this machine; copy them here first (with curl -O, or "
            f"gcloud storage cp)"
        )
    if kind == "tfds":
        match = _SPLIT.fullmatch(rest)
        dataset, split = match.groups() if match else (rest, "train")
        return Member(spec, weight, share, column, dataset=dataset, split=split)
    # A file is read once, whichever of the places name it, and by whatever path.
    paths: dict[str, Path] = {}
    for path in _paths(rest):
        paths.setdefault(os.path.realpath(regular_file(path)), path)
    files = [TextFile(path, kind or _kind_of(path)) for path in paths.values()]
    if named and (plain := [file.path for file in files if file.kind == "text"]):
        raise UserError(f"{plain[0]}@{column}: is plain text, without fields; leave out @{column}")
    return Member(spec, weight, share, column, tuple(files))


def _paths(places: str) -> Iterator[Path]:
    for place in [places] if _is_there(places) else places.split(","):
        if not place.strip():
            raise UserError(f"corpus.source={places}: no name beside a comma; leave the comma out")
        if not _is_there(place):
            place = os.path.expanduser(place)
        if _is_there(place) or not re.search(r"[*?[]", place):
            yield Path(place)
            continue
        found = sorted(path for path in glob.glob(place, recursive=True) if Path(path).is_file())
        if not found:
            raise UserError(f"{place}: no such file; nothing fits this pattern")
        yield from map(Path, found)


def _kind_of(path: Path) -> str:
    inner = path.with_suffix("") if path.suffix in COMPRESSED else path
    return ENDINGS.get(inner.suffix, "text")


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a line too long for a name, or with a NUL
        return False
