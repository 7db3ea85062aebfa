"""Write a model as a Hugging Face folder, which transformers loads.

  python -m bert_jax.convert --model=runs/base --output=base-hf
  python -m bert_jax.convert --model=runs/electra --part=generator --output=generator-hf

MODEL is a workdir of bert_jax.pretrain or bert_jax.finetune, a checkpoint in it
(runs/base/checkpoints/120000) or a Hugging Face folder. The folder that is written holds
config.json, model.safetensors, tokenizer.json and tokenizer_config.json; nothing here needs torch.
A run with a generator has the parts discriminator (the default) and generator. What was fine-tuned
with adapt.kind=lora is merged into the kernels.
"""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax import nnx

from bert_jax import cli, pretrained
from bert_jax.data.vocabulary import SPELLINGS
from bert_jax.errors import UserError
from bert_jax.interop.folder import write_folder
from bert_jax.store import Folder, reach, upload
from bert_jax.training.mesh import one_device

flags.DEFINE_string("model", "", "a workdir or a Hugging Face folder")
flags.DEFINE_string("output", "", "the folder to write; it must not be there yet")
flags.DEFINE_string("part", "", "of a run that trained several models: which")


def main() -> None:
    model, output = cli.required("model"), reach(cli.required("output"))
    if output.exists():
        raise UserError(f"{output}: exists already; name a new folder, or delete it first")
    mesh = one_device()
    with jax.set_mesh(mesh):
        source = pretrained.load(model, flags.FLAGS.part)
        notes = convert(source, output) if isinstance(output, Path) else _send(source, output)
    for note in notes:
        print(note)
    print(f"{output}: {json.loads((output / 'config.json').read_text())['architectures'][0]}")


def convert(source: pretrained.Pretrained, output: Path) -> list[str]:
    """Write the model to the folder, its adapters merged into the kernels; returns notes on what
    could not be taken along. Raises UserError where they cannot be merged."""
    source = source.merged()
    vocabulary = source.tokenizer.vocabulary
    parameters = {
        ".".join(map(str, path)): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(source.parameters)
    }
    if not all(np.isfinite(array).all() for array in parameters.values()):
        raise UserError(f"{source.name}: its parameters are not finite: the run had diverged")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.config.max_positions,
        **{f"{role}_token": name for role, name in zip(SPELLINGS, vocabulary.names, strict=True)},
    }
    return write_folder(
        output, source.config, parameters, source.heads,
        {"pad": vocabulary.pad, "cls": vocabulary.cls, "sep": vocabulary.sep},
        {
            "tokenizer.json": source.tokenizer.to_json(),
            "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        },
        source.labels,
    )  # fmt: skip


def _send(source: pretrained.Pretrained, output: Folder) -> list[str]:
    """Into a store, config.json last: without it the folder is no model."""
    with tempfile.TemporaryDirectory() as scratch:
        notes = convert(source, Path(scratch) / output.name)
        upload(Path(scratch) / output.name, output, "config.json", lambda done, total: None)
    return notes


if __name__ == "__main__":
    cli.run(main, __doc__)
