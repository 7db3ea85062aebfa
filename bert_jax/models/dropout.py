"""Dropout whose bits depend on the row of the global batch, never on the mesh that holds it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped


def row_keys(key: Key[Array, ""], rows: Int[Array, "B"]) -> Key[Array, "B"]:
    """One key for each row, from the step's key and the row's number in the global batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def fold(keys: Key[Array, "B"] | None, number: int | Int[Array, ""]) -> Key[Array, "B"] | None:
    """The keys of a layer, or of a place inside it. None (no dropout) stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def dropout(
    x: Float[Array, "B *rest"], rate: float, keys: Key[Array, "B"] | None
) -> Float[Array, "B *rest"]:
    """Zero each element with probability `rate`, scale the others so that the mean stays.

    Srivastava et al. 2014. `rate` is taken to the nearest 1/65536: a 32-bit random word then
    serves two elements, which halves the cost of the generator.
    """
    if keys is None or rate == 0:
        return x
    size = math.prod(x.shape[1:])
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),), jnp.uint32))(keys)
    halves = _halves(words)[:, :size].reshape(x.shape)
    kept = round((1 - rate) * 65536)
    # The scale follows the rounded rate, so the mean is kept exactly.
    return jnp.where(halves < kept, x * (65536 / kept), 0).astype(x.dtype)


def _halves(words: Shaped[Array, "B W"]) -> Shaped[Array, "B 2*W"]:
    low_high = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return low_high.reshape(words.shape[0], -1)
