"""A Hugging Face folder to an encoder with heads, and back: config.json and safetensors."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import save_file

from bert_jax.errors import UserError
from bert_jax.interop import FAMILIES
from bert_jax.interop.family import Family
from bert_jax.interop.labels import LABEL_HEADS, names_of, which_head, written
from bert_jax.interop.rows import Row
from bert_jax.interop.tensors import WEIGHTS, Tensors
from bert_jax.models.config import SHARED, EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import HEADS
from bert_jax.store import Folder

CONFIG = "config.json"
POOLED_HEADS = ("nsp", "sop", "classify", "choose")  # they read the pooled first token


@dataclass(frozen=True)
class Converted:
    """An encoder and heads by our names: `parameters` by dotted path, float32. `notes` say what
    the folder had, or lacked, beside them; `labels` names what a head tells apart, where that has
    names."""

    config: EncoderConfig
    heads: tuple[str, ...]
    parameters: dict[str, np.ndarray]
    labels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def is_folder(path: Folder) -> bool:
    """Whether config.json there is one of transformers: they all say their model_type.

    Raises UserError where there is no config.json that can be read.
    """
    try:
        values = json.loads((path / CONFIG).read_text())
    except (OSError, ValueError) as error:
        reason = "is not JSON" if isinstance(error, ValueError) else "cannot be read"
        raise UserError(
            f"{path / CONFIG}: {reason}; name a workdir of bert_jax.pretrain or a Hugging Face "
            f"folder"
        ) from error
    return isinstance(values, dict) and "model_type" in values


def read_folder(folder: Path) -> Converted:
    """Raises UserError for a folder or family that cannot be read, naming what is wrong."""
    values = json.loads((folder / CONFIG).read_text())
    family = _family(folder, values["model_type"])
    tensors = Tensors(folder, family)
    heads = _heads(tensors, family, values)
    pooler = f"{family.pooler_of(heads)}.weight" in tensors.names
    notes: list[str] = []
    if not pooler and (lost := [head for head in heads if head in POOLED_HEADS]):
        heads = tuple(head for head in heads if head not in lost)
        notes.append(f"{folder}: not used: the {lost[0]} head, as there is no pooler to feed it")
    width = _width(tensors, family, heads)
    try:
        config = family.to_ours(values, heads, pooler, width)
        labels = names_of(values, heads, config.num_labels)
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: {error}") from error
    if reason := family.why_not(config, heads):
        raise UserError(f"{folder}: config.json is of no {family.model_types[0]}: {reason}")
    parameters, used, shapes = {}, set(), _shapes(config, heads)
    for row in family.rows(config, heads):
        count = _layers(row, config)
        parts = [tensors.all(row, layer) for layer in range(max(count, 1))]
        used |= {name for _, names in parts for name in names}
        arrays = [_join(row, config, [_cut(name, x, config, notes) for name, x in
                                      zip(names, xs, strict=True)], folder)
                  for xs, names in parts]  # fmt: skip
        parameters[row.ours] = np.stack(arrays) if count else arrays[0]
        if parameters[row.ours].shape != (wanted := shapes[row.ours]):
            raise UserError(
                f"{folder}: {row.theirs[0]} has shape {parts[0][0][0].shape}, and config.json "
                f"leads to {wanted} in {row.ours}"
            )
    tensors.check_aliases(family.aliases)
    if extra := tensors.names - used - family.aliases.keys():
        shown = ", ".join(sorted(extra)[:4]) + (", ..." if len(extra) > 4 else "")
        notes.append(f"{folder}: not used: {len(extra)} tensor(s): {shown}")
    return Converted(config, heads, parameters, labels, list(dict.fromkeys(notes)))


def write_folder(
    folder: Path,
    config: EncoderConfig,
    parameters: Mapping[str, np.ndarray],
    heads: Iterable[str],
    special_ids: Mapping[str, int],
    files: Mapping[str, str],
    labels: Sequence[str] = (),
) -> list[str]:
    """Write a folder that transformers loads; returns notes on what it could not take along.

    `special_ids`: ids of pad, cls and sep. `files`: further files, as the tokenizer's. `labels`:
    names of what a head tells apart, where that has names. Raises UserError where the folder exists
    and where no architecture of transformers is this encoder.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder, or delete it first")
    family, kept, notes = _choose(config, tuple(heads), special_ids)
    tensors: dict[str, np.ndarray] = {}
    for row in family.rows(config, kept):
        value, count = np.asarray(parameters[row.ours], np.float32), _layers(row, config)
        copies = 1 if config.share == "all" else config.num_layers  # of what is shared in part
        for layer in range(count or (copies if "{}" in row.theirs[0] else 1)):
            arrays = row.part(value[layer] if count else value)
            for name, array in zip(row.theirs, arrays, strict=True):
                tensors[name.format(layer)] = np.ascontiguousarray(array)
    values = family.to_theirs(config, kept) | {
        "pad_token_id": special_ids["pad"],
        "bos_token_id": special_ids["cls"],
        "eos_token_id": special_ids["sep"],
        **written(kept, config.num_labels, labels),
    }
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        save_file(tensors, scratch / WEIGHTS, {"format": "pt"})  # transformers asks for the word
        (scratch / CONFIG).write_text(json.dumps(values, indent=2) + "\n")
        for name, text in files.items():
            (scratch / name).write_text(text)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: cannot be written ({error}); make room, or name another folder"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return notes


def _choose(
    config: EncoderConfig, heads: tuple[str, ...], special_ids: Mapping[str, int]
) -> tuple[Family, tuple[str, ...], list[str]]:
    """The family that takes most of the heads, which of them, and notes on the others."""
    reasons, found = [], []
    for family in FAMILIES:
        kept_here = tuple(head for head in family.heads if head in heads)
        reason = family.why_not(config, kept_here)
        if not reason and config.position_offset not in (0, special_ids["pad"] + 1):
            reason = (
                f"its positions begin at the padding's id + 1 = {special_ids['pad'] + 1}, these at "
                f"{config.position_offset}"
            )
        if reason:
            reasons.append(f"not {family.model_types[0]}: {reason}")
            continue
        for kept in family.architectures:
            if set(kept) <= set(heads):
                # Of equals the one whose fine-tuning adds a pooler of this activation; tanh is also
                # what a config has that says nothing.
                alike = config.pooler_activation in (family.pooler_activation, "tanh")
                found.append(((len(kept), alike), family, kept))
    if not found:
        raise UserError(f"transformers has no architecture for this encoder ({'; '.join(reasons)})")
    _, family, kept = max(found, key=lambda entry: entry[0])
    lost = [head for head in heads if head not in kept]
    notes = [f"left out: the {h} head, which {family.architectures[kept]} has not" for h in lost]
    if config.share not in ("all", "none"):
        notes.append("shared parts were written once a layer: theirs shares whole layers or none")
    return family, kept, notes


def _layers(row: Row, config: EncoderConfig) -> int:
    """The length of our first axis that counts layers; 0 where there is none."""
    part = row.ours.removeprefix("encoder.layers.").partition(".")[0]
    stacked = row.ours.startswith("encoder.layers.") and part not in SHARED[config.share]
    return config.num_layers if stacked else 0


def _shapes(config: EncoderConfig, heads: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Of our parameters, by dotted path."""

    def build() -> dict[str, nnx.State]:
        rngs = nnx.Rngs(0)
        modules = {f"heads.{name}": HEADS[name](config, rngs) for name in heads}
        modules["encoder"] = Encoder(config, rngs)
        return {name: nnx.state(module, nnx.Param) for name, module in modules.items()}

    return {
        ".".join(map(str, (name, *path))): variable.get_value().shape
        for name, state in jax.eval_shape(build).items()
        for path, variable in nnx.to_flat_state(state)
    }


def _heads(tensors: Tensors, family: Family, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The head that it was fine-tuned with, else those that it was pretrained with."""
    there = tuple(
        head
        for head, rows in family.heads.items()
        if any(name in tensors.names for row in rows(EncoderConfig()) for name in row.theirs)
    )
    head = which_head(values.get("architectures"), there)
    return (head,) if head else tuple(one for one in there if one not in LABEL_HEADS)


def _width(tensors: Tensors, family: Family, heads: tuple[str, ...]) -> int:
    """How many logits the head of a fine-tuned model gives; 0 where there is none."""
    if not set(heads) & set(LABEL_HEADS):
        return 0
    _, bias = family.heads[heads[0]](EncoderConfig())
    return len(tensors.get(bias.theirs[0]))


def _cut(name: str, array: np.ndarray, config: EncoderConfig, notes: list[str]) -> np.ndarray:
    """Rows beyond vocab_size only pad the vocabulary: some trainers round it up."""
    of_vocabulary = name.endswith(("word_embeddings.weight", "predictions.bias", "lm_head.bias"))
    if of_vocabulary and len(array) > config.vocab_size:
        notes.append(f"{name}: {len(array)} rows cut to vocab_size={config.vocab_size}")
        return array[: config.vocab_size]
    return array


def _join(row: Row, config: EncoderConfig, arrays: list[np.ndarray], folder: Path) -> np.ndarray:
    try:
        return np.ascontiguousarray(row.join(arrays))
    except ValueError as error:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UserError(
            f"{folder}: {row.theirs[0]} has shape {shapes}, which config.json does not lead to"
        ) from error


def _family(folder: Path, model_type: object) -> Family:
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UserError(f"{folder}: model_type={model_type!r} is not one of {known}")
