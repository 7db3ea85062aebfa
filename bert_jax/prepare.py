"""Turn text into a prepared corpus: a tokenizer, token ids, sentence boundaries.

  python -m bert_jax.prepare --config=configs/bert.py:base --output=prepared \\
      --config.corpus.source=my-text.txt
  python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=runs/mine \\
      --config.corpus.prepared=prepared

The text file (plain, .gz or .xz) has a sentence or a paragraph a line and a blank line between
documents. Without corpus.source it is the documentation installed with Python. One folder
serves every length and masking. pretrain prepares by itself, in a cache, where it is given a
source and no folder.
"""

import json

from absl import flags

from bert_jax import cli, progress
from bert_jax.data.prepare import prepare

cli.define_config()
flags.DEFINE_string("output", "", "the folder to write; it must not be there yet")


def main() -> None:
    config, output = cli.run_config(), cli.required("output")
    with progress.preparing() as report:
        manifest = prepare(config.corpus, config.model.vocab_size, output, report)
    print(json.dumps(manifest["splits"]))
    print(f"{manifest['characters'] / 1e6:.2f} MB of text prepared in {output}")


if __name__ == "__main__":
    cli.run(main, __doc__)
