"""BERT equals transformers' BertForPreTraining: logits, loss, gradients.

The fixture was computed by reference.py in the oracle's environment; its versions are in it.
`make oracle` does the same live, and with weights that began here.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.models.config import EncoderConfig
from bert_jax.training.step import graph, init_parameters, total
from tests import tiny
from tests.oracle import mapping

pytestmark = pytest.mark.tree_mode
FIXTURE = Path(__file__).parent / "fixtures" / "bert.npz"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def fixture():
    with np.load(FIXTURE, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_equal_to_transformers(fixture, scan_layers):
    compare(fixture, scan_layers)


def compare(given, scan_layers=True):
    """Our outputs for the weights and inputs of a file of reference.py, against its own."""
    model = config_of(given, scan_layers)
    objective = tiny.bert(model)
    parameters = init_parameters(objective, model, seed=0)
    ours = mapping.to_ours(part(given, "weight"), model)
    found = mapping.flat(parameters)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in ours.items()}
    parameters = nnx.from_flat_state(
        [
            (path, variable.replace(jnp.asarray(ours[".".join(map(str, path))])))
            for path, variable in nnx.to_flat_state(parameters)
        ]
    )
    batch = tiny.on_mesh(jax.sharding.get_mesh(), batch_of(part(given, "input")))
    graphdef = graph(objective, model)

    def forward(parameters):
        module = nnx.merge(graphdef, parameters)
        hidden = module.encoder(batch["input_ids"], batch["token_type_ids"], batch["segment_ids"])
        everywhere = jnp.arange(hidden.shape[1]) + jnp.zeros_like(batch["input_ids"])
        logits = module.heads["mlm"](hidden, everywhere, module.encoder.embeddings.word[...])
        pair = module.heads["nsp"](module.encoder.pooler(hidden))
        return total(objective, objective.loss(module, batch, None)), (hidden, logits, pair)

    (loss, (hidden, logits, pair)), gradients = jax.jit(jax.value_and_grad(forward, has_aux=True))(
        parameters
    )
    hidden, logits, pair, loss = map(np.asarray, (hidden, logits, pair, loss))
    expected = part(given, "output")
    real = part(given, "input")["attention_mask"] == 1
    assert_close(hidden[real], expected["hidden"][real])
    assert_close(logits[real][:, : model.vocab_size], expected["prediction_logits"][real])
    assert_close(pair, expected["seq_relationship_logits"])
    assert_close(loss, expected["loss"])
    theirs = mapping.to_ours(part(given, "gradient"), model)
    for name, gradient in mapping.flat(gradients).items():
        assert_close(gradient, theirs[name], name)


def test_mapping_is_undone_by_its_inverse(fixture):
    model, weights = config_of(fixture), part(fixture, "weight")
    back = mapping.to_theirs(mapping.to_ours(weights, model), model)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value)


def config_of(given, scan_layers=True) -> EncoderConfig:
    sizes = json.loads(str(given["config"]))
    return EncoderConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        intermediate_size=sizes["intermediate_size"],
        max_positions=sizes["max_position_embeddings"],
        type_vocab_size=sizes["type_vocab_size"],
        scan_layers=scan_layers,
    )


def batch_of(inputs):
    """transformers' labels (−100 where nothing is asked) as slots."""
    labels = inputs["labels"]
    rows, length = labels.shape
    slots = int((labels >= 0).sum(axis=1).max())
    fields = {
        "input_ids": inputs["input_ids"],
        "token_type_ids": inputs["token_type_ids"],
        "segment_ids": inputs["attention_mask"],
        "rows": np.arange(rows),
        "mlm_positions": np.zeros((rows, slots)),
        "mlm_labels": np.zeros((rows, slots)),
        "mlm_weights": np.zeros((rows, slots)),
        "mlm_overflow": np.zeros(rows),
        "nsp_labels": inputs["next_sentence_label"],
        "nsp_weights": np.ones(rows),
    }
    for row in range(rows):
        (places,) = np.nonzero(labels[row] >= 0)
        fields["mlm_positions"][row, : len(places)] = places
        fields["mlm_labels"][row, : len(places)] = labels[row, places]
        fields["mlm_weights"][row, : len(places)] = 1
    return {
        name: value.astype(np.float32 if name.endswith("weights") else np.int32)
        for name, value in fields.items()
    }


def part(given, prefix):
    return {
        name.removeprefix(prefix + "/"): value
        for name, value in given.items()
        if name.startswith(prefix + "/")
    }


def assert_close(mine, theirs, name=""):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE, err_msg=name)
