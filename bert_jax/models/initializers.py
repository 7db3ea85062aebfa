"""How parameters begin, and how they come to know their role in the sharding table."""

import jax
from flax import nnx

from bert_jax.models.config import EncoderConfig


def normal(config: EncoderConfig, rngs: nnx.Rngs, role: str, shape: tuple[int, ...]) -> nnx.Param:
    """Truncated normal at two deviations, as in BERT's released code; `role` is a field of
    ShardingRules."""
    draw = jax.nn.initializers.truncated_normal(config.initializer_stddev)
    return nnx.Param(draw(rngs.params(), shape), role=role)


def zeros(role: str, shape: tuple[int, ...]) -> nnx.Param:
    return nnx.Param(jax.numpy.zeros(shape), role=role)
