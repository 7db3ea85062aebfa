"""Low-rank updates and bottlenecks: what they compute, where they begin, and what is trained."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.models.adapters import PLAIN, TARGETS, AdaptConfig, is_adapter, merge, split
from bert_jax.models.config import SHARED
from bert_jax.models.sharding import RULES
from bert_jax.objectives import build_pretrained
from tests import tiny

pytestmark = pytest.mark.tree_mode
ALL = " ".join(TARGETS)
LORA = AdaptConfig("lora", rank=3, alpha=6.0, targets=ALL)
BOTTLENECK = AdaptConfig("bottleneck", size=5)


def build(model, adapt):
    return build_pretrained(replace(model, initializer_stddev=0.1), (), nnx.Rngs(0), adapt)


def parameters_of(model, adapt):
    return nnx.state(build(model, adapt), nnx.Param)


def hidden(model, adapt, parameters):
    module = build(model, adapt)
    nnx.update(module, parameters)
    batch = tiny.random_batch()
    inputs = (jnp.asarray(batch[n]) for n in ("input_ids", "token_type_ids", "segment_ids"))
    return np.asarray(module.encoder(*inputs))


def shaken(parameters, amount):
    """The adapters moved at random, as if they had learned."""
    rng = np.random.default_rng(0)
    moved = [
        (path, v.replace(v.get_value() + jnp.asarray(rng.normal(0, amount, v.get_value().shape),
                                                     jnp.float32)) if is_adapter(path) else v)
        for path, v in nnx.to_flat_state(parameters)
    ]  # fmt: skip
    return nnx.from_flat_state(moved)


def without(parameters):
    flat = nnx.to_flat_state(parameters)
    return nnx.from_flat_state([(path, v) for path, v in flat if not is_adapter(path)])


@pytest.mark.parametrize("targets", [ALL, *TARGETS])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share": "all", "embedding_size": 16},
        {"share": "attention", "scan_layers": False},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_merged_equals_applied(changes, targets):
    model, adapt = replace(tiny.MODEL, **changes), replace(LORA, targets=targets)
    parameters = shaken(parameters_of(model, adapt), 0.1)
    applied, merged = hidden(model, adapt, parameters), merge(parameters, adapt)
    assert not any(is_adapter(path) for path, _ in nnx.to_flat_state(merged))
    np.testing.assert_allclose(hidden(model, PLAIN, merged), applied, rtol=0, atol=1e-5)
    base = hidden(model, PLAIN, without(parameters))
    assert np.abs(base - applied).max() > 1e-2  # it was more than nothing that was merged


@pytest.mark.parametrize("share", ["none", "all"])
@pytest.mark.parametrize("adapt", [LORA, BOTTLENECK], ids=lambda adapt: adapt.kind)
def test_at_the_start_the_model_is_what_it_was(adapt, share):
    model = replace(tiny.MODEL, share=share)
    parameters = parameters_of(model, adapt)
    found = hidden(model, adapt, parameters)
    expected = hidden(model, PLAIN, without(parameters))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if adapt.kind == "lora" else 1e-3)
    unrolled = hidden(replace(model, scan_layers=False), adapt, shaken(parameters, 0.1))
    rolled = hidden(model, adapt, shaken(parameters, 0.1))
    np.testing.assert_allclose(unrolled, rolled, rtol=0, atol=1e-5)
    assert np.abs(rolled - expected).max() > 1e-2


def test_a_bottleneck_is_its_equation_before_the_sum():
    """x + W₂·gelu(W₁x + b₁) + b₂; and, where W₂ is 0, b₂ is as good as the sublayer's own bias."""
    parameters = shaken(parameters_of(tiny.MODEL, BOTTLENECK), 0.3)
    module = build(tiny.MODEL, BOTTLENECK)
    nnx.update(module, parameters)
    adapter = module.encoder.layers.attention_adapter
    w1, b1, w2, b2 = (
        np.asarray(one.get_value())[1]
        for one in (adapter.down_kernel, adapter.down_bias, adapter.up_kernel, adapter.up_bias)
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 32)).astype(np.float32)
    second = nnx.merge(*jax.tree.map(lambda leaf: leaf[1:2], nnx.split(adapter)))
    second = jax.tree.map(lambda leaf: leaf[0], second)
    narrow = x @ w1 + b1
    gelu = 0.5 * narrow * (1 + np.tanh(np.sqrt(2 / np.pi) * (narrow + 0.044715 * narrow**3)))
    np.testing.assert_allclose(second(jnp.asarray(x)), x + gelu @ w2 + b2, rtol=0, atol=1e-5)

    layers = parameters["encoder"]["layers"]
    plain = jax.tree.map(jnp.copy, without(parameters))
    for adapter, part, bias in (
        ("attention_adapter", "attention", "out_bias"),
        ("feedforward_adapter", "feedforward", "down_bias"),
    ):
        layers[adapter]["up_kernel"] = jax.tree.map(jnp.zeros_like, layers[adapter]["up_kernel"])
        mine = plain["encoder"]["layers"][part][bias]
        mine.set_value(mine.get_value() + layers[adapter]["up_bias"].get_value())
    np.testing.assert_allclose(
        hidden(tiny.MODEL, BOTTLENECK, parameters), hidden(tiny.MODEL, PLAIN, plain), atol=1e-5
    )


def names(state):
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def test_what_is_trained():
    def parts(adapt, new_pooler=False):
        size = replace(tiny.MODEL, num_labels=2)
        module = build_pretrained(size, ("classify",), nnx.Rngs(0), adapt)
        return map(names, split(nnx.state(module, nnx.Param), adapt, new_pooler))

    head = {"heads.classify.kernel", "heads.classify.bias"}
    pooler = {"encoder.pooler.kernel", "encoder.pooler.bias"}
    everything, nothing = parts(PLAIN)
    assert not nothing and head | pooler < everything
    trained, frozen = parts(AdaptConfig("lora"))
    updates = {
        f"encoder.layers.attention.{name}_update.{one}" for name in ("query", "value")
        for one in "ab"
    }  # fmt: skip
    assert trained == head | updates and frozen == everything - head
    trained, frozen = parts(AdaptConfig("lora"), new_pooler=True)
    assert trained == head | updates | pooler and frozen == everything - head - pooler
    trained, frozen = parts(BOTTLENECK)
    norms = {name for name in everything if "norm" in name}
    assert len(norms) == 6 and head | norms < trained and frozen == everything - head - norms
    added = trained - head - norms
    assert len(added) == 8 and all("_adapter." in name for name in added)


@pytest.mark.parametrize("share", SHARED)
@pytest.mark.parametrize("adapt", [LORA, BOTTLENECK], ids=lambda adapt: adapt.kind)
def test_every_adapter_has_a_role(adapt, share):
    """Updates of what layers share are shared too; each layer has bottlenecks of its own."""
    parameters = parameters_of(replace(tiny.MODEL, share=share), adapt)
    found = [one for one in nnx.to_flat_state(parameters) if is_adapter(one[0])]
    assert len(found) == (2 * len(TARGETS) if adapt.kind == "lora" else 8)
    for path, variable in found:
        role = variable.get_metadata("role")
        letters = role.rpartition("_")[2]
        assert len(letters) == len(getattr(RULES, role)), path
        stacked = path[2] not in SHARED[share]
        assert variable.get_value().ndim == len(letters) + stacked, path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "prefix"}, "adapt.kind='prefix': must be one of lora, bottleneck, or ''"),
        ({"rank": 0}, "adapt.rank=0: must be 1 or more"),
        ({"size": -1}, "adapt.size=-1: must be 1 or more"),
        ({"alpha": 0.0}, "adapt.alpha=0.0: must be above 0"),
        ({"alpha": float("inf")}, "adapt.alpha=inf"),
        ({"targets": "query values"}, "adapt.targets='query values': must be some of query key"),
        ({"targets": " "}, "adapt.targets=' '"),
    ],
)
def test_bad_values_are_named(values, said):
    with pytest.raises(UserError, match=said):
        AdaptConfig(**values)


def test_what_is_wider_than_the_model_is_named():
    AdaptConfig("lora", rank=32).check_fits(tiny.MODEL)
    with pytest.raises(UserError, match="adapt.rank=33: must be at most .* hidden_size, 32"):
        AdaptConfig("lora", rank=33).check_fits(tiny.MODEL)
    with pytest.raises(UserError, match="adapt.size=64: must be at most .* hidden_size, 32"):
        AdaptConfig("bottleneck").check_fits(tiny.MODEL)
