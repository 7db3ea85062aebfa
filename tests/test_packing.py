"""Documents of a packed row are strangers: in values to the bit, in gradients, in what is learned
from them; and each is what it would be in a row of its own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.data import draws
from bert_jax.data.config import DataConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import form_batch
from bert_jax.objectives import build_objective
from bert_jax.objectives.mlm import word_embedding
from bert_jax.objectives.rtd import GeneratorConfig
from bert_jax.training.step import graph, init_parameters
from tests import tiny
from tests.data.test_examples import MemoryRows
from tests.test_programs import pretrain

pytestmark = pytest.mark.tree_mode
MODEL = replace(tiny.MODEL, pooler=False, position_offset=2)
DATA = DataConfig(32, 8, "doc-sentences", "none", max_predictions=6, packing=True)
INPUTS = ("input_ids", "token_type_ids", "segment_ids")


class SmallIds(MemoryRows):
    """Ids that the tiny vocabulary has, none of them 9."""

    def records(self, numbers):
        return [10 + tokens % (tiny.VOCAB - 10) for tokens in super().records(numbers)]


def batch_of(config):
    rng = np.random.default_rng(0)
    rows = SmallIds([rng.integers(2, 9, rng.integers(1, 3)).tolist() for _ in range(60)])
    examples = build_examples(rows, tiny.vocabulary(), config)
    numbers = np.arange(8)
    batch = form_batch(examples, numbers, draws.key(0, numbers), config, tiny.vocabulary())
    return batch | {"rows": numbers.astype(np.int32)}


@pytest.fixture(scope="module")
def batch():
    batch = batch_of(DATA)
    assert (batch["segment_ids"].max(axis=1) >= 2).all()
    return batch


@pytest.fixture(scope="module")
def module():
    learned = build_objective({"mlm": 1.0}, MODEL)
    return learned.build(MODEL, nnx.Rngs(0))


def other_documents(batch, document=1):
    """The batch with all tokens of every document but one replaced, [CLS] and [SEP] too."""
    theirs = (batch["segment_ids"] > 0) & (batch["segment_ids"] != document)
    return batch | {"input_ids": np.where(theirs, 9, batch["input_ids"]).astype(np.int32)}


def hidden_of(module, batch):
    inputs = (jnp.asarray(batch[name]) for name in INPUTS)
    return module.encoder(*inputs, position_ids=jnp.asarray(batch["position_ids"]))


@pytest.mark.parametrize("document", [1, 2])
def test_logits_of_a_document_do_not_change_by_a_bit(module, batch, document):
    mine = batch["segment_ids"] == document
    places = jnp.asarray(np.tile(np.arange(32, dtype=np.int32), (8, 1)))

    @jax.jit
    def logits(input_ids):
        hidden = hidden_of(module, batch | {"input_ids": input_ids})
        return module.heads["mlm"](hidden, places, word_embedding(module.encoder))

    expected = np.asarray(logits(batch["input_ids"]))
    found = np.asarray(logits(other_documents(batch, document)["input_ids"]))
    np.testing.assert_array_equal(expected[mine], found[mine])
    others = (batch["segment_ids"] > 0) & ~mine
    assert not np.array_equal(expected[others], found[others])


def test_no_gradient_reaches_another_document(module, batch):
    """The loss of the first documents, by the embeddings of all tokens: id 9 is of others alone."""
    replaced = other_documents(batch)
    mine = jnp.asarray(batch["segment_ids"] == 1)[..., None]
    weights = jax.random.normal(jax.random.key(0), (8, 32, 32))
    graphdef, parameters = nnx.split(module)

    def loss(parameters, mask):
        return jnp.sum(hidden_of(nnx.merge(graphdef, parameters), replaced) * weights * mask)

    for mask, reached in ((mine, False), (~mine, True)):
        gradients = jax.grad(loss)(parameters, mask)
        table = np.asarray(gradients["encoder"]["embeddings"]["word"].get_value())
        assert table[9].any() == reached and table.any()


def test_a_document_is_what_it_is_alone(module, batch):
    packed = np.asarray(hidden_of(module, batch))
    for row, segment in ((0, 1), (0, 2), (3, 1)):
        mine = np.flatnonzero(batch["segment_ids"][row] == segment)
        ids = batch["input_ids"][row, mine][None]
        alone = module.encoder(*(jnp.asarray(a) for a in (ids, 0 * ids, 0 * ids + 1)))
        np.testing.assert_allclose(packed[row, mine], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("term", ["rtd", "replace_mlm"])
def test_a_generator_and_a_discriminator_on_packed_rows(batch, term, mesh):
    """What is learned from the slots of the second documents is the same beside others."""
    learned = build_objective({"mlm": 1.0, term: 50.0}, MODEL, GeneratorConfig(0.5))
    parameters = init_parameters(learned, MODEL, 0)
    owner = np.take_along_axis(batch["segment_ids"], batch["mlm_positions"], axis=1)
    second = batch | {"mlm_weights": batch["mlm_weights"] * (owner == 2).astype(np.float32)}

    def losses(batch):
        on_device = tiny.on_mesh(mesh, batch)
        return learned.loss(nnx.merge(graph(learned, MODEL), parameters), on_device, None)

    mine, theirs = losses(second), losses(other_documents(second, 2))
    assert float(mine.terms["mlm"][0]) == float(theirs.terms["mlm"][0]) > 0
    assert mine.terms["mlm"][1] == (owner == 2)[batch["mlm_weights"] > 0].sum()
    assert all(np.isfinite(float(amount)) for amount, _ in mine.terms.values())
    without = {name: value for name, value in second.items() if name != "position_ids"}
    assert float(losses(without).terms["mlm"][0]) != float(mine.terms["mlm"][0])


def test_a_run_on_packed_rows(corpus, tmp_path):
    done = pretrain(
        tmp_path / "workdir", corpus, "--config.train.steps=4", "--config.data.packing=true",
        "--config.data.format=full-sentences",
        "--config.data.sequence_length=64", config="configs/electra.py:tiny",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "of a row is tokens" in done.stdout and "with one document a row" in done.stdout
