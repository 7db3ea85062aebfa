"""Pretraining of encoder-only transformers in JAX: one program for a CPU, a GPU or a TPU mesh."""

import os
import signal
import sys
from types import FrameType

__version__ = "0.1.0"


def leave_early(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while a program still imports its parts, which takes seconds: nothing is begun."""
    os.write(2, b"interrupted\n")
    os._exit(130)


# argv is so while python -m bert_jax.PROGRAM looks for the program. What a shell ignores stays so.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave_early)
