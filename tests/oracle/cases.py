"""A file of reference.py as a Hugging Face folder, and our numbers beside it."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from bert_jax.interop import FAMILIES
from bert_jax.interop.folder import Converted, read_folder
from bert_jax.interop.labels import LABEL_HEADS
from bert_jax.interop.rows import Row
from bert_jax.models.config import SHARED, EncoderConfig
from bert_jax.models.sharding import RULES
from bert_jax.objectives import REPLACED_TERMS, TERMS, build_pretrained
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.sentences import Classification, Regression
from bert_jax.tasks.tokens import Answer, Tagging
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import init_state, make_train_step, place, ratio
from tests import tiny
from tests.oracle.inputs import NO_LABEL

FIXTURES = Path(__file__).parent / "fixtures"
_ALL = sorted(path.stem for path in FIXTURES.glob("*.npz"))
FINETUNED = [name for name in _ALL if name.endswith((*LABEL_HEADS, "regress"))]
NAMES = [name for name in _ALL if name not in FINETUNED]
TRAINING = FIXTURES / "training"
TRAINED = sorted(path.stem for path in TRAINING.glob("*.npz"))
TOLERANCE = 1e-4
TRAINING_TOLERANCE = 1e-5


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def part(given, prefix):
    return {
        name.removeprefix(prefix + "/"): value
        for name, value in given.items()
        if name.startswith(prefix + "/")
    }


def folder_of(given, folder: Path) -> Path:
    """The case's weights and config as transformers saves them."""
    folder.mkdir(parents=True)
    save_file(part(given, "weight"), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(str(given["config"]))
    return folder


def quiet(config: EncoderConfig, **changes) -> EncoderConfig:
    return replace(config, hidden_dropout=0.0, attention_dropout=0.0, **changes)


def state_of(found: Converted) -> nnx.State:
    abstract = nnx.eval_shape(lambda: build_pretrained(found.config, found.heads, nnx.Rngs(0)))
    flat = nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    assert {".".join(map(str, path)) for path, _ in flat} == found.parameters.keys()
    arrays = [jnp.asarray(found.parameters[".".join(map(str, path))]) for path, _ in flat]
    return nnx.from_flat_state(
        [(path, place(v.replace(a))) for (path, v), a in zip(flat, arrays, strict=True)]
    )


def compare(given, found: Converted, scan_layers: bool = True) -> None:
    """Hidden states, pooled output, every head's logits, loss and gradients against theirs."""
    config = quiet(found.config, scan_layers=scan_layers)
    inputs, expected = part(given, "input"), part(given, "output")
    graphdef = nnx.graphdef(
        nnx.eval_shape(lambda: build_pretrained(config, found.heads, nnx.Rngs(0)))
    )
    head = next((head for head in found.heads if head in LABEL_HEADS), "")
    outputs = finetuned_outputs(head, config) if head else pretrained_outputs
    fields = labelled_batch_of(inputs, head) if head else batch_of(inputs)
    batch = tiny.on_mesh(jax.sharding.get_mesh(), fields)

    def forward(parameters):
        out = outputs(nnx.merge(graphdef, parameters), batch)
        return out["loss"], out

    (_, out), gradients = jax.jit(jax.value_and_grad(forward, has_aux=True))(state_of(found))
    out = {name: np.asarray(value) for name, value in out.items()}
    real = inputs["attention_mask"].reshape(out["hidden"].shape[:2]) == 1
    assert set(expected) <= set(out)
    for name, theirs in expected.items():
        mine = out[name]
        if name in ("hidden", "mlm", "rtd", "tag", "answer"):
            mine, theirs = mine[real], theirs[real]
        if name == "mlm":
            assert (mine[:, config.vocab_size :] == -np.inf).all()
            mine = mine[:, : config.vocab_size]
        assert_close(mine, theirs, name)
    theirs = part(given, "gradient")
    for row in rows_of(given, found):
        if theirs:
            mine = np.asarray(at(gradients, row.ours))
            for layer, one in enumerate(layers_of(row, mine, config)):
                for name, array in zip(row.theirs, row.part(one), strict=True):
                    assert_close(array, theirs[name.format(layer)], name)


def pretrained_outputs(module, batch):
    encoder = module.encoder
    hidden = encoder(batch["input_ids"], batch["token_type_ids"], batch["segment_ids"])
    everywhere = jnp.arange(hidden.shape[1]) + jnp.zeros_like(batch["input_ids"])
    out, loss = {"hidden": hidden}, jnp.zeros(())
    if encoder.pooler is not None:
        out["pooled"] = encoder.pooler(hidden)
    for name, head in module.heads.items():
        if name == "mlm":
            out[name] = head(hidden, everywhere, encoder.embeddings.word[...])
        else:
            out[name] = head(hidden if name == "rtd" else out["pooled"])
        term = (TERMS | REPLACED_TERMS)[name]
        loss += ratio(*term.loss(head, encoder, hidden, batch).terms[name])
    return out | {"loss": loss}


def objective_of(head: str, config: EncoderConfig) -> FineTuning:
    """What a model with the head was fine-tuned for."""
    if head == "classify":
        return FineTuning(Classification() if config.num_labels > 1 else Regression())
    return FineTuning(
        {"tag": Tagging(), "answer": Answer(), "choose": Classification(name="choose")}[head]
    )


def finetuned_outputs(head: str, config: EncoderConfig):
    objective = objective_of(head, config)

    def outputs(module, batch):
        length = batch["input_ids"].shape[-1]
        rows = (
            jax.lax.reshape(
                batch[n], (batch[n].size // length, length), out_sharding=RULES.batch(2)
            )
            for n in ("input_ids", "token_type_ids", "segment_ids")
        )
        loss = ratio(*objective.loss(module, batch, None).terms[head])
        logits = objective.logits(module, batch)
        return {"hidden": module.encoder(*rows), head: logits, "loss": loss}

    return outputs


def compare_training(given, found: Converted) -> float:
    """Our train step over their batches; returns the greatest difference of a loss, in nats."""
    config, (head,) = quiet(found.config), found.heads
    settings = json.loads(str(given["training"]))
    steps = settings.pop("steps")
    objective = objective_of(head, config)
    tx = build_optimizer(OptimizerConfig(**settings, epsilon=1e-8, weight_decay=0.01), steps)
    state = replace(init_state(objective, config, tx, seed=0), parameters=state_of(found))
    train_step = make_train_step(objective, config, tx, seed=0)
    inputs, expected = part(given, "input"), part(given, "output")
    losses, norms = [], []
    for step in range(steps):
        fields = labelled_batch_of({name: value[step] for name, value in inputs.items()}, head)
        state, metrics = train_step(state, tiny.on_mesh(jax.sharding.get_mesh(), fields))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["gradient_norm"]))
    # The rate of the first step is 0; from there on both have learned.
    assert losses[0] == pytest.approx(expected["loss"][0], abs=1e-5)
    assert max(abs(expected["loss"] - expected["loss"][0])) > 0.1
    assert max(norms) > 1 and int(metrics["skipped"]) == 0  # some were clipped
    np.testing.assert_allclose(losses, expected["loss"], rtol=0, atol=TRAINING_TOLERANCE)
    np.testing.assert_allclose(norms, expected["gradient_norm"], rtol=1e-3)
    return float(max(abs(losses - expected["loss"])))


def rows_of(given, found: Converted) -> list[Row]:
    kind = json.loads(str(given["config"]))["model_type"]
    (family,) = [family for family in FAMILIES if kind in family.model_types]
    return family.rows(found.config, found.heads)


def layers_of(row: Row, array: np.ndarray, config: EncoderConfig) -> list[np.ndarray]:
    stacked = row.ours.startswith("encoder.layers.")
    shared = row.ours.split(".")[2] in SHARED[config.share] if stacked else True
    return [array] if shared else list(array)


def at(state: nnx.State, path: str) -> jax.Array:
    found = state
    for name in path.split("."):
        found = found[name]
    return found.get_value()


def batch_of(inputs):
    """transformers' labels (−100 where nothing is asked) as our fields."""
    labels, ids = inputs["labels"], inputs["input_ids"]
    rows, length = labels.shape
    slots = int((labels >= 0).sum(axis=1).max())
    fields = {
        "input_ids": ids,
        "token_type_ids": inputs["token_type_ids"],
        "segment_ids": inputs["attention_mask"],
        "rows": np.arange(rows),
        "mlm_positions": np.zeros((rows, slots)),
        "mlm_labels": np.zeros((rows, slots)),
        "mlm_weights": np.zeros((rows, slots)),
        "mlm_overflow": np.zeros(rows),
        "original_ids": ids + (labels >= 0),  # another token where the reference says replaced
        "masked": labels >= 0,
    }
    for pair in ("nsp", "sop"):
        fields |= {f"{pair}_labels": inputs["pair_labels"], f"{pair}_weights": np.ones(rows)}
    for row in range(rows):
        (places,) = np.nonzero(labels[row] >= 0)
        fields["mlm_positions"][row, : len(places)] = places
        fields["mlm_labels"][row, : len(places)] = labels[row, places]
        fields["mlm_weights"][row, : len(places)] = 1
    return {
        name: value.astype(np.float32 if name.endswith("weights") else np.int32)
        for name, value in fields.items()
    }


def labelled_batch_of(inputs, head: str):
    """Labelled rows of transformers (−100 where no label is) as our fields."""
    labels = inputs["labels"]
    asked = np.ones(len(labels)) if head == "answer" else labels != NO_LABEL
    numbers = labels.dtype.kind == "f"
    return {
        "input_ids": inputs["input_ids"].astype(np.int32),
        "token_type_ids": inputs["token_type_ids"].astype(np.int32),
        "segment_ids": inputs["attention_mask"].astype(np.int32),
        "rows": np.arange(len(labels), dtype=np.int32),
        "labels": labels if numbers else np.where(labels < 0, 0, labels).astype(np.int32),
        "weights": asked.astype(np.float32),
    }


def assert_close(mine, theirs, name=""):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE, err_msg=name)


def read_case(given, folder: Path) -> Converted:
    return read_folder(folder_of(given, folder))
