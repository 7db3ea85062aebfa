"""Folders in an object store, gs://BUCKET/FOLDER, beside those on this machine.

A store has whole objects alone: a put is there whole or not at all, nothing is appended to,
renamed or locked. What is read often is fetched to this machine first.
"""

import base64
import contextlib
import functools
import hashlib
import json
import logging
import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from etils import epath
from etils.epath import backend

from bert_jax.errors import UserError, one_line

# What a program is given as a folder: on this machine, or in a store.
type Folder = Path | epath.Path
_SCHEME = "gs://"
_SECONDS = 15  # that the first answer of a store may take
_AT_ONCE = 8  # files that are copied at a time
Done = Callable[[int, int], None]  # told of the bytes that are copied, and of all


def on_store(folder: epath.PathLike) -> bool:
    return os.fspath(folder).startswith(_SCHEME)


def as_folder(folder: epath.PathLike) -> Folder:
    """The path as what it is: pathlib's on this machine, which is faster."""
    return epath.Path(folder) if on_store(folder) else Path(folder)


def absolute(folder: epath.PathLike) -> epath.Path:
    path = epath.Path(folder)
    return path if on_store(path) else path.resolve()


@functools.cache
def reach(name: str) -> Folder:
    """The folder of that name, which need not be there.

    Raises UserError for what is no folder's name, for a bucket that is not there or not for this
    user, and where the store does not answer.
    """
    if "://" not in name:
        return Path(os.path.expanduser(name))  # a shell leaves the ~ of --output=~/it alone
    bucket, _, inside = name.removeprefix(_SCHEME).partition("/")
    if not on_store(name) or not bucket or not inside.strip("/") or set(name) & set("*?[]"):
        raise UserError(
            f"{name}: folders are local or gs://BUCKET/FOLDER, without * ? [ ]; name one of those"
        )
    _check_answers(name)
    kind = "the store refused"
    try:
        files = _filesystem()
        _first(files, bucket, inside.strip("/"))
        return epath.Path(name)
    except FileNotFoundError:
        raise UserError(f"{name}: there is no bucket {bucket}; create it first") from None
    except UserError:
        raise
    except TimeoutError:
        reason = f"no answer in {_SECONDS} seconds"
        kind = "the store cannot be reached"
    except Exception as error:  # of gcsfs, aiohttp, google.auth: what they share is Exception
        reason = one_line(error, 200)
    raise UserError(
        f"{name}: {kind} ({reason}); give this user access to the bucket, with "
        f"gcloud auth application-default login or GOOGLE_APPLICATION_CREDENTIALS"
    ) from None


def failed(error: BaseException) -> str | None:
    """What to tell a user of an error that came from a store; None for any other."""
    if "gcsfs" not in sys.modules:
        return None
    import aiohttp
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests
    from gcsfs.retry import HttpError

    theirs = (
        HttpError, aiohttp.ClientError, requests.RequestException,
        google.auth.exceptions.GoogleAuthError, google.api_core.exceptions.GoogleAPIError,
    )  # fmt: skip
    if isinstance(error, theirs) or (isinstance(error, OSError) and error.errno is None):
        return (
            f"the store: {one_line(error, 200) or type(error).__name__}; when it answers again, "
            f"start the same command again: it goes on where it stopped"
        )
    return None


class Claim:
    """A workdir in a store, which cannot be locked: it is whose name stands in `.lock`.

    Whoever starts last has it, so that a run whose machine was taken away never stands in the
    way. The one before finds out at its next `check` and ends.
    """

    def __init__(self, folder: epath.Path):
        self._folder, self._path = folder, folder / ".lock"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        mine = {"host": socket.gethostname(), "process": os.getpid(), "time": now}
        if before := self._owner():
            print(f"note: {_told(before)} had {folder} and left no word; if it runs, it will end")
        self._mine = json.dumps(mine | {"id": uuid.uuid4().hex})
        self._path.write_text(self._mine)

    def check(self) -> None:
        if (owner := self._owner()) != self._mine:
            who = _told(owner) if owner else "another process"
            raise UserError(
                f"{self._folder}: {who} has begun to train here since; this one ends, and the "
                f"other goes on from the last checkpoint"
            )

    def close(self) -> None:
        if self._owner() == self._mine:
            self._path.unlink()

    def _owner(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""


def _told(owner: str) -> str:
    try:
        found = json.loads(owner)
        return f"process {found['process']} on {found['host']}, of {found['time']},"
    except (ValueError, KeyError, TypeError):
        return "another process"


def move(folder: epath.Path, target: epath.Path) -> None:
    """Each object of a folder to another; killed on the way, objects stand in both."""
    for name in objects(folder):  # copied by the store, nothing comes through here
        _filesystem().cp_file(os.fspath(folder / name), os.fspath(target / name))
    folder.rmtree()


def objects(folder: epath.Path) -> dict[str, dict[str, Any]]:
    """All objects below a folder by their paths in it: the size and the checksum of each."""
    begin = f"{os.fspath(folder).removeprefix(_SCHEME)}/"
    found = _filesystem().find(begin, detail=True)
    return {name.removeprefix(begin): facts for name, facts in sorted(found.items())}


def download(source: epath.Path, target: Path, names: Iterable[str], done: Done) -> None:
    """The named objects of a folder into one that is here. What is here whole is left alone;
    each appears under its name when it is whole.

    Raises UserError for an object that is not there, or not what it should be.
    """
    found = objects(source)
    if lost := sorted(set(names) - found.keys()):
        raise UserError(f"{source}: {lost[0]} is not there; copy the folder again, to its end")

    def one(name: str) -> None:
        path, facts = target / name, found[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        _filesystem().get_file(os.fspath(source / name), os.fspath(beside))
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        if not _same(beside, facts):
            raise UserError(f"{source / name}: came damaged; start the same command again")
        beside.replace(path)

    sizes = {name: found[name]["size"] for name in names}
    missing = [name for name in sizes if not _same(target / name, found[name])]
    _all(one, missing, sizes, done)


def upload(source: Path, target: epath.Path, last: str, done: Done) -> None:
    """All files of a folder; `last` when all others are there. What is there whole stays."""
    found = objects(target)
    files = {
        os.fspath(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()
    }
    sizes = {name: path.stat().st_size for name, path in files.items()}

    def one(name: str) -> None:
        _filesystem().put_file(files[name], os.fspath(target / name))

    missing = [n for n in files if n not in found or not _same(files[n], found[n])]
    _all(one, [name for name in missing if name != last], sizes, done)
    one(last)


@contextlib.contextmanager
def local_copy(folder: Folder) -> Iterator[Path]:
    """The folder itself, or its files in one on this machine that goes at the end."""
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / folder.name
        names = [name for name in objects(folder) if "/" not in name]
        pickles = [name for name in names if name.endswith(".bin")]
        local.mkdir()
        for name in pickles:  # never loaded; refused by name where there is nothing else
            (local / name).touch()
        download(folder, local, set(names) - set(pickles), lambda done, total: None)
        try:
            yield local
        except UserError as error:
            raise UserError(str(error).replace(str(local), str(folder))) from error


def _all(one: Callable[[str], None], names: list[str], sizes: dict[str, int], done: Done) -> None:
    total = sum(sizes.values())
    finished = total - sum(sizes[name] for name in names)
    done(finished, total)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, _ in zip(names, pool.map(one, names), strict=True):
            finished += sizes[name]
            done(finished, total)


def _same(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the file has the size of the object and, where the store has one, its checksum."""
    if not path.is_file() or path.stat().st_size != facts["size"]:
        return False
    if not facts.get("md5Hash"):  # a composed object has none
        return True
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").digest()
    return base64.b64encode(digest).decode() == facts["md5Hash"]


def _check_answers(name: str) -> None:
    """Libraries try for minutes to reach a machine that is not there."""
    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    url = urlsplit(emulator or "https://storage.googleapis.com")
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), _SECONDS).close()
    except OSError as error:
        raise UserError(
            f"{name}: the store at {url.hostname}:{port} cannot be reached ({error}); mend the "
            f"network, or name a local folder"
        ) from None


def _filesystem() -> Any:
    """The one that epath uses, without its memory of listings: others write too."""
    # Zonal buckets are asked for by gRPC, with many words where that fails.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it tells what it raises
    try:
        import fsspec
        import gcsfs  # noqa: F401
        import google.cloud.storage  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"gs:// needs packages that are not here ({error}): pip install -r requirements-gcs.txt"
        ) from None
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return backend.fsspec_backend.fs(_SCHEME)


def _first(files: Any, bucket: str, prefix: str) -> None:
    """Raises what the store says where the bucket cannot be listed."""
    from fsspec.asyn import sync

    sync(
        files.loop, files._call, "GET", "b/{}/o", bucket, prefix=prefix, maxResults=1,
        json_out=True, timeout=_SECONDS,
    )  # fmt: skip
