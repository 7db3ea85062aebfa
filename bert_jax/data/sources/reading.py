"""What all readers share: documents, files opened by their ending, and bytes that are no text."""

import contextlib
import lzma
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

from bert_jax.data.sources.streams import opened
from bert_jax.errors import UserError

# A line is held in memory whole; a longer one is surely not text.
MAX_LINE_BYTES = 1 << 24
# A longer document is handed on in parts, so that a file without blank lines fits into memory.
MAX_CHARACTERS = 1 << 22


class Document(NamedTuple):
    """Paragraphs as the source has them, with none that is blank. What is longer than
    MAX_CHARACTERS comes as several of the same name, `part` counting them."""

    name: str
    paragraphs: tuple[str, ...]
    part: int | None = None

    @property
    def characters(self) -> int:
        return sum(map(len, self.paragraphs))


@dataclass
class Cleaning:
    """What is done about bytes that are no text, and how often it was done.

    `invalid_utf8`: 'fail' (UserError), 'replace' (by U+FFFD) or 'skip' (the document). A NUL,
    which no text has, becomes a space.
    """

    invalid_utf8: str = "fail"
    counts: Counter[str] = field(default_factory=Counter)

    def decode(self, raw: bytes, where: str, codec: str = "utf-8", offset: int = 0) -> str | None:
        """The text; None where its document is to be skipped. `where` says the place, of the
        byte at {byte} from `offset` on."""
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError as error:
            if self.invalid_utf8 == "fail":
                place = where.replace("{byte}", str(offset + error.start))
                raise UserError(
                    f"{place}; convert it first, for example with iconv -t UTF-8, or set "
                    f"corpus.invalid_utf8 to replace or skip"
                ) from None
            self.counts["invalid_utf8"] += 1
            if self.invalid_utf8 == "skip":
                return None
            text = raw.decode(codec, "replace")
        if (nuls := text.count("\0")) > max(16, len(text) / 4):
            place = where.replace("{byte}", str(offset + raw.index(b"\0")))
            raise UserError(
                f"{place}: {nuls} of {len(text)} characters are NULs, as in UTF-16; convert it "
                f"first, for example with iconv -f UTF-16 -t UTF-8"
            )
        return self.without_nul(text)

    def without_nul(self, text: str) -> str:
        if "\0" in text:
            self.counts["nul_characters"] += text.count("\0")
            text = text.replace("\0", " ")
        return text

    def document(self, name: str, text: str | None) -> Iterator[Document]:
        """The document of a text, a line a paragraph; nothing for a text that is blank."""
        paragraphs = tuple(
            line for line in (text or "").splitlines() if not line.isspace() and line
        )
        if paragraphs:
            yield Document(name, paragraphs)
        elif text is not None:
            self.counts["empty_documents"] += 1


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed by its ending. Raises UserError for what cannot be read."""
    with reading(path), opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES:
                raise UserError(
                    f"{path}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; put one "
                    f"sentence, paragraph or JSON object on a line"
                )
            yield line


def regular_file(path: Path) -> Path:
    """Only a regular file can be read twice: once for its hash, once for its text."""
    with reading(path):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        if (path / "dataset_info.json").exists():
            raise UserError(f"{path}: is a folder of TFDS; write tfds:{path}#train@text")
        raise UserError(f"{path}: is a folder; name its files, for example {path}/*.txt")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is not a regular file; write the text to a file first")
    return path


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while reading `path` into one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give a text file's path or 'installed-docs'"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise _damaged(path, error) from None
    except OSError as error:
        if error.errno is None:  # of gzip and bz2, not of the disk
            raise _damaged(path, error) from None
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); mend that or give another file"
        ) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged {path.suffix} file ({error}); fetch it again")
