"""The optimiser: clipping, Adam, decoupled weight decay, learning rate."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.training.schedules import warmup_linear_decay


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019); the numbers are those of Devlin et al. 2018, A.2."""

    learning_rate: float = 1e-4  # the peak
    warmup_steps: int = 10_000
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6  # released code
    weight_decay: float = 0.01  # not on biases and norms (released code)
    clip_norm: float = 1.0  # of the global gradient (released code)
    bias_correction: bool = True  # Kingma and Ba 2015, 3; BERT's released code leaves it out

    def __post_init__(self):
        for name in ("learning_rate", "epsilon", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"optimizer.weight_decay={self.weight_decay}: must be 0 or more")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be in [0, 1)")


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    adam = optax.scale_by_adam if config.bias_correction else scale_by_uncorrected_adam
    schedule = warmup_linear_decay(config.learning_rate, config.warmup_steps, steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(schedule),
    )


def decayed(parameters: nnx.State) -> nnx.State:
    """True for the parameters that weight decay acts on: kernels and embeddings, by their role.
    The rank would not do, as stacked layers add an axis to every bias."""

    def of(variable: nnx.Variable) -> nnx.Variable:
        role = variable.get_metadata("role")
        return variable.replace("kernel" in role or "embedding" in role or "table" in role)

    return jax.tree.map(of, parameters, is_leaf=lambda node: isinstance(node, nnx.Variable))


class UncorrectedAdamState(NamedTuple):
    mu: Any
    nu: Any


def scale_by_uncorrected_adam(
    beta1: float, beta2: float, epsilon: float
) -> optax.GradientTransformation:
    """m / (√v + ε) without the 1 − βᵗ of Kingma and Ba 2015: the AdamWeightDecayOptimizer of
    BERT's released code. The first steps are smaller, as if warmed up twice."""

    def init(parameters):
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return UncorrectedAdamState(zeros, jax.tree.map(jnp.zeros_like, parameters))

    def update(gradients, state, parameters=None):
        mu = optax.tree.update_moment(gradients, state.mu, beta1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, beta2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, UncorrectedAdamState(mu, nu)

    return optax.GradientTransformation(init, update)
