"""Learning rates by depth: lower layers slower, or not at all, when a model is fine-tuned."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from bert_jax.errors import UserError


@dataclass(frozen=True)
class DepthConfig:
    """The share of the learning rate that a parameter has, by its depth: 0 for the embeddings, l
    for layer l of L, L + 2 for what is above the layers (released code of Clark et al. 2020)."""

    decay: float = 1.0  # share = decay^(L + 2 − depth), discriminative (Howard and Ruder 2018, 3.2)
    frozen_layers: int = 0  # the lowest ones, and the embeddings with them, stay as they are
    # Gradual unfreezing (Howard and Ruder 2018, 3.3): the head learns from the first epoch on, the
    # highest layer after so many epochs, the next after as many more; 0: all at once.
    unfreeze_epochs: float = 0.0

    def __post_init__(self):
        if not 0 < self.decay <= 1:
            raise UserError(f"depth.decay={self.decay}: must be above 0 and at most 1")
        for name in ("frozen_layers", "unfreeze_epochs"):
            if not 0 <= getattr(self, name) < 1 << 20:
                raise UserError(f"depth.{name}={getattr(self, name)}: must be 0 or more")


def scale_by_depth(
    config: DepthConfig, num_layers: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Updates times their parameter's share; what is frozen gets an update of 0, weight decay
    included. Parameters that all layers share have the depth of the highest.

    Raises UserError where more layers are frozen than there are.
    """
    if config.frozen_layers > num_layers:
        raise UserError(
            f"depth.frozen_layers={config.frozen_layers}: the model has {num_layers} layers"
        )
    every = config.unfreeze_epochs * steps_per_epoch

    def share(depth: Int[Array, "*layers"], step: Int[Array, ""]) -> Float[Array, "*layers"]:
        above = depth > num_layers
        thawed = step >= (num_layers + 1 - depth) * every
        learns = thawed & ((depth > config.frozen_layers) | (config.frozen_layers == 0))
        shares = jnp.power(jnp.float32(config.decay), num_layers + 2 - depth)
        return jnp.where(learns | above, shares, 0.0)

    def depth_of(path: tuple, variable: nnx.Variable) -> Int[Array, "*layers"]:
        if path[:2] == ("encoder", "layers"):
            letters = variable.get_metadata("role").rpartition("_")[2]
            stacked = variable.get_value().ndim > len(letters)
            return jnp.arange(1, num_layers + 1) if stacked else jnp.array(num_layers)
        tables = path[:2] in (("encoder", "embeddings"), ("encoder", "projection"))
        return jnp.array(0 if tables else num_layers + 2)

    def update(updates, state, parameters=None):
        def scaled(path: tuple, variable: nnx.Variable) -> nnx.Variable:
            value, shares = variable.get_value(), share(depth_of(path, variable), state.count)
            return variable.replace(value * shares.reshape(-1, *(1,) * (value.ndim - 1)))

        flat = [(path, scaled(path, one)) for path, one in nnx.to_flat_state(updates)]
        return nnx.from_flat_state(flat), optax.ScaleByScheduleState(state.count + 1)

    def init(parameters):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)
