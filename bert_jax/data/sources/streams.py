"""Compressed files to their bytes, told apart by their ending: whole, or an error.

A file may be several streams, one after the other, as parallel packers write it. The libraries'
own readers take one that is cut off for whole (zstandard), or leave out what follows a damaged
stream (lzma, bz2).
"""

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import zstandard

# Packed bytes that are unpacked at once: so few that what packs very well fits into memory.
_BYTES = 1 << 14


class _Decompressor(Protocol):
    """Of one stream, as lzma, bz2 and zstandard have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes) -> bytes: ...


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
COMPRESSED = (".gz", *_DECOMPRESSORS)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """For reading. What is damaged, cut off, or followed by what is no stream raises, when it is
    read, EOFError or the library's own error."""
    if path.suffix in _DECOMPRESSORS:
        with open(path, "rb") as packed:
            streams = _Streams(packed, _DECOMPRESSORS[path.suffix], path.suffix == ".xz")
            with io.BufferedReader(streams, 1 << 20) as file:
                yield file
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        yield file  # type: ignore[misc]


class _Streams(io.RawIOBase):
    """The streams of a file, unpacked. `padded`: NULs may stand between them."""

    def __init__(self, packed: IO[bytes], begin: Callable[[], _Decompressor], padded: bool):
        self._packed, self._begin, self._padded = packed, begin, padded
        self._stream: _Decompressor | None = None
        self._left, self._out = b"", memoryview(b"")  # a view, as its slices are no copies

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._out:
            data = self._left or self._packed.read(_BYTES)
            self._left = b""
            if self._stream is None:
                if not data:
                    return 0
                data = data.lstrip(b"\0") if self._padded else data
                if not data:
                    continue
                self._stream = self._begin()
            elif not data:
                raise EOFError("cut off")
            self._out = memoryview(self._stream.decompress(data))
            if self._stream.eof:
                self._left, self._stream = self._stream.unused_data, None
        count = min(len(buffer), len(self._out))
        buffer[:count], self._out = self._out[:count], self._out[count:]
        return count
