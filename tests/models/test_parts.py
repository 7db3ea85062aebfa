"""Single operations against their definitions, to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import dropout, fold, kept, row_keys, scaled_by
from bert_jax.models.feedforward import ACTIVATIONS
from bert_jax.models.heads import MaskedTokenHead
from bert_jax.models.kernels import einsum_attention
from bert_jax.models.norms import LayerNorm


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_attention_is_softmax_over_the_own_document():
    q, k, v = (normal(2, 6, 3, 4, seed=seed) for seed in range(3))
    segments = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    found = einsum_attention(*map(jnp.asarray, (q, k, v, segments)), 0.0, None)
    for row in range(2):
        for head in range(3):
            for place in range(6):
                same = segments[row] == segments[row, place]
                weights = special.softmax(k[row, same, head] @ q[row, place, head] / 2.0)
                np.testing.assert_allclose(
                    found[row, place, head], weights @ v[row, same, head], atol=1e-5
                )


def test_layer_norm():
    x = 100 + normal(4, 5, 16)
    norm = LayerNorm(16, 1e-12)
    expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-4)


def test_gelu_is_the_erf_form():
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    expected = x * special.ndtr(x)
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), expected, atol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(64, 50, 41), (64, 3, 7, 7), (64, 770)])
def test_dropout_keeps_the_mean_and_drops_the_rate(shape, rate):
    keys = row_keys(jax.random.key(0), jnp.arange(64))
    x = jnp.ones(shape)
    y = np.asarray(dropout(x, rate, keys))
    assert y.shape == shape
    deviation = np.sqrt(rate * (1 - rate) / y.size)
    assert abs(np.mean(y == 0) - rate) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - rate)
    np.testing.assert_array_equal(dropout(x, 0.1, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, keys), x)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.25, 0.5])
def test_dropout_in_bfloat16_keeps_the_mean(rate):
    """Its scale is a number of 8 bits, and the rate the one that goes with it."""
    mine = scaled_by(jnp.dtype("bfloat16"), rate)
    scale = float(jnp.asarray(65536 / round((1 - mine) * 65536), jnp.bfloat16))
    assert scale * (1 - mine) == pytest.approx(1, abs=1e-5) and abs(mine - rate) < 0.002
    assert scaled_by(jnp.dtype("float32"), rate) == pytest.approx(rate, abs=1e-7)
    keys = row_keys(jax.random.key(0), jnp.arange(64))
    y = np.asarray(dropout(jnp.ones((64, 256, 256), jnp.bfloat16), rate, keys), np.float64)
    assert abs(y.mean() - 1) < 4 * np.sqrt(rate / (1 - rate) / y.size)
    assert abs(np.mean(y == 0) - mine) < 4 * np.sqrt(rate * (1 - rate) / y.size)


def test_dropout_of_neighbours_is_independent():
    """Of the four elements that share a block, of those beside each other on each axis, and of the
    rows: no correlation beyond four deviations."""
    keys = row_keys(jax.random.key(0), jnp.arange(64))
    mask = 2.0 * np.asarray(kept((64, 2, 64, 48), 0.5, keys)) - 1
    quarters = np.split(mask, 4, axis=2)
    pairs = [(quarters[a], quarters[b]) for a in range(4) for b in range(a)]
    for axis in range(4):
        one, other = np.split(mask[::2] if axis == 0 else mask, 2, axis=axis)
        pairs.append((one, other))
        size = mask.shape[axis]
        pairs.append((mask.take(range(size - 1), axis), mask.take(range(1, size), axis)))
    for one, other in pairs:
        assert abs(np.mean(one * other)) < 4 / np.sqrt(one.size)


def test_dropout_bits_are_threefrys():
    """Key and counter 0 give 6b200159 99ba4efe, by the published test of the generator (Salmon et
    al. 2011, Threefry-2x32 of 20 rounds); an element is left where its 16 bits are below."""
    words = (0x0159, 0x6B20, 0x4EFE, 0x99BA)
    key = jax.random.wrap_key_data(jnp.zeros((1, 2), jnp.uint32))
    for place, word in enumerate(words):
        for level, expected in ((word, False), (word + 1, True)):
            found = kept((1, 4, 1), 1 - level / 65536, key)
            assert bool(found[0, place, 0]) == expected


def test_dropout_differs_by_row_layer_and_step():
    x = jnp.ones((4, 200))
    keys = row_keys(jax.random.key(0), jnp.arange(4))
    masks = [
        np.asarray(dropout(x, 0.5, keys)) == 0,
        np.asarray(dropout(x, 0.5, fold(keys, 0))) == 0,
        np.asarray(dropout(x, 0.5, fold(keys, 1))) == 0,
        np.asarray(dropout(x, 0.5, row_keys(jax.random.key(1), jnp.arange(4)))) == 0,
    ]
    rows = np.concatenate(masks)
    agreement = (rows[:, None] == rows[None]).mean(-1)
    off_diagonal = agreement[~np.eye(len(rows), dtype=bool)]
    assert off_diagonal.max() < 0.7  # one half ± 0.035 if they are independent


def test_ids_that_pad_the_vocabulary_are_impossible():
    config = EncoderConfig(
        vocab_size=130, hidden_size=8, num_heads=2, num_layers=1, intermediate_size=8
    )
    assert config.padded_vocab_size == 256
    head = MaskedTokenHead(config, nnx.Rngs(0))
    logits = head(
        jnp.asarray(normal(2, 5, 8)), jnp.zeros((2, 3), jnp.int32), jnp.asarray(normal(256, 8))
    )
    assert logits.shape == (2, 3, 256)
    assert np.isneginf(logits[..., 130:]).all() and np.isfinite(logits[..., :130]).all()
