"""Dropout whose bits depend on the row of the global batch, never on the mesh that holds it."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

# Decisions of 16 bits that one block of the generator, two words of 32, is cut into.
_DECISIONS, _LEVELS = 4, 1 << 16


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

    Srivastava et al. 2014. `rate` is taken to the nearest 1/65536, so that one block of Threefry
    serves four elements, and first to the one that x's type can scale by (`scaled_by`).
    """
    rate = scaled_by(x.dtype, rate)
    return drop(x, rate, kept(x.shape, rate, keys))


def scaled_by(dtype: jnp.dtype, rate: float) -> float:
    """The rate nearest to `rate` whose scale, 1 / (1 − rate), the type holds: of bfloat16, which
    has 8 bits, 0.0986 for 0.1. With 0.1 itself and the scale that is there every mean would be a
    sixth of a per cent lower than in evaluation, and a scale in float32 costs a TPU half as much
    again."""
    return 1 - 1 / float(jnp.dtype(dtype).type(1 / (1 - rate)))


def kept(
    shape: tuple[int, ...], rate: float, keys: Key[Array, "B"] | None
) -> Bool[Array, "B *rest"] | None:
    """Which elements of an array [B, ...] dropout leaves; None for all of them."""
    if keys is None or rate == 0:
        return None
    return jax.vmap(partial(_below, _level(rate), shape[1:]))(jax.random.key_data(keys))


def drop(
    x: Float[Array, "B *rest"], rate: float, keep: Bool[Array, "B *rest"] | None
) -> Float[Array, "B *rest"]:
    """Dropout by what `kept` drew."""
    if keep is None:
        return x
    # The scale follows the rounded rate, so the mean is kept exactly.
    return jnp.where(keep, x * (_LEVELS / _level(rate)), 0).astype(x.dtype)


def _level(rate: float) -> int:
    return round((1 - rate) * _LEVELS)


def _below(level: int, shape: tuple[int, ...], key: UInt32[Array, "2"]) -> Bool[Array, "*shape"]:
    """True with probability level / 65536, for each element of a row.

    A quarter of the elements numbers the blocks. The quarters lie behind each other on the last
    axis but one: no mesh cuts it, and TPUs hold it in whole registers.
    """
    axis = max(len(shape) - 2, 0)
    quarter = -(-shape[axis] // _DECISIONS)
    blocks = (*shape[:axis], quarter, *shape[axis + 1 :])
    words = threefry2x32_p.bind(
        *(jnp.broadcast_to(word, blocks) for word in key), jnp.zeros(blocks, jnp.uint32),
        _numbers(blocks),
    )  # fmt: skip
    quarters = [word >> shift & (_LEVELS - 1) for word in words for shift in (0, 16)]
    keep = jnp.concatenate([q < level for q in quarters], axis=axis)
    return jax.lax.slice_in_dim(keep, 0, shape[axis], axis=axis)


def _numbers(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """0, 1, ... in row-major order, an axis at a time: a reshape would be a copy on TPUs."""
    numbers = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        numbers += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return numbers
