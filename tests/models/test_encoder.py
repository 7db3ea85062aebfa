"""The encoder's promises: which tokens see which, and switches that change no number."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.models.dropout import row_keys
from bert_jax.models.encoder import Encoder
from tests import tiny

pytestmark = pytest.mark.tree_mode


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny.MODEL, nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    return tiny.random_batch()


def run(encoder, batch, keys=None):
    inputs = (jnp.asarray(batch[n]) for n in ("input_ids", "token_type_ids", "segment_ids"))
    return encoder(*inputs, keys)


def with_config(encoder, **changes):
    """The same parameters under another config."""
    other = Encoder(replace(tiny.MODEL, **changes), nnx.Rngs(1))
    nnx.update(other, nnx.state(encoder))
    return other


@pytest.mark.parametrize("changes", [{"scan_layers": False}, {"remat": "full"}, {"remat": "dots"}])
@pytest.mark.parametrize("share", ["none", "attention", "feedforward", "all"])
def test_switches_change_no_value_and_no_gradient(batch, changes, share):
    encoder = Encoder(replace(tiny.MODEL, share=share), nnx.Rngs(0))
    changes = changes | {"share": share}
    keys = row_keys(jax.random.key(3), jnp.arange(8))

    def outcome(module):
        graphdef, parameters = nnx.split(module)

        @jax.jit
        def loss(parameters):
            hidden = run(nnx.merge(graphdef, parameters), batch, keys)
            return jnp.mean(hidden * jnp.arange(32.0)), hidden

        (_, hidden), gradients = jax.value_and_grad(loss, has_aux=True)(parameters)
        return hidden, gradients

    for mine, theirs in zip(
        jax.tree.leaves(outcome(encoder)),
        jax.tree.leaves(outcome(with_config(encoder, **changes))),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def test_what_is_computed_again_is_not_stored(batch):
    """Bytes of a compiled backward pass: the less is stored, the fewer."""
    bytes_of = []
    for remat in ("none", "dots", "full"):
        encoder = Encoder(replace(tiny.MODEL, num_layers=8, remat=remat), nnx.Rngs(0))
        graphdef, parameters = nnx.split(encoder)

        def loss(parameters, graphdef=graphdef):
            return jnp.mean(run(nnx.merge(graphdef, parameters), batch, None) ** 2)

        compiled = jax.jit(jax.grad(loss)).lower(parameters).compile()
        bytes_of.append(compiled.memory_analysis().temp_size_in_bytes)
    assert bytes_of[0] > 1.2 * bytes_of[1] > 1.2**2 * bytes_of[2]


@pytest.mark.parametrize(("dtype", "most"), [("float32", 15), ("bfloat16", 18)])
def test_a_layer_of_a_scan_stores_what_went_in_and_no_more(dtype, most):
    """In arrays as large as its input, with dropout: 15 of float32, and 18 of bfloat16, of which
    masks take as much as ever. Norms, softmax, its dropout and the activation would each add two or
    more if they were stored as JAX would by itself."""
    rows, length = 4, 32
    batch = {name: jnp.asarray(value) for name, value in
             tiny.random_batch(rows=rows, length=length).items()}  # fmt: skip
    keys = row_keys(jax.random.key(0), jnp.arange(rows))
    bytes_of = []
    for layers in (4, 8):
        config = replace(tiny.MODEL, num_layers=layers, dtype=dtype)
        graphdef, parameters = nnx.split(Encoder(config, nnx.Rngs(0)))

        def loss(parameters, graphdef=graphdef):
            return jnp.mean(run(nnx.merge(graphdef, parameters), batch, keys) ** 2)

        compiled = jax.jit(jax.grad(loss)).lower(parameters).compile()
        bytes_of.append(compiled.memory_analysis().temp_size_in_bytes)
    one = rows * length * config.hidden_size * jnp.dtype(dtype).itemsize
    assert (bytes_of[1] - bytes_of[0]) / 4 / one <= most + 0.5


@pytest.mark.parametrize("share", ["attention", "feedforward", "all"])
def test_shared_layers_are_equal_layers(encoder, batch, share):
    """Sharing computes what stacked layers with equal parameters do."""
    shared = Encoder(replace(tiny.MODEL, share=share), nnx.Rngs(1))
    other = Encoder(tiny.MODEL, nnx.Rngs(2))
    state = nnx.state(shared)
    for name in ("attention", "attention_norm", "feedforward", "feedforward_norm"):
        if name in shared.shared:
            state["layers"][name] = jax.tree.map(
                lambda leaf: jnp.stack([leaf] * tiny.MODEL.num_layers), state["layers"][name]
            )
    nnx.update(other, state)
    np.testing.assert_allclose(run(other, batch), run(shared, batch), rtol=0, atol=1e-5)


def test_positions_begin_at_their_offset(encoder, batch):
    later = Encoder(replace(tiny.MODEL, position_offset=2), nnx.Rngs(0))
    nnx.update(later, nnx.state(encoder))
    assert later.embeddings.position.get_value().shape == (64, 32)  # as taken over
    table = jnp.pad(encoder.embeddings.position.get_value(), ((2, 0), (0, 0)))
    later.embeddings.position.set_value(table)
    np.testing.assert_array_equal(run(later, batch), run(encoder, batch))


def test_padding_reaches_no_token(encoder, batch):
    real = batch["segment_ids"] > 0
    other = np.where(real, batch["input_ids"], 77)
    expected, found = run(encoder, batch), run(encoder, batch | {"input_ids": other})
    assert not np.array_equal(expected, found)
    np.testing.assert_array_equal(np.asarray(expected)[real], np.asarray(found)[real])


def test_documents_of_a_row_do_not_see_each_other(encoder, batch):
    segments = np.where(np.arange(32) < 10, 1, 2)[None].repeat(8, axis=0)
    packed = batch | {"segment_ids": segments.astype(np.int32)}
    other = packed | {"input_ids": np.where(segments == 1, 9, batch["input_ids"])}
    expected, found = np.asarray(run(encoder, packed)), np.asarray(run(encoder, other))
    np.testing.assert_array_equal(expected[:, 10:], found[:, 10:])
    assert not np.array_equal(expected[:, :10], found[:, :10])


def test_dropout_depends_on_the_row_alone(encoder, batch):
    keys = row_keys(jax.random.key(3), jnp.arange(8))
    whole = run(encoder, batch, keys)
    half = run(encoder, {name: value[4:] for name, value in batch.items()}, keys[4:])
    np.testing.assert_allclose(whole[4:], half, rtol=0, atol=1e-5)
    other = run(encoder, batch, row_keys(jax.random.key(4), jnp.arange(8)))
    assert not np.allclose(whole, other, atol=1e-2)


def test_position_ids_choose_the_rows_of_the_table(encoder, batch):
    places = np.broadcast_to(np.arange(32, dtype=np.int32), (8, 32))
    inputs = [jnp.asarray(batch[n]) for n in ("input_ids", "token_type_ids", "segment_ids")]
    same = encoder(*inputs, position_ids=jnp.asarray(places))
    np.testing.assert_array_equal(same, run(encoder, batch))
    other = encoder(*inputs, position_ids=jnp.asarray(places + 1))
    assert not np.allclose(other, same, atol=1e-3)


def test_attention_dropout_acts(encoder, batch):
    keys = row_keys(jax.random.key(3), jnp.arange(8))
    quiet = with_config(encoder, hidden_dropout=0.0, attention_dropout=0.0)
    attention_only = with_config(encoder, hidden_dropout=0.0)
    np.testing.assert_array_equal(run(quiet, batch, keys), run(quiet, batch))
    assert not np.allclose(run(attention_only, batch, keys), run(quiet, batch), atol=1e-5)


def test_bfloat16_computes_near_float32(encoder, batch):
    low = run(with_config(encoder, dtype="bfloat16"), batch)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), run(encoder, batch), rtol=0, atol=0.1)


def test_parameter_names():
    """A name is part of every checkpoint: to change one is to break those that are there."""
    state = nnx.state(nnx.eval_shape(lambda: Encoder(tiny.MODEL, nnx.Rngs(0))), nnx.Param)
    names = {".".join(map(str, path)): value.shape for path, value in nnx.to_flat_state(state)}
    assert names == {
        "embeddings.norm.bias": (32,),
        "embeddings.norm.scale": (32,),
        "embeddings.position": (64, 32),
        "embeddings.type": (2, 32),
        "embeddings.word": (256, 32),
        "layers.attention.out_bias": (2, 32),
        "layers.attention.out_kernel": (2, 2, 16, 32),
        "layers.attention.qkv_bias": (2, 3, 2, 16),
        "layers.attention.qkv_kernel": (2, 32, 3, 2, 16),
        "layers.attention_norm.bias": (2, 32),
        "layers.attention_norm.scale": (2, 32),
        "layers.feedforward.down_bias": (2, 32),
        "layers.feedforward.down_kernel": (2, 64, 32),
        "layers.feedforward.up_bias": (2, 64),
        "layers.feedforward.up_kernel": (2, 32, 64),
        "layers.feedforward_norm.bias": (2, 32),
        "layers.feedforward_norm.scale": (2, 32),
        "pooler.bias": (32,),
        "pooler.kernel": (32, 32),
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 30, "num_heads": 4}, "hidden_size=30 is not divisible by"),
        ({"activation": "swish"}, "activation='swish'"),
        ({"hidden_dropout": 1.0}, "hidden_dropout=1.0"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"share": "some"}, "share='some'"),
        ({"embedding_size": -1}, "embedding_size=-1"),
    ],
)
def test_bad_sizes_are_named(changes, said):
    with pytest.raises(UserError, match=said):
        replace(tiny.MODEL, **changes)
