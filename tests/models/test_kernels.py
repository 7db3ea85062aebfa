"""Kernels beside the einsum: the same values and gradients, nothing of another document, and what
each refuses. The TPU's is interpreted; the GPU's runs where JAX_PLATFORMS=cuda gives one."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.kernels import (
    KERNELS,
    cudnn_attention,
    einsum_attention,
    platform_of,
    resolve,
    splash_attention,
)
from bert_jax.models.sharding import RULES
from bert_jax.objectives import build_objective, encoders_of
from bert_jax.objectives.rtd import GeneratorConfig
from bert_jax.training.mesh import MeshConfig, build_mesh
from tests import tiny

B, S, N, H = 2, 256, 2, 8
interpreted = partial(splash_attention, interpret=True)
# Two documents and padding; a document over a border of blocks, and one alone.
SEGMENTS = np.array(
    [np.repeat([1, 2, 0], [100, 130, 26]), np.repeat([1, 2], [1, 255])], dtype=np.int32
)


@pytest.fixture
def masked_einsum(monkeypatch):
    """cuDNN's way into JAX, with JAX's own arithmetic behind it: the mask is what is tested."""
    given = jax.nn.dot_product_attention

    def attend(*inputs, implementation, **others):
        assert implementation == "cudnn"
        return given(*inputs, implementation="xla", **others)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)


@pytest.fixture(params=["splash", "cudnn"])
def kernel(request):
    if request.param == "splash":
        return interpreted
    if not REAL:
        request.getfixturevalue("masked_einsum")
    return cudnn_attention


# cuDNN's own kernel takes bfloat16 alone, which has 8 bits.
REAL = jax.default_backend() == "gpu"
DTYPE, WITHIN = (jnp.bfloat16, 3e-2) if REAL else (jnp.float32, 1e-5)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(B, S, N, H)), DTYPE) for _ in range(3)]


def test_values_and_gradients_are_those_of_the_einsum(kernel):
    weights = inputs(1)[0] * (SEGMENTS > 0)[..., None, None]

    def outcome(attend):
        def loss(q, k, v):
            mixed = attend(q, k, v, jnp.asarray(SEGMENTS), 0.0, None)
            return jnp.sum((mixed * weights).astype(jnp.float32)), mixed.astype(jnp.float32)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*inputs())

    (_, mixed), gradients = outcome(kernel)
    (_, expected), expected_gradients = outcome(einsum_attention)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=WITHIN)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        mine, theirs = mine.astype(jnp.float32), theirs.astype(jnp.float32)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=WITHIN)


@pytest.mark.parametrize("document", [1, 2])
def test_nothing_of_another_document_reaches_one(kernel, document):
    """By a bit: values where the others' tokens are replaced, and gradients by them."""
    mine = jnp.asarray(SEGMENTS == document)[..., None, None]
    attend = jax.jit(lambda q, k, v: kernel(q, k, v, jnp.asarray(SEGMENTS), 0.0, None))
    others = [jnp.where(mine, x, y) for x, y in zip(inputs(), inputs(1), strict=True)]
    expected, found = np.asarray(attend(*inputs())), np.asarray(attend(*others))
    here = np.asarray(SEGMENTS == document)
    np.testing.assert_array_equal(found[here], expected[here])
    assert not np.array_equal(found[~here], expected[~here])
    gradients = jax.grad(lambda *qkv: jnp.sum(attend(*qkv) * mine), argnums=(0, 1, 2))(*inputs())
    for gradient in gradients:
        assert not np.asarray(gradient)[~here].any()
    assert np.asarray(gradients[2])[here].any()


def test_a_kernel_on_a_mesh_is_that_of_one_device():
    expected = interpreted(*inputs(), jnp.asarray(SEGMENTS), 0.0, None)
    mesh = build_mesh(MeshConfig(data=2, tensor=2), 2, devices=jax.devices()[:4])
    spec = jax.P(("data", "fsdp"), None, "tensor", None)
    with jax.set_mesh(mesh):
        heads = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x in inputs()]
        rows = jax.device_put(SEGMENTS, jax.NamedSharding(mesh, RULES.batch(2)))
        found = jax.jit(lambda *qkv: interpreted(*qkv, 0.0, None))(*heads, rows)
        assert jax.typeof(found).sharding.spec == spec
    np.testing.assert_array_equal(found, expected)


def test_an_encoder_runs_on_the_kernel_that_its_config_names(monkeypatch):
    taken = replace(KERNELS["splash"], attend=interpreted)
    monkeypatch.setitem(KERNELS, "splash", taken)
    config = replace(tiny.MODEL, max_positions=128, attention_dropout=0.0)
    one, other = (
        Encoder(replace(config, attention=name), nnx.Rngs(0)) for name in ("einsum", "splash")
    )
    ids = jnp.asarray(np.random.default_rng(0).integers(9, 99, (2, 128)), jnp.int32)
    segments = jnp.asarray(SEGMENTS[:, :128])
    expected, found = (encoder(ids, 0 * ids, segments) for encoder in (one, other))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert not np.array_equal(found, expected)  # it was another kernel


MODEL = EncoderConfig(attention_dropout=0.0, dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "platform", "lengths", "taken", "says"),
    [
        ({}, "tpu", [128, 512], "splash", "attention: splash, as it takes all rows"),
        ({}, "gpu", [128, 512], "cudnn", "attention: cudnn, as it takes all rows"),
        ({}, "cpu", [128], "einsum", "there is no kernel for a cpu"),
        ({"attention_dropout": 0.1}, "tpu", [128], "einsum", "splash has no attention dropout"),
        ({"attention_dropout": 0.1}, "gpu", [128], "einsum", "cudnn has no attention dropout"),
        ({}, "tpu", [128, 100], "einsum", "splash takes rows of a multiple of 128 tokens"),
        ({"dtype": "float32"}, "gpu", [128], "einsum", "cudnn computes in bfloat16"),
        ({"num_heads": 4}, "gpu", [128], "einsum", "these are of 192"),
        ({}, "gpu", [33], "einsum", "cudnn takes rows of even length"),
    ],
)
def test_auto_takes_what_it_can_and_says_why(changes, platform, lengths, taken, says):
    config = replace(MODEL, attention="auto", **changes)
    found, why = resolve(config, platform, lengths)
    assert found == replace(config, attention=taken) and says in why


@pytest.mark.parametrize(
    ("name", "changes", "platform", "says"),
    [
        ("splash", {}, "cpu", "runs on a tpu, and this is a cpu"),
        ("cudnn", {}, "tpu", "runs on a gpu, and this is a tpu"),
        ("splash", {"attention_dropout": 0.1}, "tpu", "attention_dropout=0.1: set it to 0"),
        ("cudnn", {}, "gpu of 7.0", "runs on a gpu, and this is a gpu of 7.0"),
    ],
)
def test_a_kernel_asked_for_by_name_is_had_or_refused(name, changes, platform, says):
    with pytest.raises(UserError, match=says):
        resolve(replace(MODEL, attention=name, **changes), platform, [128])
    wanted = replace(MODEL, attention=name)
    assert resolve(wanted, KERNELS[name].platform, [128]) == (wanted, "")


def test_a_generator_has_to_run_on_the_kernel_too():
    """Of a tenth of the width it has heads that cuDNN does not take."""
    generator = GeneratorConfig(width=0.1)
    model = replace(MODEL, hidden_size=960, num_heads=20, attention="auto")  # heads of 48
    objective = build_objective({"mlm": 1.0, "rtd": 50.0}, replace(model, pooler=False), generator)
    both = encoders_of(objective, model)
    assert [one.head_size for one in both] == [48, 48]
    odd = replace(both[0], num_heads=8, hidden_size=96)  # heads of 12
    assert resolve(model, "gpu", [128], both)[0].attention == "cudnn"
    found, why = resolve(model, "gpu", [128], [odd, model])
    assert found.attention == "einsum" and "these are of 12" in why


class Device(NamedTuple):
    platform: str
    compute_capability: str | None = None


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device("cpu"), "cpu"), (Device("gpu", "9.0"), "gpu"), (Device("gpu", "12.1"), "gpu"),
        (Device("gpu", "7.5"), "gpu of 7.5"), (Device("gpu", "gfx90a"), "gpu of gfx90a"),
    ],
)  # fmt: skip
def test_a_gpu_without_cudnns_attention_is_none(device, expected):
    assert platform_of(device) == expected
    assert platform_of(jax.devices()[0]) == jax.default_backend()
