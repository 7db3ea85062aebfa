"""Layer normalisation (Ba et al. 2016), in float32 whatever the compute dtype."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LayerNorm(nnx.Module):
    """y = scale · (x − mean) / sqrt(var + epsilon) + bias, over the last axis."""

    def __init__(self, size: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones((size,)), role="vector_d")
        self.bias = nnx.Param(jnp.zeros((size,)), role="vector_d")
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        return _normalized(x, self.scale[...], self.bias[...], self.epsilon)


# The backward pass reads x again; what JAX would store for it is three times x in float32.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=3)
def _normalized(
    x: Float[Array, "*rows D"], scale: Float[Array, "D"], bias: Float[Array, "D"], epsilon: float
) -> Float[Array, "*rows D"]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    # Two passes: E[x²] − E[x]² loses the digits that the 1e-4 comparison needs.
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    normal = (wide - mean) * jax.lax.rsqrt(variance + epsilon)
    return (normal * scale + bias).astype(x.dtype)
