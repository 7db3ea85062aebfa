"""Losses against their definitions."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import special

from bert_jax.errors import UserError
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import MaskedTokenHead
from bert_jax.objectives import build_objective, mlm
from bert_jax.training.step import graph, init_parameters
from tests import tiny

pytestmark = pytest.mark.tree_mode


@pytest.fixture(scope="module")
def module():
    return tiny.bert().build(tiny.MODEL, nnx.Rngs(0))


def test_losses_are_sums_with_their_weights(module, mesh):
    batch = tiny.random_batch()
    losses = tiny.bert().loss(module, tiny.on_mesh(mesh, batch), None)
    batch = tiny.on_mesh(mesh, batch)
    hidden = module.encoder(*(batch[n] for n in ("input_ids", "token_type_ids", "segment_ids")))
    logits = np.asarray(
        module.heads["mlm"](hidden, batch["mlm_positions"], module.encoder.embeddings.word[...]),
        np.float64,
    )
    log_p = special.log_softmax(logits, axis=-1)
    nats = -np.take_along_axis(log_p, np.asarray(batch["mlm_labels"])[..., None], -1)[..., 0]
    amount, weight = losses.terms["mlm"]
    np.testing.assert_allclose(amount, np.sum(nats * batch["mlm_weights"]), rtol=1e-5)
    assert weight == batch["mlm_weights"].sum()
    hits = (logits.argmax(-1) == batch["mlm_labels"]) * batch["mlm_weights"]
    assert losses.metrics["mlm_accuracy"][0] == hits.sum()

    pair = special.log_softmax(module.heads["nsp"](module.encoder.pooler(hidden)), axis=-1)
    expected = -np.take_along_axis(
        np.asarray(pair), np.asarray(batch["nsp_labels"])[:, None], -1
    ).sum()
    np.testing.assert_allclose(losses.terms["nsp"][0], expected, rtol=1e-5)
    assert losses.counts["real_tokens"] == batch["segment_ids"].sum()


def test_a_slot_of_weight_zero_counts_for_nothing(module, mesh):
    batch = tiny.random_batch()
    other = np.where(batch["mlm_weights"] > 0, batch["mlm_labels"], 5).astype(np.int32)
    losses = [
        tiny.bert()
        .loss(module, tiny.on_mesh(mesh, batch | {"mlm_labels": labels}), None)
        .terms["mlm"]
        for labels in (batch["mlm_labels"], other)
    ]
    assert losses[0][0] == losses[1][0]


def test_an_untrained_model_is_as_good_as_chance(module, mesh):
    losses = tiny.bert().loss(module, tiny.on_mesh(mesh, tiny.random_batch()), jax.random.key(0))
    mlm, nsp = (float(a / w) for a, w in losses.terms.values())
    assert abs(mlm - np.log(tiny.VOCAB)) < 0.2
    assert abs(nsp - np.log(2)) < 0.2


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_logits_in_parts_give_the_same_loss(monkeypatch, shape, parts):
    """Loss, accuracy and gradient, where all logits of a device would be too many; parts that do
    not divide the slots too."""
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), devices=devices)
    objective = build_objective({"mlm": 1.0}, tiny.MODEL)
    graphdef = graph(objective, tiny.MODEL)

    def outcome():
        with jax.set_mesh(mesh):
            parameters = init_parameters(objective, tiny.MODEL, 0)
            batch = tiny.on_mesh(mesh, tiny.random_batch())

            def loss(parameters):
                losses = objective.loss(nnx.merge(graphdef, parameters), batch, None)
                return losses.terms["mlm"][0], losses

            compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(parameters).compile()
            found = jax.tree.leaves(compiled(parameters))
            return jax.device_get(found), compiled.as_text()

    expected, all_at_once = outcome()
    rows, slots = tiny.random_batch()["mlm_positions"].shape
    a_device = 4 * rows * slots * 256 // mesh.size
    monkeypatch.setattr(mlm, "LOGITS", a_device // parts + 1)
    found, in_parts = outcome()
    assert in_parts != all_at_once  # it was another program
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_logits_in_parts_take_less_memory(monkeypatch, mesh):
    config = replace(tiny.MODEL, vocab_size=8192)
    head, encoder = MaskedTokenHead(config, nnx.Rngs(0)), Encoder(config, nnx.Rngs(1))
    term = mlm.MaskedLanguageModel()
    batch = tiny.on_mesh(mesh, tiny.random_batch())
    hidden = tiny.on_mesh(mesh, {"hidden": np.zeros((8, 32, 32), np.float32)})["hidden"]

    def bytes_of():
        def loss(hidden):
            return term.loss(head, encoder, hidden, batch).terms["mlm"][0]

        compiled = jax.jit(jax.grad(loss)).lower(hidden).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = bytes_of()
    monkeypatch.setattr(mlm, "LOGITS", 1 << 18)
    assert bytes_of() < whole / 2


def test_a_term_of_coefficient_zero_is_left_out(mesh):
    objective = build_objective({"mlm": 1.0, "nsp": 0.0}, tiny.MODEL)
    assert set(objective.coefficients) == {"mlm"}
    assert "nsp_labels" not in objective.fields
    module = objective.build(tiny.MODEL, nnx.Rngs(0))
    assert set(objective.loss(module, tiny.on_mesh(mesh, tiny.random_batch()), None).terms) == {
        "mlm"
    }


def test_an_unknown_term_is_named():
    with pytest.raises(UserError, match="objective.cloze: no such term"):
        build_objective({"cloze": 1.0}, tiny.MODEL)
