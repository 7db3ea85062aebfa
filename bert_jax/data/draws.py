"""Random numbers as functions of what they are for, so that nothing depends on who asks first.

A key is made of (seed, epoch, example, purpose); a draw is a key and a counter. There is no
generator to carry, save or restore. The mixing is SplitMix64 (Steele, Lea and Flood 2014), in
64-bit integers alone: the same bits on every platform and with every version of NumPy, which
promises no such thing for its own generators (NEP 19).
"""

import math
from enum import IntEnum, auto

import numpy as np
from jaxtyping import UInt64

# uint64, of any shape; with counters and limits it is broadcast together.
Keys = np.ndarray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ROUNDS = 6  # of permute: an even number
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


class Purpose(IntEnum):
    """What a draw decides. A number is never reused: it would change every run ever made."""

    ORDER = auto()
    SHORT = auto()
    SPLIT = auto()
    RANDOM_NEXT = auto()
    OTHER_DOCUMENT = auto()
    TRUNCATE = auto()
    MASK_BUDGET = auto()
    MASK_POSITION = auto()
    MASK_KIND = auto()
    MASK_TOKEN = auto()
    SWAP = auto()
    MASK_LENGTH = auto()


def key(*parts: int | np.ndarray) -> Keys:
    """A key from integers or integer arrays (broadcast together), order and length mattering."""
    mixed: np.ndarray = np.zeros(1, np.uint64)
    for part in parts:
        mixed = _mix(mixed + _GOLDEN) ^ np.asarray(part).astype(np.uint64)
    return _mix(mixed).reshape(np.broadcast_shapes(*map(np.shape, parts)))


def bits(keys: Keys, counter: int | np.ndarray = 0) -> Keys:
    """64 random bits for each key and counter, broadcast together."""
    # Of one axis at the least: NumPy warns of single numbers that wrap around, not of arrays.
    counters = np.atleast_1d(counter).astype(np.uint64)
    counters += np.uint64(1)
    counters *= _GOLDEN
    return _mix(keys + counters).reshape(np.broadcast_shapes(np.shape(keys), np.shape(counter)))


def uniform(keys: Keys, counter: int | np.ndarray = 0) -> np.ndarray:
    """float64 in [0, 1), 53 bits."""
    return np.asarray((bits(keys, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def integers(keys: Keys, limit: int | np.ndarray, counter: int | np.ndarray = 0) -> np.ndarray:
    """int64 in [0, limit); the bias is under limit / 2³² up to a limit of 2³², of larger ones under
    limit / 2⁶⁴. Raises ValueError for a limit that is not in [0, 2⁶³]."""
    most = int(np.max(limit, initial=0))
    if most > 1 << 63 or np.min(limit, initial=0) < 0:
        raise ValueError(f"limit {limit}: must be 2⁶³ at most, and not negative")
    random, limits = bits(keys, counter), np.asarray(limit).astype(np.uint64)
    scaled = ((random >> _HALF) * limits) >> _HALF
    if most > 1 << 32:
        scaled = np.where(limits > np.uint64(1 << 32), _high_product(random, limits), scaled)
    return np.asarray(scaled.astype(np.int64))


def _high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The upper 64 bits of the 128 of a·b, by halves of 32."""
    (a_high, a_low), (b_high, b_low) = ((x >> _HALF, x & _LOW) for x in (a, b))
    crossed, other = a_high * b_low, a_low * b_high
    carried = (a_low * b_low >> _HALF) + (crossed & _LOW) + (other & _LOW)
    high = a_high * b_high + (crossed >> _HALF) + (other >> _HALF) + (carried >> _HALF)
    return np.asarray(high)


def permute(index: np.ndarray, size: int, keys: Keys) -> np.ndarray:
    """Where a keyed random permutation of range(size) sends each index, without writing it down.

    A Feistel network over a · b numbers, few more than `size` (the generalized one of Black and
    Rogaway 2002), with cycle walking: a number that falls outside range(size) is sent on until it
    is inside. Memory does not grow with `size`.
    """
    across = math.isqrt(size) + 1  # a; both are under 2³²
    sides = np.uint64(across), np.uint64(-(-size // across))
    index, keys = np.broadcast_arrays(np.asarray(index).astype(np.uint64), keys)
    value, keys = index.ravel().copy(), keys.ravel()
    outside = np.arange(len(value))
    while len(outside):
        right, left = np.divmod(value[outside], sides[0])
        mine = keys[outside]
        for number in range(_ROUNDS):
            random = bits(mine, right * np.uint64(_ROUNDS) + np.uint64(number)) >> np.uint64(1)
            left, right = right, (left + random) % sides[number % 2]
        value[outside] = walked = right * sides[0] + left
        outside = outside[walked >= size]
    return value.astype(np.int64).reshape(index.shape)


def _mix(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """In place, of arrays that nobody else holds; their products wrap around."""
    z ^= z >> np.uint64(30)
    z *= _FIRST
    z ^= z >> np.uint64(27)
    z *= _SECOND
    z ^= z >> np.uint64(31)
    return z
