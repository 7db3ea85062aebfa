"""Turn text into a prepared corpus: a tokenizer, token ids, sentence boundaries.

  python -m bert_jax.prepare --config=configs/bert.py:base --output=prepared \\
      --config.corpus.source=my-text.txt
  python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=runs/mine \\
      --config.corpus.prepared=prepared

corpus.source is one of these, or several with " + " between them:
  installed-docs               the documentation installed with Python; no download
  a.txt,b.txt.gz               text: a sentence or a paragraph a line, a blank line between
  'wiki/**/*.txt'              documents; plain, .gz, .xz or .zst
  web.jsonl.zst@content        JSON lines; @ names the field, which is text where it is not named
  'c4/*.parquet@text'          Parquet; a row a document
  tfds:c4/en:3.1.0#train@text  TFDS, a dataset that is prepared (array_record); or its folder
  '2x wiki.txt + 0.5x web.jsonl'     read twice, and half of the documents
  '70% wiki.txt + 30% web.jsonl'     in these shares of the text
  text:FILE, jsonl:FILE, parquet:FILE     where the ending does not say the kind

  --config.corpus.alpha=0.3             sample a mixture's members with p ~ n^0.3 (XLM-R)
  --config.corpus.dedup=True            of documents with the same text keep one
  --config.corpus.invalid_utf8=replace  or skip (the document), or fail
  --config.corpus.tokenizer=bpe         wordpiece, sentencepiece, or the folder of a tokenizer
  --config.corpus.new_pieces=2000       behind those of such a folder (docs/continued.md)
  --workers=8                           processes; all cores if it is not said

Killed and started again with the same command it goes on, and the folder is, byte for byte, what
one run would have written, with any number of workers. It appears when it is whole; TFDS reads
it too, and it can be gs://BUCKET/FOLDER. One folder serves every length and masking. pretrain
prepares by itself, in a cache, where it is given a source and no folder. docs/corpora.md has the
papers' corpora.

  python -m bert_jax.prepare --inspect=prepared --n=3 --config=configs/bert.py:base

shows rows as the model would get them, masked positions marked.
"""

import json
import sys
import time
from pathlib import Path

from absl import flags
from rich.console import Console

from bert_jax import cli, inspection, progress
from bert_jax.data.fetch import fetched
from bert_jax.data.prepare import prepare, prepare_in_store
from bert_jax.data.workers import check_workers
from bert_jax.errors import UserError
from bert_jax.store import reach

cli.define_config()
flags.DEFINE_string("output", "", "the folder to write; it must not be there yet")
flags.DEFINE_integer("workers", 0, "processes; 0: as many as there are cores")
flags.DEFINE_string("inspect", "", "a prepared folder to show rows of, instead of writing one")
flags.DEFINE_integer("n", 3, "how many rows to show")


def main() -> None:
    if flags.FLAGS.inspect:
        show()
    else:
        write()


def show() -> None:
    config, count = cli.run_config(), flags.FLAGS.n
    if count < 1:
        raise UserError(f"--n={count}: must be 1 or more")
    with progress.preparing() as report:
        folder = fetched(reach(flags.FLAGS.inspect), report)
    console = Console(highlight=False, soft_wrap=True)
    for text in inspection.inspect(folder, config, count):
        console.print(text)


def write() -> None:
    config, output = cli.run_config(), reach(cli.required("output"))
    workers = flags.FLAGS.workers
    if workers < 0:
        raise UserError(f"--workers={workers}: must be 0 or more")
    check_workers("--workers", workers)
    began = time.monotonic()
    with progress.preparing() as report:
        make = prepare if isinstance(output, Path) else prepare_in_store
        manifest = make(config.corpus, config.model.vocab_size, output, report, workers)
    print(json.dumps(manifest["splits"]))
    megabytes, seconds = manifest["characters"] / 1e6, time.monotonic() - began
    print(
        f"{megabytes:.2f} MB of text prepared in {output} ({seconds:.0f} s, "
        f"{megabytes / seconds:.2f} MB/s)"
    )
    for what, count in manifest["found"].items():
        if count:
            print(f"note: {what.replace('_', ' ')}: {count:,}", file=sys.stderr)
    if manifest["found"]["held_out_documents_in_training"]:
        print("note: --config.corpus.dedup=True keeps each text once", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, __doc__)
