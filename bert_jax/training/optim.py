"""The optimiser: clipping, Adam, decoupled weight decay, learning rate."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from bert_jax.errors import UserError
from bert_jax.models.sharding import is_variable
from bert_jax.training.schedules import warmup_linear_decay

NAMES = ("adamw", "lamb")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019); the numbers are those of Devlin et al. 2018, A.2."""

    name: str = "adamw"  # or lamb (You et al. 2020), for batches of thousands
    learning_rate: float = 1e-4  # the peak
    warmup_steps: int = 10_000
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6  # released code
    weight_decay: float = 0.01  # not on biases and norms (released code)
    clip_norm: float = 1.0  # of the global gradient (released code); 0: not clipped
    bias_correction: bool = True  # Kingma and Ba 2015, 3; BERT's released code leaves it out

    def __post_init__(self):
        if self.name not in NAMES:
            raise UserError(f"optimizer.name={self.name!r}: must be one of {', '.join(NAMES)}")
        for name in ("learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be above 0")
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be 0 or more")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be in [0, 1)")


def build_optimizer(
    config: OptimizerConfig, steps: int, frozen: tuple[tuple[str, ...], ...] = ()
) -> optax.GradientTransformation:
    """`frozen`: paths of the parameters that stay as they are."""
    adam = optax.scale_by_adam if config.bias_correction else scale_by_uncorrected_adam
    schedule = warmup_linear_decay(config.learning_rate, config.warmup_steps, steps)
    parts = [
        adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(schedule),
    ]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.name == "lamb":
        parts.insert(-1, scale_by_trust_ratio())
    if frozen:
        parts.append(optax.masked(optax.set_to_zero(), lambda tree: _below(frozen, tree)))
    return optax.chain(*parts)


def decayed(parameters: nnx.State) -> nnx.State:
    """True for the parameters that weight decay acts on: kernels and embeddings, by their role.
    The rank would not do, as stacked layers add an axis to every bias."""

    return jax.tree.map(lambda v: v.replace(_is_decayed(v)), parameters, is_leaf=is_variable)


def _is_decayed(variable: nnx.Variable) -> bool:
    role = variable.get_metadata("role")
    return "kernel" in role or "embedding" in role or "table" in role


def _below(paths: tuple[tuple[str, ...], ...], tree: nnx.State) -> nnx.State:
    """True for what lies under one of the paths."""
    return nnx.from_flat_state(
        [
            (path, variable.replace(any(path[: len(one)] == one for one in paths)))
            for path, variable in nnx.to_flat_state(tree)
        ]
    )


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """LAMB's factor ‖w‖/‖u‖ for each matrix that decays (You et al. 2020, algorithm 2), 1 where a
    norm is 0; biases and norms keep their update, as in the code released for Lan et al. 2020.

    A matrix is a layer's: norms run over the letters of the role, so the stacked layers are apart,
    and so are query, key and value (letter c).
    """

    def update(updates, state, parameters=None):
        def of(update: nnx.Variable, parameter: nnx.Variable) -> nnx.Variable:
            if not _is_decayed(parameter):
                return update
            letters = parameter.get_metadata("role").rpartition("_")[2]
            axes = tuple(n - len(letters) for n, c in enumerate(letters) if c != "c")
            w, u = (
                jnp.sqrt(jnp.sum(jnp.square(v.get_value()), axis=axes, keepdims=True))
                for v in (parameter, update)
            )
            ratio = jnp.where((w > 0) & (u > 0), w / jnp.where(u > 0, u, 1), 1.0)
            return update.replace(update.get_value() * ratio)

        return jax.tree.map(of, updates, parameters, is_leaf=is_variable), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)


class UncorrectedAdamState(NamedTuple):
    mu: Any
    nu: Any


def is_moments(node: object) -> bool:
    """Whether it is what Adam knows of the gradients, of all that an optimiser's state has."""
    return isinstance(node, optax.ScaleByAdamState | UncorrectedAdamState)


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
