"""Where a run came from: enough to run it again, and to know what it can be compared with."""

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import jax

from bert_jax.errors import UserError
from bert_jax.files import append_line
from bert_jax.store import Folder

FILE = "provenance.jsonl"
DATA = "data.json"  # the manifest of the corpus
INIT = "init.json"  # the model that the run began from
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece",
    "tokenizers", "safetensors",
)  # fmt: skip


def check_same_data(workdir: Folder, data: dict) -> None:
    """Raises UserError where the corpus is not the one that the run began with: its ids would
    mean other words."""
    try:
        began = json.loads((workdir / DATA).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{workdir / DATA}: cannot be read, so the run's corpus is not known; bring back a copy"
        ) from error
    for name in sorted(began.keys() | data.keys()):
        if began.get(name) != data.get(name):
            raise UserError(
                f"{workdir} was begun on a corpus with {name}={began.get(name)}, and this one has "
                f"{data.get(name)}: bring back that corpus to go on, or name another --workdir"
            )


def beginning(init: str, optimizer: str) -> dict[str, str]:
    """What init.json says: the MODEL, '' for none, and whether its optimiser was restored."""
    return {"init": init} | ({} if optimizer == "fresh" else {"init_optimizer": optimizer})


def check_same_init(workdir: Folder, now: dict[str, str]) -> None:
    """Raises UserError where the run began from another model than the one named now, or took
    over more of it or less. `now`: as `beginning` says it."""
    try:
        facts = json.loads((workdir / INIT).read_text())
        began = beginning(facts["init"], facts.get("init_optimizer", "fresh"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{workdir / INIT}: cannot be read, so it is not known what the run began from; bring "
            f"back a copy"
        ) from error
    for name, default in (("init", "nothing"), ("init_optimizer", "fresh")):
        then, mine = began.get(name) or default, now.get(name) or default
        if then != mine:
            raise UserError(
                f"{workdir} was begun with --{name}={then}, and now it is {mine}: give the same to "
                f"go on, or name another --workdir"
            )


def record(workdir: Folder, data: dict, step: int) -> None:
    """Append a line for this start of the run: it is one line for a run never interrupted."""
    facts = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "from_step": step,
        "command": sys.orig_argv,
        **_commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "data": data,
    }
    append_line(workdir / FILE, json.dumps(facts))


def _commit() -> dict[str, str | bool | None]:
    """Commit of the checkout that the code is in, and whether it was changed since."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return {"commit": head, "dirty": bool(_git(here, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}  # installed without git


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True,
        timeout=10,
    )  # fmt: skip
    return done.stdout.strip()
