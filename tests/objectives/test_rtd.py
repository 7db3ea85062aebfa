"""A generator and a discriminator: what is sampled, what is labelled, and what learns from what."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

from bert_jax.errors import UserError
from bert_jax.models.dropout import row_keys
from bert_jax.objectives import build_objective
from bert_jax.objectives.rtd import GeneratorConfig, put, sample
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import graph, init_parameters, init_state, make_train_step
from tests import tiny

pytestmark = pytest.mark.tree_mode
MODEL = replace(tiny.MODEL, pooler=False, embedding_size=24)
HALF = GeneratorConfig(0.5, "embeddings")
TERMS = ("rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm")


def objective(term="rtd", generator=HALF, mlm=1.0, model=MODEL):
    return build_objective({"mlm": mlm, term: 50.0}, model, generator)


@pytest.fixture
def batch(mesh):
    batch = tiny.random_batch(MODEL)
    rng = np.random.default_rng(1)  # no place twice in a row, as masking has it
    places = [rng.choice(np.arange(1, 16), 6, replace=False) for _ in range(8)]
    return tiny.on_mesh(mesh, batch | {"mlm_positions": np.array(places, np.int32)})


def losses_of(learned, parameters, batch, key=None, model=MODEL):
    return learned.loss(nnx.merge(graph(learned, model), parameters), batch, key)


def test_samples_follow_the_softmax(mesh):
    logits = jnp.array([0.0, 1.0, 2.0, -1.0, -jnp.inf])
    many = jnp.broadcast_to(logits, (40, 100, 5))
    found = sample(many, row_keys(jax.random.key(0), jnp.arange(40)))
    counts = np.bincount(np.asarray(found).ravel(), minlength=5)
    expected = special.softmax(np.asarray(logits, np.float64))[:4] * 4000
    assert counts[4] == 0 and stats.chisquare(counts[:4], expected).pvalue > 1e-3


def test_a_sample_is_of_its_row_alone(mesh):
    logits = jax.random.normal(jax.random.key(1), (8, 6, 50))
    keys = row_keys(jax.random.key(0), jnp.arange(8))
    np.testing.assert_array_equal(sample(logits, keys)[3:5], sample(logits[3:5], keys[3:5]))


def test_tokens_go_where_used_slots_point(batch):
    tokens = batch["mlm_labels"] * 0 + 7
    masked, there = map(np.asarray, put(batch, tokens))
    expected = np.asarray(batch["input_ids"]).copy()
    places = np.zeros_like(masked)
    for row, slot in zip(*np.nonzero(np.asarray(batch["mlm_weights"])), strict=True):
        place = batch["mlm_positions"][row, slot]
        expected[row, place], places[row, place] = 7, True
    np.testing.assert_array_equal(there, expected)
    np.testing.assert_array_equal(masked, places)


def seen_by_the_term(batch, parameters, learned):
    """The batch as the discriminator's term gets it."""
    seen = {}

    class Spy:
        name, fields = learned.term.name, learned.term.fields
        head, scored = learned.term.head, learned.term.scored

        def loss(self, head, encoder, hidden, batch):
            seen.update(batch)
            return learned.term.loss(head, encoder, hidden, batch)

    losses = losses_of(replace(learned, term=Spy()), parameters, batch)
    return {name: np.asarray(value) for name, value in seen.items()}, losses


def test_replaced_is_what_differs_from_the_original(batch, mesh):
    learned = objective()
    parameters = init_parameters(learned, MODEL, 0)
    seen, losses = seen_by_the_term(batch, parameters, learned)
    masked = seen["masked"]
    np.testing.assert_array_equal(
        seen["input_ids"][~masked], np.asarray(batch["input_ids"])[~masked]
    )
    np.testing.assert_array_equal(seen["original_ids"][~masked], seen["input_ids"][~masked])
    real = np.asarray(batch["segment_ids"]) > 0
    replaced = seen["input_ids"] != seen["original_ids"]
    assert replaced.sum() > 0 and not replaced[~masked].any()
    amount, weight = losses.metrics["rtd_replaced"]
    assert amount == (replaced & real).sum() and weight == real.sum()
    assert losses.terms["rtd"][1] == real.sum()
    np.testing.assert_allclose(losses.tallies["rtd_seen"].sum(), real.sum())
    np.testing.assert_allclose(losses.tallies["rtd_seen_replaced"].sum(), (replaced & real).sum())


def test_a_sample_equal_to_the_original_is_labelled_original(batch, mesh):
    """A generator that is sure of the truth replaces nothing."""
    learned = objective()
    parameters = init_parameters(learned, MODEL, 0)
    bias = parameters["heads"]["mlm"]["vocab_bias"]
    bias.set_value(jnp.where(jnp.arange(256) == 17, 1e4, bias.get_value()))
    batch = batch | {"mlm_labels": batch["mlm_labels"] * 0 + 17}
    losses = losses_of(learned, parameters, batch)
    assert losses.metrics["rtd_replaced"][0] == 0
    assert losses.metrics["mlm_accuracy"][0] == batch["mlm_weights"].sum()


def test_losses_by_hand(batch, mesh):
    for term in TERMS:
        learned = objective(term)
        parameters = init_parameters(learned, MODEL, 0)
        seen, losses = seen_by_the_term(batch, parameters, learned)
        module = nnx.merge(graph(learned, MODEL), parameters)
        encoder, head = module.encoder, module.heads[term]
        hidden = encoder(
            jnp.asarray(seen["input_ids"]), batch["token_type_ids"], batch["segment_ids"]
        )
        real = seen["segment_ids"] > 0
        weights = {"rtd_masked": seen["masked"], "replace_mlm": seen["mlm_weights"]}.get(term, real)
        if term.startswith("rtd"):
            p = special.expit(np.asarray(head(hidden), np.float64))
            nats = -np.log(np.where(seen["input_ids"] != seen["original_ids"], p, 1 - p))
        else:
            words = encoder.embeddings.word[...]
            places, labels = seen["mlm_positions"], seen["mlm_labels"]
            if term == "all_tokens_mlm":
                labels = seen["original_ids"]
                places = np.arange(32)[None].repeat(8, 0)
                copy = np.asarray(hidden @ head.copy_kernel[...] + head.copy_bias[...])[..., 0]
                head = head.tokens
            logits = np.asarray(head(hidden, jnp.asarray(places), words), np.float64)
            p = np.take_along_axis(special.softmax(logits, -1), labels[..., None], -1)[..., 0]
            if term == "all_tokens_mlm":
                copied = special.expit(copy)
                p = copied * (seen["input_ids"] == labels) + (1 - copied) * p
            nats = -np.log(p)
        amount, weight = losses.terms[term]
        np.testing.assert_allclose(amount, np.sum(nats * weights), rtol=1e-4)
        assert weight == weights.sum()


@pytest.mark.parametrize(
    ("term", "tie"),
    [*((term, "embeddings") for term in TERMS), ("rtd", "none"), ("rtd", "all")],
)
def test_the_discriminator_teaches_the_generator_nothing(batch, mesh, term, tie):
    """Its loss reaches nothing of the generator but the embeddings, where they are tied (Clark et
    al. 2020, 3.1 and 3.2)."""
    learned = objective(term, GeneratorConfig(1.0 if tie == "all" else 0.5, tie))
    parameters = init_parameters(learned, MODEL, 0)

    def gradients(name):
        def loss(parameters):
            amount, weight = losses_of(learned, parameters, batch).terms[name]
            return amount / weight

        return {
            path: float(jnp.abs(v.get_value()).max())
            for path, v in nnx.to_flat_state(jax.jit(jax.grad(loss))(parameters))
        }

    for path, size in gradients(term).items():
        owner = path[0] if path[0] != "heads" else path[:2]
        expected = owner in ("encoder", ("heads", term))
        if path[-2:] == ("attention", "qkv_bias") or (path[-1] == "vocab_bias" and expected):
            continue  # no gradient reaches a key's bias; of the vocabulary, some
        assert (size > 0) == expected, (path, size)
    if tie != "all":
        found = gradients("mlm")
        mine = [p for p, size in found.items() if size > 0 and p[0] == "encoder"]
        assert all(p[1] == "embeddings" for p in mine) and bool(mine) == (tie == "embeddings")
        assert all(size > 0 for p, size in found.items() if p[0] == "generator")


def test_a_frozen_generator_stays(batch, mesh):
    """The second of two stages: the generator still samples, and neither it nor its head moves."""
    learned = objective(generator=GeneratorConfig(1.0, "none"), mlm=0.0)
    tx = build_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_steps=0), 10, learned.frozen)
    state = init_state(learned, MODEL, tx, 0)
    before = jax.device_get(state.parameters)
    state, _ = make_train_step(learned, MODEL, tx, 0)(state, batch)
    after = dict(nnx.to_flat_state(jax.device_get(state.parameters)))
    for path, variable in nnx.to_flat_state(before):
        same = np.array_equal(variable.get_value(), after[path].get_value())
        assert same == (path[0] == "generator" or path[:2] == ("heads", "mlm")), path


def test_of_a_frozen_generator_no_gradient_is_computed(mesh):
    """Neither of it nor of its logits: a third of what a row costs in it."""

    def operations(mlm):
        learned = objective(generator=GeneratorConfig(1.0, "none"), mlm=mlm)
        tx = build_optimizer(OptimizerConfig(warmup_steps=0), 10, learned.frozen)
        state = jax.eval_shape(lambda: init_state(learned, MODEL, tx, 0))
        given = tiny.on_mesh(mesh, tiny.random_batch(MODEL))
        step = make_train_step(learned, MODEL, tx, 0)
        return step.lower(state, given).compile().cost_analysis()["flops"]

    assert operations(0.0) < 0.8 * operations(1.0)


def test_parts_are_models_of_their_own(batch, mesh):
    learned = objective()
    parameters = init_parameters(learned, MODEL, 0)
    config, state = learned.part("generator", MODEL, parameters)
    assert (config.hidden_size, config.embedding_size, config.num_heads) == (16, 24, 1)
    assert set(state["heads"]) == {"mlm"}
    tied = state["encoder"]["embeddings"]["word"]
    assert tied is parameters["encoder"]["embeddings"]["word"]
    config, state = learned.part("discriminator", MODEL, parameters)
    assert config == MODEL and set(state["heads"]) == {"rtd"}
    _, state = objective("replace_mlm").part(
        "discriminator", MODEL, init_parameters(objective("replace_mlm"), MODEL, 0)
    )
    assert set(state["heads"]) == {"mlm"}


@pytest.mark.parametrize(
    ("coefficients", "generator", "said"),
    [
        ({"mlm": 1.0, "rtd": 50.0, "nsp": 1.0}, HALF, "set objective.nsp=0"),
        ({"mlm": 1.0, "rtd": 50.0, "replace_mlm": 1.0}, HALF, "set objective.replace_mlm=0"),
        ({"rtd": 50.0}, HALF, "objective.mlm=0 freezes the generator"),
        ({"mlm": 1.0, "rtd": 50.0}, GeneratorConfig(0.6), "generator.width=0.6 of model.hidden"),
    ],
)
def test_what_does_not_go_together_is_named(coefficients, generator, said):
    model = replace(MODEL, pooler=True, num_heads=8)
    with pytest.raises(UserError, match=said):
        build_objective(coefficients, model, generator)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tie": "some"}, "generator.tie='some'"),
        ({"width": 0.0}, "generator.width=0.0"),
        ({"width": 2.0}, "generator.width=2.0"),
        ({"width": 0.5, "tie": "all"}, "generator.tie=all needs equal sizes"),
    ],
)
def test_bad_generators_are_named(values, said):
    with pytest.raises(UserError, match=said):
        GeneratorConfig(**values)
