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


@pytest.mark.parametrize("field", ["learning_rate", "epsilon", "clip_norm", "beta1"])
def test_bad_values_are_named(field):
    with pytest.raises(UserError, match=f"optimizer.{field}=-1"):
        OptimizerConfig(**{field: -1.0})
