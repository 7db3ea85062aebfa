"""A MODEL, as every program takes one: a workdir of pretrain, which means its newest checkpoint,
or WORKDIR/checkpoints/STEP, or a Hugging Face folder."""

import hashlib
import json
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
from bert_jax.models.adapters import PLAIN, AdaptConfig, merge, split
from bert_jax.models.config import EncoderConfig
from bert_jax.models.sharding import RULES, is_variable
from bert_jax.objectives import build_objective, build_pretrained
from bert_jax.objectives.base import EncoderWithHeads
from bert_jax.store import Folder, local_copy, reach
from bert_jax.training.checkpoint import FOLDER as CHECKPOINTS, digest, restore_parameters
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
    adapt: AdaptConfig = PLAIN  # what was fine-tuned in place of the encoder

    @property
    def graph(self) -> nnx.GraphDef:
        return nnx.graphdef(
            nnx.eval_shape(
                lambda: build_pretrained(self.config, self.heads, nnx.Rngs(0), self.adapt)
            )
        )

    def module(self, parameters: nnx.State) -> EncoderWithHeads:
        return nnx.merge(self.graph, parameters)

    def merged(self) -> "Pretrained":
        """The same model without adapters. Raises UserError where they are no part of kernels."""
        if not self.adapt.kind:
            return self
        if self.adapt.kind == "bottleneck":
            raise UserError(
                f"{self.name}: bottleneck adapters are layers of their own, which cannot be merged "
                f"into the model's kernels; evaluate and predict take it as it is"
            )
        return replace(self, parameters=merge(self.parameters, self.adapt), adapt=PLAIN)

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
    model = replace(config.model, dtype="float32", attention="einsum")
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
    """Of its best epoch, where no step is named. Where adapters were trained, they are put into
    the model that they were trained in."""
    facts, best = finetuned.read_model(workdir)
    size = replace(facts.model, dtype="float32", attention="einsum")
    heads, adapt = (facts.head,), facts.adapt
    base = _base(workdir, facts) if facts.base else None

    def fresh() -> tuple[nnx.State, nnx.State]:
        module = build_pretrained(size, heads, nnx.Rngs(0), adapt)
        placed = jax.tree.map(place, nnx.state(module, nnx.Param), is_leaf=is_variable)
        return split(placed, adapt, new_pooler=base is None or not base.config.pooler)

    like = jax.jit(lambda: fresh()[0])()
    parameters, _ = restore_parameters(workdir, like, step or best)
    if base is not None:
        frozen = _taken(jax.eval_shape(fresh)[1], base)
        if fingerprint(frozen) != facts.base:
            raise UserError(
                f"{workdir} was trained beside other parameters than {facts.init} has now; set "
                f"init in {workdir / finetuned.MODEL} to the model that it was (of a run that went "
                f"on since, its checkpoint, as RUN/checkpoints/STEP)"
            )
        parameters = nnx.merge_state(parameters, frozen)
    tokenizer = load_tokenizer(workdir / "tokenizer")
    return Pretrained(str(workdir), size, heads, parameters, tokenizer, facts.labels, adapt)


def _base(workdir: Folder, facts: finetuned.FineTuned) -> Pretrained:
    try:
        return load(facts.init).merged()
    except UserError as error:
        raise UserError(
            f"{workdir} holds adapters alone, and the model that they were trained in cannot be "
            f"read ({error}); set init in {workdir / finetuned.MODEL} to where it is now, or give "
            f"it to bert_jax.finetune there again as --init"
        ) from error


def _taken(wanted: nnx.State, base: Pretrained) -> nnx.State:
    """The parameters of those paths, as far as the model has them."""
    theirs = dict(nnx.to_flat_state(base.parameters))
    paths = [path for path, _ in nnx.to_flat_state(wanted) if path in theirs]
    return nnx.from_flat_state([(path, theirs[path]) for path in paths])


def fingerprint(parameters: nnx.State) -> str:
    """The same for the same parameters, whatever mesh they are on."""
    flat = sorted(
        (".".join(map(str, path)), variable.get_value())
        for path, variable in nnx.to_flat_state(parameters)
    )
    sums = jax.device_get(jax.jit(digest)([value for _, value in flat])).tolist()
    facts = [[name, value.shape, number] for (name, value), number in zip(flat, sums, strict=True)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def parts_of(model: str | Folder) -> tuple[str, ...]:
    """The parts of a workdir that a program can ask for; () for a Hugging Face folder."""
    folder = existing(model)
    if is_folder(workdir_of(folder)[0]) or finetuned.is_finetuned(workdir_of(folder)[0]):
        return ()
    config = configs.load(workdir_of(folder)[0])
    return build_objective(config.objective, config.model, config.generator).parts
