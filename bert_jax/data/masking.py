"""Which tokens are to be predicted, and what stands in their place (Devlin et al. 2018, 3.1)."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import Purpose, bits, integers, key, uniform
from bert_jax.data.spans import count_out
from bert_jax.data.vocabulary import Vocabulary

# How many words are masked together, 1, 2, ...: weights of the lengths.
_LENGTHS = {
    # Joshi et al. 2020, 3.1: geometric, p = 0.2, of at most 10 words; the mean is 3.8.
    "span": 0.2 * 0.8 ** np.arange(10),
    # Lan et al. 2020, 4.1: p(n) ∝ 1/n, of at most 3 words.
    "ngram": 1 / np.arange(1, 4),
}
_BLOCK = 1 << 14  # numbers ordered at once: arrays so small that their memory is used again


def mask_tokens(
    input_ids: Int[np.ndarray, "B S"],
    example_keys: UInt64[np.ndarray, "B"],
    config: DataConfig,
    vocabulary: Vocabulary,
) -> dict[str, np.ndarray]:
    """Choose mask_rate of each row's tokens (special ones aside) and hide them.

    The tokens fall into units, which are taken whole in a random order until the rate is
    reached. Whether the unit that would go over it is taken too is drawn, with the chance that
    makes the mean the rate exactly; or, where mask_rounding says so, it is not, and the rate is
    rounded as in BERT's released code. The documents of a packed row have one rate together.

    Returns input_ids [B, S] with the replacements; mlm_positions, mlm_labels int32 [B, K] and
    mlm_weights float32 [B, K] (0 for an unused slot); mlm_overflow int32 [B], the chosen tokens
    whose unit, or one before it in the order, was too large for the slots left, and that stay
    as they are.
    """
    rows, length = input_ids.shape
    sizes = unit_sizes(input_ids, example_keys, config, vocabulary)

    # No more units can count than tokens are wanted.
    wanted = sizes.sum(axis=1) * config.mask_rate
    nearest = config.mask_rounding == "nearest"
    if nearest:  # of all real tokens, at least one
        real = np.sum(input_ids != vocabulary.pad, axis=1)
        wanted = np.maximum(np.rint(real * config.mask_rate), config.mask_rate > 0)
    order_keys = key(example_keys, Purpose.MASK_POSITION)
    order = _random_order(sizes > 0, order_keys, int(wanted.max(initial=0)) + 1)
    sizes = np.take_along_axis(sizes, order, axis=1)
    reached = np.cumsum(sizes, axis=1)
    # reached before + (1 − draw)·size ≤ wanted: the unit that crosses the rate, at its chance.
    draw = 0.0 if nearest else uniform(key(example_keys, Purpose.MASK_BUDGET))[:, None]
    taken = reached <= wanted[:, None] + sizes * draw
    fits = reached <= config.max_predictions

    # From units to tokens, in order of place, and from tokens to slots.
    unit_row, column = np.nonzero(taken & fits)
    unit, step = count_out(sizes[unit_row, column])
    token = unit_row[unit] * length + order[unit_row, column][unit] + step
    token, step = np.divmod(np.sort(token * length + step), length)
    row, place = np.divmod(token, length)
    _, slot = count_out(np.bincount(row, minlength=rows))

    labels = input_ids[row, place]
    # One draw a token; one for all of a span (Joshi et al. 2020, 3.1).
    counter = place - step if config.mask_units == "span" else place
    shown = _replacements(labels, place, counter, example_keys[row], config, vocabulary)
    masked = input_ids.copy()
    masked[row, place] = shown

    def in_slots(values: np.ndarray | float, dtype: type) -> np.ndarray:
        slots: np.ndarray = np.zeros((rows, config.max_predictions), dtype)
        slots[row, slot] = values
        return slots

    return {
        "input_ids": masked,
        "mlm_positions": in_slots(place, np.int32),
        "mlm_labels": in_slots(labels, np.int32),
        "mlm_weights": in_slots(1.0, np.float32),
        "mlm_overflow": np.sum(sizes * (taken & ~fits), axis=1, dtype=np.int32),
    }


def overflow_share(config: DataConfig) -> float:
    """Of the tokens that are chosen in a full row, the share that finds no slot, on average; of
    units of several tokens it is a little more."""
    length, rate = config.sequence_length, config.mask_rate
    wanted = rate * (length - (3 if "pair" in config.format else 2))
    if config.mask_rounding == "nearest":
        wanted = float(np.rint(rate * length))
    # So many, or one more, with the chance that makes the mean `wanted`.
    few, chance = int(wanted), wanted % 1
    beyond = np.maximum(np.array([few, few + 1]) - config.max_predictions, 0)
    return float(beyond @ [1 - chance, chance]) / wanted if wanted else 0.0


def _replacements(
    labels: Int[np.ndarray, "n"],
    places: Int[np.ndarray, "n"],
    counters: Int[np.ndarray, "n"],
    keys: UInt64[np.ndarray, "n"],
    config: DataConfig,
    vocabulary: Vocabulary,
) -> Int[np.ndarray, "n"]:
    """What the model sees in place of each chosen token: [MASK], a random one, or the token. Of
    the same counters the same kind is drawn."""
    kind = uniform(key(keys, Purpose.MASK_KIND), counters)
    other = integers(key(keys, Purpose.MASK_TOKEN), len(vocabulary.ordinary), places)
    kept = np.where(
        kind < config.mask_token_share + config.random_token_share,
        vocabulary.ordinary[other],
        labels,
    )
    return np.where(kind < config.mask_token_share, vocabulary.mask, kept)


def unit_sizes(
    input_ids: Int[np.ndarray, "B S"],
    example_keys: UInt64[np.ndarray, "B"],
    config: DataConfig,
    vocabulary: Vocabulary,
) -> Int[np.ndarray, "B S"]:
    """How many tokens are masked together with each that begins a unit, itself among them, and
    0 for all others. Special tokens are in no unit, and every unit ends at them.

    Spans and n-grams are cut one after the other from a row's words, in lengths drawn from
    their distribution.
    """
    maskable = ~vocabulary.special[input_ids]
    if config.mask_units == "token":
        return maskable.astype(np.int64)
    starts = vocabulary.word_starts(input_ids) & maskable
    if config.mask_units in _LENGTHS:
        starts &= _begins(starts, maskable, example_keys, _LENGTHS[config.mask_units])
    ends = starts | ~maskable
    ends[:, :1] = True
    places = np.flatnonzero(ends)
    sizes = np.zeros(input_ids.size, np.int64)
    sizes[places] = np.diff(places, append=input_ids.size)
    return sizes.reshape(input_ids.shape) * starts


def _random_order(
    units: Bool[np.ndarray, "B S"], keys: UInt64[np.ndarray, "B"], most: int
) -> Int[np.ndarray, "B most"]:
    """The places of each row's units by the random bits at them, ties by place, and then all
    other places; of these the first `most`."""
    rows, length = units.shape
    # The place stands in the low bits: a sort of plain numbers, which is the fastest, gives it.
    places = np.arange(length, dtype=np.uint64)
    low = np.uint64((1 << length.bit_length()) - 1)
    order = np.empty((rows, min(most, length)), np.int64)
    block = max(1, _BLOCK // length)
    for start in range(0, rows, block):
        part = slice(start, start + block)
        random = np.where(units[part], bits(keys[part, None], places), ~np.uint64(0))
        order[part] = np.sort(random & ~low | places, axis=1)[:, :most] & low
    return order


def _begins(
    words: Bool[np.ndarray, "B S"],
    maskable: Bool[np.ndarray, "B S"],
    example_keys: UInt64[np.ndarray, "B"],
    weights: Float[np.ndarray, "lengths"],
) -> Bool[np.ndarray, "B S"]:
    """True for the first tokens of words (`words`) with which units of drawn lengths begin."""
    before = np.cumsum(words, axis=1) - words
    most = int(before.max(initial=0)) + 1
    shares = np.cumsum(weights) / np.sum(weights)
    draws = uniform(key(example_keys, Purpose.MASK_LENGTH)[:, None], np.arange(most))
    lengths = 1 + np.searchsorted(shares[:-1], draws, side="right")
    # By the number of words before; what begins past the last word shares a place not looked at.
    begins = np.zeros((len(words), most + 1), bool)
    starts = np.minimum(np.cumsum(lengths, axis=1) - lengths, most)
    np.put_along_axis(begins, starts, True, axis=1)
    after_special = np.pad(~maskable[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return np.take_along_axis(begins, before, axis=1) | after_special
