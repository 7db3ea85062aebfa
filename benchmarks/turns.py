"""What benchmarks share: their options, the model and the text that they take, and, beside a peer,
each side in its own environment, in turns."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # a peer's Python may lack what it needs
    from bert_jax.models.config import EncoderConfig

ROOT = Path(__file__).parent.parent
SIZES = {"L4 D256": (4, 256), "L12 D768": (12, 768)}
VOCABULARY = 8192  # of installed_docs


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def parser(told: str | None) -> Parser:
    """With --json, for `write`."""
    found = Parser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", type=_file, help="write the figures there too")
    return found


def _file(text: str) -> Path:
    """Of a folder that is there: figures that took an hour are not to be lost at their end."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: no file can be written there")
    return path


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number above 0")
    return int(text)


def check_oracle(parser: Parser, python: str) -> None:
    """Leaves with status 2 where that Python has not what the peers need."""
    names = ("torch", "transformers")
    asked = f"import importlib.util as u; print([n for n in {names} if not u.find_spec(n)])"
    try:
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    except OSError as error:
        parser.error(f"--oracle={python}: {error.strerror}; `make oracle` makes .venv-oracle")
    if done.stdout != "[]\n":
        parser.error(f"--oracle={python}: no Python that has {' and '.join(names)}")


def guarded() -> contextlib.AbstractContextManager[None]:
    """As all programs are, a mistake told in one line; not in a peer's turn, whose Python has
    other packages."""
    try:
        from bert_jax import cli
    except (ImportError, SyntaxError):
        return contextlib.nullcontext()
    return cli.guarded()


def write(figures: Any, path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def encoder(layers: int, width: int, vocab_size: int, **more: Any) -> "EncoderConfig":
    """Of heads of 64, as BERT has them."""
    from bert_jax.models.config import EncoderConfig

    return EncoderConfig(
        vocab_size=vocab_size, hidden_size=width, num_layers=layers, num_heads=width // 64,
        intermediate_size=4 * width, **more,
    )  # fmt: skip


def installed_docs() -> Path:
    """Prepared, in the cache."""
    from bert_jax.data.config import CorpusConfig
    from bert_jax.data.prepare import cached

    return Path(str(cached(CorpusConfig(), VOCABULARY, lambda *_: None)))


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
    if done.returncode > 0:  # it has said why
        sys.exit(done.returncode)
    if done.returncode:
        sys.exit(f"error: {python} {program} was ended by signal {-done.returncode}")
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
