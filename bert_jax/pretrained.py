"""A MODEL, as every program takes one: a workdir of pretrain, which means its newest checkpoint,
or WORKDIR/checkpoints/STEP, or a Hugging Face folder."""

import sys
from dataclasses import dataclass, replace

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from bert_jax import config as configs, finetuned
from bert_jax.data.tokenizers import Tokenizer, load_tokenizer
from bert_jax.errors import UserError
from bert_jax.interop.folder import is_folder, read_folder
from bert_jax.models.config import EncoderConfig
from bert_jax.models.sharding import RULES, is_variable
from bert_jax.objectives import build_objective, build_pretrained
from bert_jax.objectives.base import EncoderWithHeads
from bert_jax.store import Folder, local_copy, reach
from bert_jax.training.checkpoint import FOLDER as CHECKPOINTS, restore_parameters
from bert_jax.training.step import init_parameters, place


@dataclass(frozen=True)
class Pretrained:
    """An encoder and its heads: parameters as an EncoderWithHeads has them, float32."""

    name: str
    config: EncoderConfig
    heads: tuple[str, ...]
    parameters: nnx.State
    tokenizer: Tokenizer
    labels: tuple[str, ...] = ()  # names of what a fine-tuned head tells apart

    @property
    def graph(self) -> nnx.GraphDef:
        return nnx.graphdef(
            nnx.eval_shape(lambda: build_pretrained(self.config, self.heads, nnx.Rngs(0)))
        )

    def module(self, parameters: nnx.State) -> EncoderWithHeads:
        return nnx.merge(self.graph, parameters)

    def require(self, head: str, purpose: str) -> None:
        if head not in self.heads:
            has = ", ".join(self.heads) or "none"
            raise UserError(
                f"{self.name}: has no {head} head, so it cannot {purpose} (heads: {has})"
            )


def load(model: str | Folder, part: str = "") -> Pretrained:
    """The MODEL on the current mesh. `part`: of a workdir whose objective trained several, which
    ('' for the first). Notes on what was not taken go to stderr.

    Raises UserError where it is no model, or has no such part.
    """
    folder = existing(model)
    if not is_folder(workdir_of(folder)[0]):
        return next(iter(_from_workdir(folder, part).values()))
    if part:
        raise UserError(f"{folder}: a Hugging Face folder is one model and has no part {part!r}")
    return _from_folder(folder)


def load_all(model: str | Folder) -> dict[str, Pretrained]:
    """As `load`, every part by its name; a Hugging Face folder's only one is called ''."""
    folder = existing(model)
    if is_folder(workdir_of(folder)[0]):
        return {"": _from_folder(folder)}
    return _from_workdir(folder)


def existing(model: str | Folder) -> Folder:
    """Raises UserError where the MODEL is no folder."""
    folder = reach(str(model))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise UserError(
            f"{folder}: {what}; name a workdir, a checkpoint in it or a Hugging Face folder"
        )
    return folder


def _from_folder(folder: Folder) -> Pretrained:
    with local_copy(folder) as local:
        found = read_folder(local)
        tokenizer = load_tokenizer(local)
    for note in found.notes:
        print(note.replace(str(local), str(folder)), file=sys.stderr)
    if tokenizer.vocab_size > found.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids and the model "
            f"{found.config.vocab_size}; they are not of one model"
        )
    abstract = nnx.eval_shape(lambda: build_pretrained(found.config, found.heads, nnx.Rngs(0)))
    state = nnx.from_flat_state(
        [
            (path, _placed(variable, found.parameters[".".join(map(str, path))]))
            for path, variable in nnx.to_flat_state(nnx.state(abstract, nnx.Param))
        ]
    )
    return Pretrained(str(folder), found.config, found.heads, state, tokenizer, found.labels)


def _placed(variable: nnx.Variable, array: np.ndarray) -> nnx.Variable:
    """The parameter under the sharding of its role; each process fills what its devices hold."""
    sharding = NamedSharding(jax.sharding.get_mesh(), RULES.parameter(variable))
    value = jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
    return variable.replace(value)


def workdir_of(folder: Folder) -> tuple[Folder, int | None]:
    """Of a workdir itself and None, for the newest checkpoint; of a checkpoint in it both."""
    if folder.parent.name == CHECKPOINTS and folder.name.isdigit():
        return folder.parent.parent, int(folder.name)
    return folder, None


def _from_workdir(folder: Folder, part: str | None = None) -> dict[str, Pretrained]:
    """The part of that name, '' for the first, or all; the checkpoint is read once."""
    workdir, step = workdir_of(folder)
    if finetuned.is_finetuned(workdir):
        return {"": _from_finetuned(workdir, step)}
    config = configs.load(workdir)
    model = replace(config.model, dtype="float32")
    objective = build_objective(config.objective, model, config.generator)
    names = objective.parts if part is None else (part or objective.parts[0],)
    if not set(names) <= set(objective.parts):
        raise UserError(
            f"{workdir}: has no part {part!r}; there is {' and '.join(objective.parts)}"
        )
    like = init_parameters(objective, model, config.seed)
    parameters, _ = restore_parameters(workdir, like, step)
    tokenizer, found = load_tokenizer(workdir / "tokenizer"), {}
    for name in names:
        size, state = objective.part(name, model, parameters)
        if not state["heads"]:
            print(f"{workdir}: the head that copies its input is left out", file=sys.stderr)
        found[name] = Pretrained(str(workdir), size, tuple(state["heads"]), state, tokenizer)
    return found


def _from_finetuned(workdir: Folder, step: int | None) -> Pretrained:
    """Of its best epoch, where no step is named."""
    head, size, labels, best = finetuned.read_model(workdir)
    size = replace(size, dtype="float32")

    def fresh() -> nnx.State:
        module = build_pretrained(size, (head,), nnx.Rngs(0))
        return jax.tree.map(place, nnx.state(module, nnx.Param), is_leaf=is_variable)

    parameters, _ = restore_parameters(workdir, jax.jit(fresh)(), step or best)
    tokenizer = load_tokenizer(workdir / "tokenizer")
    return Pretrained(str(workdir), size, (head,), parameters, tokenizer, labels)


def parts_of(model: str | Folder) -> tuple[str, ...]:
    """The parts of a workdir that a program can ask for; () for a Hugging Face folder."""
    folder = existing(model)
    if is_folder(workdir_of(folder)[0]) or finetuned.is_finetuned(workdir_of(folder)[0]):
        return ()
    config = configs.load(workdir_of(folder)[0])
    return build_objective(config.objective, config.model, config.generator).parts
