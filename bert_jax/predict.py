"""Use a model: text in, one JSON object a line out.

  python -m bert_jax.predict fill-mask --model=runs/demo "Returns the [MASK] of the array."
  python -m bert_jax.predict classify  --model=runs/sst2 "A film that charms."
  python -m bert_jax.predict tag       --model=runs/ner "Ada Lovelace lived in London."
  python -m bert_jax.predict answer    --model=runs/squad "Who wrote it?" "Ada wrote it."
  python -m bert_jax.predict embed     --model=runs/base < lines.txt > vectors.jsonl
  python -m bert_jax.predict rerank    --model=runs/rank "a question" "one text" "another"

MODEL is a workdir of bert_jax.pretrain or bert_jax.finetune, or a Hugging Face folder. The texts
are arguments or, without any, lines on stdin; answers come in the order of the texts, as soon as
they are known. Each task tells its input, output and flags: python -m bert_jax.predict TASK --help.
"""

import argparse
import json
import sys
from collections.abc import Iterable

import jax

from bert_jax import cli
from bert_jax.errors import UserError
from bert_jax.predictions import lines
from bert_jax.predictions.answer import Answer
from bert_jax.predictions.base import Asked
from bert_jax.predictions.classify import Classify
from bert_jax.predictions.embed import Embed
from bert_jax.predictions.fill_mask import FillMask
from bert_jax.predictions.rerank import Rerank
from bert_jax.predictions.tag import Tag
from bert_jax.training.mesh import one_device

TASKS: dict[str, type[Asked]] = {
    "fill-mask": FillMask,
    "classify": Classify,
    "tag": Tag,
    "answer": Answer,
    "embed": Embed,
    "rerank": Rerank,
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        cli.leave(f"{message}; see --help")


def main() -> None:
    task, arguments = parse(sys.argv[1:])
    with cli.guarded():
        texts = arguments.texts
        chunks = [task.given(texts)] if texts else lines.stdin_chunks(0)
        with jax.set_mesh(one_device()):
            predict(task(arguments), chunks)


def parse(words: list[str]) -> tuple[type[Asked], argparse.Namespace]:
    """The task, which comes first, and what it is told."""
    if not words or words[0] in ("--help", "-h"):
        if not words:
            cli.leave(f"the task is missing: one of {', '.join(TASKS)}; see --help")
        print(__doc__.strip())
        sys.exit(0)
    if (task := TASKS.get(words[0])) is None:
        cli.leave(f"{words[0]!r} is no task: name one of {', '.join(TASKS)} first; see --help")
    parser = Parser(
        prog=f"python -m bert_jax.predict {words[0]}", description=task.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--model", required=True, help="a workdir or a Hugging Face folder")
    task.add_flags(parser)
    return task, parser.parse_intermixed_args(words[1:])


def predict(task: Asked, chunks: Iterable[list[lines.Line]]) -> None:
    """Print the answers. What stands before a line that is refused is answered first."""
    for chunk in chunks:
        requests, wrong = [], None
        for line in chunk:
            try:
                if task.blank or line.text.strip():
                    requests.append(task.read(line))
            except UserError as error:
                wrong = error
                break
        if requests:
            for answer in task.answer(requests):
                print(json.dumps(answer, ensure_ascii=False))
            sys.stdout.flush()
        if wrong:
            raise wrong


if __name__ == "__main__":
    main()
