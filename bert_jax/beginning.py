"""What a new run takes over from a MODEL (--init): its parameters, and the optimiser's state."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from bert_jax import config as configs, finetuned, pretrained
from bert_jax.config import RunConfig
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.errors import UserError
from bert_jax.interop.folder import is_folder
from bert_jax.models.adapters import is_adapter
from bert_jax.models.config import EncoderConfig
from bert_jax.objectives import build_objective
from bert_jax.pretrained import Pretrained
from bert_jax.store import Folder
from bert_jax.training.checkpoint import restore_state
from bert_jax.training.optim import build_optimizer, is_moments
from bert_jax.training.step import Objective, TrainState

# What has to be equal for parameters to mean the same, beside the tokenizer's pieces.
_ARITHMETIC = (
    "hidden_size", "embedding_size", "num_layers", "share", "num_heads", "intermediate_size",
    "max_positions", "position_offset", "type_vocab_size", "activation", "layer_norm_epsilon",
)  # fmt: skip
_BY_PIECE = ("embedding_vd", "vocab_bias_v")  # roles of the parameters with a row a piece


def begin(
    model: str | Folder,
    objective: Objective,
    config: EncoderConfig,
    parameters: nnx.State,
    tokenizer: Tokenizer,
    heads: bool = True,
) -> list[str]:
    """Fill fresh parameters, in place, with those of a MODEL, `heads` too or the encoder alone;
    returns notes.

    A run with the same parts gives each of its own. Else the one model fills the encoder, which
    has to be of its shape, and a generator where that is of its shape too. Pieces that the
    tokenizer has behind the model's begin from the mean of those that they are made of.

    Raises UserError where it does not fit, where its tokenizer gives other ids, and where a part
    that stays frozen would not begin from a trained one.
    """
    notes = []
    sources = {name: source.merged() for name, source in pretrained.load_all(model).items()}
    first = next(iter(sources.values()))
    parts = _parts_of_new_pieces(first, tokenizer)
    for number, name in enumerate(objective.parts):
        source = sources[name] if tuple(sources) == objective.parts else first
        size, part = objective.part(name, config, parameters)
        try:
            notes.append(_fill(part, source, size, name, parts, heads))
        except UserError as error:
            if number == 0 or any(path[0] == name for path in objective.frozen):
                raise
            notes.append(f"the {name} begins anew: {error}")
    if parts:
        unlike = sum(not ids for ids in parts)
        notes.append(
            f"{len(parts)} pieces are new: the row of each begins from the mean of those that it "
            f"was made of" + (f"; {unlike} were of none, and begin anew" if unlike else "")
        )
    return notes


def _parts_of_new_pieces(source: Pretrained, tokenizer: Tokenizer) -> list[list[int]]:
    """For each piece behind those of the model, the ids of the model's that it is made of; []
    where it was unknown. Raises UserError where the first ids are not the model's."""
    theirs, mine = source.tokenizer, tokenizer
    same = theirs.vocab_size <= mine.vocab_size and all(
        theirs.piece(number) == mine.piece(number) for number in range(theirs.vocab_size)
    )
    if not same:
        raise UserError(
            f"--init={source.name}: its tokenizer gives other ids than the corpus's; prepare the "
            f"corpus with corpus.tokenizer={source.name}"
        )
    unknown = theirs.vocabulary.unk
    new = (theirs.parts_of(mine.piece(n)) for n in range(theirs.vocab_size, mine.vocab_size))
    return [[] if unknown in ids else ids for ids in new]


def _fill(
    target: nnx.State, source: Pretrained, config: EncoderConfig, name: str,
    parts: list[list[int]], heads: bool,
) -> str:  # fmt: skip
    """The encoder, and the heads of equal name and shape. Nothing is changed before all of the
    encoder is known to fit."""
    for field in _ARITHMETIC:
        mine, theirs = getattr(config, field), getattr(source.config, field)
        if mine != theirs:
            raise UserError(
                f"--init={source.name}: has {field}={theirs} and the {name} {mine}; give the "
                f"config of that model"
            )
    theirs, pairs, fresh = dict(nnx.to_flat_state(source.parameters)), [], []
    for path, variable in nnx.to_flat_state(target):
        found = theirs.get(path) if heads or path[0] != "heads" else None
        if found is not None and _fits(found, variable):
            pairs.append((variable, found.get_value()))
        elif is_adapter(path):
            fresh.append("the adapters")
        elif path[0] == "encoder" and path[1] != "pooler":
            shape = "missing" if found is None else f"of shape {found.get_value().shape}"
            raise UserError(
                f"--init={source.name}: its {'.'.join(map(str, path))} is {shape}, and the "
                f"{name}'s is of shape {variable.get_value().shape}; give the config of that model"
            )
        else:
            fresh.append(".".join(map(str, path[:2])))
    old = source.tokenizer.vocab_size
    for variable, value in pairs:
        begun = variable.get_value()
        if variable.get_metadata("role") in _BY_PIECE and (parts or value.shape != begun.shape):
            value = _with_new_rows(value, old, begun, parts)
        # A copy: one model may fill two parts, and the train step donates each of its buffers.
        variable.set_value(jax.device_put(jnp.copy(value), begun.sharding))
    new = f"; new: {', '.join(dict.fromkeys(fresh))}" if fresh else ""
    return f"the {name} begins from {source.name}{new}"


def _fits(found: nnx.Variable, variable: nnx.Variable) -> bool:
    """Of equal shape; the rows of pieces may be more, or others only to pad the vocabulary."""
    theirs, mine = found.get_value().shape, variable.get_value().shape
    by_piece = variable.get_metadata("role") in _BY_PIECE
    return theirs[1:] == mine[1:] if by_piece else theirs == mine


def _with_new_rows(
    found: Float[Array, "W *E"], old: int, begun: Float[Array, "V *E"], parts: list[list[int]]
) -> Float[Array, "V *E"]:
    """The first `old` rows of `found`, then the mean of those that `parts` names for each new one
    (Koto et al. 2021, IndoBERTweet), then what was `begun`, which no piece has."""
    most, last = max(map(len, parts), default=0), old + len(parts)
    ids, shares = np.zeros((len(parts), most), np.int32), np.zeros((len(parts), most), np.float32)
    for row, mine in enumerate(parts):
        ids[row, : len(mine)], shares[row, : len(mine)] = mine, 1 / max(len(mine), 1)

    @jax.jit
    def rows(
        found: Float[Array, "W *E"], begun: Float[Array, "V *E"], ids: Int[Array, "N parts"],
        shares: Float[Array, "N parts"],
    ) -> Float[Array, "V *E"]:  # fmt: skip
        found, begun = (
            jax.sharding.reshard(x, PartitionSpec(*(None,) * x.ndim)) for x in (found, begun)
        )
        known = jnp.any(shares > 0, axis=1).reshape(-1, *(1,) * (begun.ndim - 1))
        means = jnp.einsum("np,np...->n...", shares, found[ids])
        new = jnp.where(known, means, begun[old:last])
        return jnp.concatenate([found[:old], new, begun[last:]])

    return rows(found, begun, ids, shares)


def check_optimizer(model: str | Folder, config: RunConfig, objective: Objective) -> None:
    """Raises UserError where a run cannot take over the optimiser's state of the MODEL: it is no
    workdir of pretrain, has another optimiser, or other parameters."""
    folder = pretrained.existing(model)
    workdir, _ = pretrained.workdir_of(folder)
    fresh, where = "leave out --init_optimizer to begin with a fresh one", f"--init={folder}"
    if is_folder(workdir) or finetuned.is_finetuned(workdir):
        raise UserError(
            f"{where}: has no state of an optimiser, as it is no workdir of bert_jax.pretrain; "
            f"{fresh}"
        )
    theirs = configs.load(workdir)
    for field in ("name", "bias_correction"):
        mine, other = getattr(config.optimizer, field), getattr(theirs.optimizer, field)
        if mine != other:
            raise UserError(
                f"{where}: its optimiser has {field}={other} and this run's {mine}; set "
                f"optimizer.{field}={other}, or {fresh}"
            )
    if theirs.model.vocab_size != config.model.vocab_size:
        raise UserError(
            f"{where}: has {theirs.model.vocab_size} pieces and this run "
            f"{config.model.vocab_size}, and new ones have no state in its optimiser; {fresh}"
        )
    source = build_objective(theirs.objective, theirs.model, theirs.generator)
    has, needs = _shapes(source, theirs.model), _shapes(objective, config.model)
    if unlike := sorted(path for path in has | needs if has.get(path) != needs.get(path)):
        raise UserError(
            f"{where}: {unlike[0]} is not the same in both (there {has.get(unlike[0], 'none')}, "
            f"here {needs.get(unlike[0], 'none')}), and all parameters have to be; {fresh}"
        )


def with_optimizer(model: str | Folder, state: TrainState) -> tuple[TrainState, list[str]]:
    """The state with parameters, moments and the count of their updates as one checkpoint of the
    MODEL has them; the step, and with it the schedule, is as it was. `check_optimizer` has passed,
    and `begin`."""
    workdir, step = pretrained.workdir_of(pretrained.existing(model))
    theirs = configs.load(workdir)
    objective = build_objective(theirs.objective, theirs.model, theirs.generator)
    tx = build_optimizer(theirs.optimizer, theirs.train.steps, objective.frozen)
    like = replace(state, optimizer=jax.jit(tx.init)(state.parameters))
    found, at = restore_state(workdir, like, step)
    (moments,) = (node for node in _nodes(found.optimizer) if is_moments(node))
    optimizer = jax.tree.map(
        lambda node: moments if is_moments(node) else node, state.optimizer, is_leaf=is_moments
    )
    note = f"the optimiser's moments are those of step {at}; its schedule begins"
    return replace(state, parameters=found.parameters, optimizer=optimizer), [note]


def _nodes(optimizer: optax.OptState) -> list:
    return jax.tree.leaves(optimizer, is_leaf=is_moments)


def _shapes(objective: Objective, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    abstract = nnx.eval_shape(lambda: objective.build(config, nnx.Rngs(0)))
    return {
        ".".join(map(str, path)): variable.get_value().shape
        for path, variable in nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    }
