"""The position-wise feed-forward network."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from bert_jax.models.adapters import PLAIN, AdaptConfig, update_of
from bert_jax.models.config import EncoderConfig
from bert_jax.models.initializers import normal, zeros
from bert_jax.models.sharding import RULES

# 'gelu' is x·Φ(x) with the exact erf, 'gelu_tanh' its approximation (Hendrycks and Gimpel 2016, 2).
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,  # of poolers
}


class Mlp(nnx.Module):
    """W₂·activation(W₁x + b₁) + b₂ (Vaswani et al. 2017, 3.3)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig = PLAIN):
        D, F = config.hidden_size, config.intermediate_size
        self.up_kernel = normal(config, rngs, "up_kernel_df", (D, F))
        self.up_bias = zeros("up_bias_f", (F,))
        self.down_kernel = normal(config, rngs, "down_kernel_fd", (F, D))
        self.down_bias = zeros("vector_d", (D,))
        # Stored for the backward pass is what goes in, and not each of its operations.
        self.activation = jax.checkpoint(ACTIVATIONS[config.activation], prevent_cse=False)
        self.up_update = update_of("up", config, rngs, adapt)
        self.down_update = update_of("down", config, rngs, adapt)

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        wide = jnp.einsum(
            "bsd,df->bsf", x, self.up_kernel[...].astype(x.dtype), out_sharding=RULES.wide_bsf
        )
        wide = self.up_update(x, wide + self.up_bias[...].astype(x.dtype))
        wide = self.activation(wide)
        out = jnp.einsum(
            "bsf,fd->bsd", wide, self.down_kernel[...].astype(x.dtype),
            out_sharding=RULES.hidden_bsd,
        )  # fmt: skip
        return self.down_update(wide, out + self.down_bias[...].astype(x.dtype))
