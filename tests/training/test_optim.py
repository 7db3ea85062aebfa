"""The optimiser against its equations, the schedule against its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.training.optim import OptimizerConfig, build_optimizer, decayed
from bert_jax.training.schedules import warmup_linear_decay
from tests import tiny


@pytest.mark.parametrize("corrected", [True, False])
def test_three_updates_by_hand(corrected):
    config = OptimizerConfig(
        learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1.0, epsilon=1e-3,
        bias_correction=corrected,
    )  # fmt: skip
    tx = build_optimizer(config, 10)
    kernel, bias = np.array([[1.0, -2.0]]), np.array([3.0])
    parameters = nnx.State(
        {
            "kernel": nnx.Param(jnp.asarray(kernel), role="kernel_de"),
            "bias": nnx.Param(jnp.asarray(bias), role="vector_d"),
        }
    )
    state = tx.init(parameters)
    m = v = np.zeros(3)
    for count, gradient in enumerate(([3.0, 4.0, 0.0], [0.1, -0.2, 0.3], [1.0, 1.0, -1.0]), 1):
        gradient = np.array(gradient)
        gradients = jax.tree.map(
            lambda leaf, g=gradient: jnp.asarray(g[:2][None] if leaf.ndim == 2 else g[2:]),
            parameters,
        )
        updates, state = tx.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)

        clipped = gradient / max(1.0, np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * clipped, 0.999 * v + 0.001 * clipped**2
        unbiased = (m / (1 - 0.9**count), v / (1 - 0.999**count)) if corrected else (m, v)
        step = unbiased[0] / (np.sqrt(unbiased[1]) + 1e-3)
        rate = 0.1 * (1 - (count - 1) / 10)
        kernel = kernel - rate * (step[:2] + 0.5 * kernel)  # decayed
        bias = bias - rate * step[2:]  # not decayed
        np.testing.assert_allclose(parameters["kernel"][...], kernel, rtol=1e-5)
        np.testing.assert_allclose(parameters["bias"][...], bias, rtol=1e-5)


def test_decay_is_on_kernels_and_embeddings_alone():
    module = nnx.eval_shape(lambda: tiny.bert().build(tiny.MODEL, nnx.Rngs(0)))
    mask = decayed(nnx.state(module, nnx.Param))
    off = {
        ".".join(map(str, path)) for path, value in nnx.to_flat_state(mask) if not value.get_value()
    }
    assert len(off) == 16
    assert all("bias" in name or name.endswith("scale") for name in off)


def test_schedule():
    schedule = warmup_linear_decay(1.0, 10, 110)
    for step, rate in ((0, 0.0), (5, 0.5), (10, 1.0), (60, 0.5), (110, 0.0)):
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("warmup", [-1, 100, 200])
def test_a_warm_up_that_does_not_fit_is_named(warmup):
    with pytest.raises(UserError, match=f"optimizer.warmup_steps={warmup}"):
        warmup_linear_decay(1.0, warmup, 100)


@pytest.mark.parametrize("bias_correction", [True, False])
def test_lamb_by_hand(bias_correction):
    """You et al. 2020, algorithm 2: a ratio for each layer's matrix, and each of query, key, value;
    none for a bias."""
    config = OptimizerConfig(
        "lamb", learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=0.0,
        bias_correction=bias_correction,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    shapes = {"qkv_kernel_dcnh": (2, 4, 3, 2, 5), "up_kernel_df": (2, 4, 6), "vector_d": (2, 4)}
    values = {role: rng.normal(size=shape) for role, shape in shapes.items()}
    parameters = nnx.State(
        {
            role: nnx.Param(jnp.asarray(value, jnp.float32), role=role)
            for role, value in values.items()
        }
    )
    gradients = {role: rng.normal(size=shape) for role, shape in shapes.items()}
    tx = build_optimizer(config, 10)
    given = nnx.State(
        {role: nnx.Param(jnp.asarray(g, jnp.float32), role=role) for role, g in gradients.items()}
    )
    updates, _ = tx.update(given, tx.init(parameters), parameters)
    for role, gradient in gradients.items():
        m, v = 0.1 * gradient, 0.001 * gradient**2
        if bias_correction:
            m, v = m / 0.1, v / 0.001
        update = m / (np.sqrt(v) + 1e-6)
        if role != "vector_d":
            update += 0.5 * values[role]
            axes = {"qkv_kernel_dcnh": (1, 3, 4), "up_kernel_df": (1, 2)}[role]

            def norm(x, axes=axes):
                return np.sqrt(np.sum(x**2, axis=axes, keepdims=True))

            update *= norm(values[role]) / norm(update)
        np.testing.assert_allclose(updates[role][...], -0.1 * update, rtol=0, atol=1e-5)


def test_a_matrix_of_zeros_has_ratio_one():
    config = OptimizerConfig("lamb", learning_rate=0.1, warmup_steps=0, weight_decay=0.0)
    parameters = nnx.State({"k": nnx.Param(jnp.zeros((2, 2)), role="kernel_de")})
    gradients = nnx.State({"k": nnx.Param(jnp.full((2, 2), 0.1), role="kernel_de")})
    tx = build_optimizer(config, 10)
    updates, _ = tx.update(gradients, tx.init(parameters), parameters)
    np.testing.assert_allclose(updates["k"][...], -0.1, rtol=1e-3)


def test_without_a_limit_no_gradient_is_clipped():
    parameters = nnx.State({"k": nnx.Param(jnp.ones((1, 1)), role="kernel_de")})
    moments = []
    for limit in (0.0, 1e6, 1e-3):
        tx = build_optimizer(OptimizerConfig(clip_norm=limit, warmup_steps=0), 10)
        gradients = nnx.State({"k": nnx.Param(jnp.full((1, 1), 8.0), role="kernel_de")})
        _, state = tx.update(gradients, tx.init(parameters), parameters)
        (mu,) = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (1, 1)][:1]
        moments.append(float(mu[0, 0]))
    assert moments[0] == moments[1] == pytest.approx(0.8) and moments[2] < 1e-3


@pytest.mark.parametrize("field", ["learning_rate", "epsilon", "clip_norm", "beta1"])
def test_bad_values_are_named(field):
    with pytest.raises(UserError, match=f"optimizer.{field}=-1"):
        OptimizerConfig(**{field: -1.0})
    with pytest.raises(UserError, match="optimizer.name='sgd'"):
        OptimizerConfig("sgd")
