"""A fine-tuned model: what its workdir says of it, and its outputs on examples."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bert_jax.config import built
from bert_jax.data.labelled.batches import LabelledEvaluation
from bert_jax.data.labelled.features import Examples
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.loader import read
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.models.config import EncoderConfig
from bert_jax.store import Folder
from bert_jax.tasks.base import FineTuning
from bert_jax.training.feed import Feed
from bert_jax.training.step import Batch, Losses, graph

CONFIG, MODEL = "config.json", "model.json"
SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
Forward = Callable[[nnx.State, Batch], tuple[Float[Array, "B *each C"], Losses]]


def begin(
    workdir: Folder,
    config: Mapping[str, Any],
    init: str,
    head: str,
    model: EncoderConfig,
    labels: LabelSet | None,
) -> None:
    """Write what the workdir is. Raises UserError where another run was begun there."""
    facts = {
        "init": init, "head": head, "model": asdict(model),
        "labels": list(labels.names) if labels else [],
    }  # fmt: skip
    mine = {CONFIG: dict(config), MODEL: facts}
    for name, values in mine.items():
        path, text = workdir / name, json.dumps(values, indent=2) + "\n"
        if path.exists() and json.loads(path.read_text()) != json.loads(text):
            raise UserError(
                f"{workdir} was begun with another {name}; give what it says there to go on, or "
                f"another --workdir to start anew"
            )
        write_whole(path, text)


def is_finetuned(workdir: Folder) -> bool:
    return (workdir / MODEL).exists()


def read_model(workdir: Folder) -> tuple[str, EncoderConfig, tuple[str, ...], int]:
    """Its head, its sizes, the names of its labels, and the step of the best epoch. Raises
    UserError where no epoch was finished, or a file cannot be read."""
    try:
        facts = json.loads((workdir / MODEL).read_text())
        model = built(EncoderConfig, facts["model"])
        step = int(read_scores(workdir)["step"])
        return facts["head"], model, tuple(facts["labels"]), step
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir}: no epoch of it is finished; start bert_jax.finetune there again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{workdir / MODEL}: cannot be read ({error}); bring back a copy"
        ) from error


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


def write_scores(workdir: Folder, step: int, epoch: int, scores: Mapping[str, float]) -> None:
    values = {"step": step, "epoch": epoch, "scores": dict(scores)}
    write_whole(workdir / SCORES, json.dumps(values, indent=2) + "\n")


def read_scores(workdir: Folder) -> dict[str, Any]:
    return json.loads((workdir / SCORES).read_text())


def write_predictions(workdir: Folder, predictions: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in predictions)
    write_whole(workdir / PREDICTIONS, "".join(lines))
