"""What the benchmarks beside a peer share: each side in its own environment, in turns."""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(python: str, program: str, *words: str, threads: int = 1, **environment: str) -> dict:
    """One turn: `program` under `python` with these words, offline and on the CPU; the JSON object
    that it prints last. Its file has to be importable without what that Python may lack."""
    fixed = {
        "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [python, program, *words], env=os.environ | fixed | environment, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: {python} {program} {' '.join(words)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def pin(cores: int = 1) -> None:
    """This process to that many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def versions(*names: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def cell(values: Sequence[float], form: str) -> str:
    """The median, and each in its turn."""
    each = ", ".join(f"{value:{form}}" for value in values)
    return f"{statistics.median(values):{form}} ({each})"


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
