"""prepare over small chunks, that kills itself (SIGKILL) at the n-th report of a named kind. Told:
source, output, workers, the kind and n, and the share that is held out. Prints the ids of its
workers before that, and what it waits for.

What the tests of resuming start instead of the program."""

import os
import signal
import sys

import psutil

from bert_jax.data import parts
from bert_jax.data.config import CorpusConfig
from bert_jax.data.prepare import prepare
from bert_jax.errors import UserError

parts.CHUNK_CHARACTERS = 1500
source, output, workers, kind, count, held_out = sys.argv[1:]
left = int(count)


def deadly(what, documents, characters, total):
    global left
    if what.startswith("waiting"):
        print(what, flush=True)
    if what.startswith(kind):
        left -= 1
        if left == 0:
            children = psutil.Process().children()
            print(*(child.pid for child in children), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


try:
    config = CorpusConfig(source=source, held_out=float(held_out), tokenizer="sentencepiece")
    prepare(config, 200, output, deadly, int(workers))
except UserError as error:
    sys.exit(f"error: {error}")
