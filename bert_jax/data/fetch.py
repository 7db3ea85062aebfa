"""Prepared folders of a store, on this machine: rows are read by number, from local files alone."""

import hashlib
import json
import os
from pathlib import Path

from bert_jax.data.records import MANIFEST, read_manifest
from bert_jax.data.survey import Report
from bert_jax.errors import UserError
from bert_jax.files import alone, write_whole
from bert_jax.store import Folder, download, objects


def cache() -> Path:
    """$XDG_CACHE_HOME/bert_jax, or ~/.cache/bert_jax."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "bert_jax"


def fetched(folder: Folder, report: Report) -> Path:
    """The prepared folder itself, or a copy of it in the cache, named by what its manifest says.

    A copy is there whole or not at all; killed, the next one takes the files that are done.
    Raises UserError for a folder that is not whole, by the sizes in its manifest.
    """
    if isinstance(folder, Path):
        return folder
    manifest = json.dumps(read_manifest(folder), indent=2) + "\n"
    target = cache() / f"fetched-{hashlib.sha256(manifest.encode()).hexdigest()[:16]}"
    if (target / MANIFEST).exists():
        return target
    work = target.with_name(f".{target.name}.partial")
    try:
        with alone(work, lambda: report("waiting for another process that fetches it", 0, 0, 0)):
            if not (target / MANIFEST).exists():
                found = objects(folder)
                for name, size in json.loads(manifest)["shards"].items():
                    if name not in found or found[name]["size"] != size:
                        raise UserError(
                            f"{folder}: is not whole ({name} is missing, or cut off); upload it "
                            f"again, or prepare it again"
                        )
                download(
                    folder, work, found.keys() - {MANIFEST},
                    lambda done, total: report("fetching (bytes)", done, 0, total),
                )  # fmt: skip
                write_whole(work / MANIFEST, manifest)
                work.rename(target)
                (target / ".lock").unlink()
    except OSError as error:
        if error.errno is None:  # the store's, not the disk's
            raise
        raise UserError(
            f"{target}: the corpus of {folder} cannot be written here ({error.strerror}); make "
            f"room, or set XDG_CACHE_HOME to where there is some"
        ) from error
    return target
