"""A fine-tuned model: what its workdir says of it, and its outputs on examples."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bert_jax.config import built, differences
from bert_jax.data.labelled.batches import LabelledEvaluation
from bert_jax.data.labelled.features import Examples
from bert_jax.data.loader import read
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.models.adapters import PLAIN, AdaptConfig
from bert_jax.models.config import EncoderConfig
from bert_jax.store import Folder
from bert_jax.tasks.base import FineTuning
from bert_jax.training.feed import Feed
from bert_jax.training.step import Batch, Losses, graph

CONFIG, MODEL = "config.json", "model.json"
SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
Forward = Callable[[nnx.State, Batch], tuple[Float[Array, "B *each C"], Losses]]


@dataclass(frozen=True)
class FineTuned:
    """What model.json says of a fine-tuned model. `data`: a fingerprint of the examples.

    Where adapters were trained, the checkpoints hold what was trained alone. The rest is in the
    MODEL `init`, and `base` is the fingerprint of it.
    """

    init: str
    head: str
    model: EncoderConfig
    labels: tuple[str, ...]
    adapt: AdaptConfig = PLAIN
    base: str = ""
    data: str = ""


def begin(workdir: Folder, config: Any, model: FineTuned) -> None:
    """Write what the workdir is; `config` is a dataclass. Raises UserError where another run was
    begun there. A field that was not there yet when it was begun has its default; a base may have
    moved."""
    texts = {
        name: json.dumps(asdict(values), indent=2) + "\n"
        for name, values in ((MODEL, model), (CONFIG, config))  # killed between, it has the first
    }
    if (workdir / CONFIG).exists():
        if not is_finetuned(workdir):
            raise UserError(
                f"{workdir}: is the workdir of another program; give another --workdir, or this "
                f"one as --init"
            )
        _check_same(workdir, CONFIG, asdict(_read(workdir / CONFIG, type(config))), asdict(config))
    if (workdir / MODEL).exists():
        began = _read_facts(workdir)
        began = replace(began, data=began.data or model.data)
        if began.data != model.data and replace(began, data=model.data) == model:
            raise UserError(
                f"{workdir} was begun with other examples or another tokenizer; bring back the "
                f"files that it was begun with, or give another --workdir to start anew"
            )
        mine = replace(began, init=model.init) if model.base else began
        if mine != model == replace(mine, base=model.base):
            raise UserError(
                f"{workdir} was begun from other parameters than {model.init} has now; name the "
                f"model that it was begun from (of a run that went on since, its checkpoint), or "
                f"another --workdir to start anew"
            )
        _check_same(workdir, MODEL, asdict(mine), asdict(model))
    for name, text in texts.items():
        write_whole(workdir / name, text)


def _check_same(workdir: Folder, name: str, began: dict, now: dict) -> None:
    """Raises UserError, which names what differs first."""
    for field, old, new in differences(began, now):
        raise UserError(
            f"{workdir} was begun with {field}={old!r} ({name}), and now it is {new!r}; give the "
            f"old value to go on, or another --workdir to start anew"
        )


def _read[Config](path: Folder, kind: type[Config]) -> Config:
    try:
        return built(kind, json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, UserError) as error:
        raise UserError(f"{path}: cannot be read ({error}); bring back a copy") from error


def _read_facts(workdir: Folder) -> FineTuned:
    try:
        facts = json.loads((workdir / MODEL).read_text())
        return FineTuned(
            facts["init"], facts["head"], built(EncoderConfig, facts["model"]),
            tuple(facts["labels"]), built(AdaptConfig, facts.get("adapt", {})),
            facts.get("base", ""), facts.get("data", ""),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{workdir / MODEL}: cannot be read ({error}); bring back a copy"
        ) from error


def is_finetuned(workdir: Folder) -> bool:
    return (workdir / MODEL).exists()


def read_model(workdir: Folder) -> tuple[FineTuned, int]:
    """What it is, and the step of its best epoch. Raises UserError where no epoch was finished, or
    a file cannot be read."""
    facts = _read_facts(workdir)
    try:
        return facts, int(read_scores(workdir)["step"])
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir}: no epoch of it is finished; start bert_jax.finetune there again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{workdir / SCORES}: cannot be read ({error}); bring back a copy"
        ) from error


def fingerprint(*examples: Examples) -> str:
    """Of all that is learned from them, and scored: token ids, rows and labels."""
    found = hashlib.sha256()
    for one in examples:
        for array in (one.input_ids, one.begins, one.seconds, one.labels, one.weights, one.owners):
            found.update(f"{array.dtype.str} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def make_forward(objective: FineTuning, model: EncoderConfig) -> Forward:
    """Logits of a batch, whole on every device, and its losses; no dropout."""
    graphdef = graph(objective, model)

    def forward(parameters: nnx.State, batch: Batch) -> tuple[Array, Losses]:
        logits = objective.logits(nnx.merge(graphdef, parameters), batch)
        whole = jax.sharding.PartitionSpec(*(None,) * logits.ndim)
        return jax.sharding.reshard(logits, whole), objective.task.score(logits, batch)

    return jax.jit(forward)


def outputs(
    forward: Forward, objective: FineTuning, parameters: nnx.State, examples: Examples,
    lengths: Sequence[int], batch_size: int, mesh: Mesh,
) -> tuple[list[np.ndarray], float]:  # fmt: skip
    """The logits of each example, in order, and the mean loss."""
    evaluation = LabelledEvaluation(examples, lengths, batch_size)
    found: list[np.ndarray] = [np.empty(0)] * len(examples)
    amount = weight = 0.0
    for step, batch in enumerate(Feed(read(evaluation), objective.fields, mesh)):
        logits, losses = forward(parameters, batch)
        logits, terms = jax.device_get((logits, losses.terms))
        for row, number in enumerate(evaluation.numbers(step).tolist()):
            if number >= 0:
                found[number] = logits[row]
        (pair,) = terms.values()
        amount, weight = amount + float(pair[0]), weight + float(pair[1])
    return found, amount / max(weight, 1e-9)


def write_scores(
    workdir: Folder, step: int, epoch: int, scores: Mapping[str, float],
    predictions: Iterable[Mapping[str, Any]],
) -> None:  # fmt: skip
    """The best epoch's; the scores last, so that they are there where all is."""
    write_predictions(workdir, predictions)
    values = {"step": step, "epoch": epoch, "scores": dict(scores)}
    write_whole(workdir / SCORES, json.dumps(values, indent=2) + "\n")


def scored(workdir: Folder) -> int | None:
    """The step that scores.json tells of; None where there is none that can be read."""
    try:
        return int(read_scores(workdir)["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_scores(workdir: Folder) -> dict[str, Any]:
    return json.loads((workdir / SCORES).read_text())


def write_predictions(workdir: Folder, predictions: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in predictions)
    write_whole(workdir / PREDICTIONS, "".join(lines))
