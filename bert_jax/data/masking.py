"""Which tokens are to be predicted, and what stands in their place (Devlin et al. 2018, 3.1)."""

import numpy as np
from jaxtyping import Int, UInt64

from bert_jax.data.config import DataConfig
from bert_jax.data.draws import Purpose, bits, integers, key, uniform
from bert_jax.data.tokenizers import MASK, SPECIAL


def mask_tokens(
    input_ids: Int[np.ndarray, "B S"],
    example_keys: UInt64[np.ndarray, "B"],
    config: DataConfig,
    vocab_size: int,
) -> dict[str, np.ndarray]:
    """Choose mask_rate of each row's tokens (special ones aside) and hide them.

    The number a row gets is its rate rounded up or down by a draw, so that the mean is the
    rate exactly. Returns input_ids [B, S] with the replacements; mlm_positions, mlm_labels
    int32 [B, K] and mlm_weights float32 [B, K] (0 for an unused slot); mlm_overflow int32 [B],
    the chosen tokens that found no slot and were left as they are.
    """
    slots = config.max_predictions
    maskable = input_ids >= len(SPECIAL)
    wanted = maskable.sum(axis=1) * config.mask_rate
    budget = np.floor(wanted + uniform(key(example_keys, Purpose.MASK_BUDGET))).astype(np.int64)
    budget = np.minimum(budget, maskable.sum(axis=1))

    # The `budget` tokens of the smallest random numbers; ties end by place, as argsort is stable.
    order_keys = key(example_keys, Purpose.MASK_POSITION)[:, None]
    random = bits(order_keys, np.arange(input_ids.shape[1]))
    random = np.where(maskable, random >> np.uint64(1), np.iinfo(np.uint64).max)
    chosen = np.argsort(random, axis=1, kind="stable")[:, :slots]
    chosen = np.pad(chosen, ((0, 0), (0, slots - chosen.shape[1])))  # more slots than places
    used = np.arange(slots) < np.minimum(budget, slots)[:, None]
    # In order of place: unused slots go last and point at place 0, at weight 0.
    chosen = np.sort(np.where(used, chosen, input_ids.shape[1]), axis=1)
    positions = np.where(used, chosen, 0)

    labels = np.take_along_axis(input_ids, positions, axis=1)
    kind = uniform(key(example_keys, Purpose.MASK_KIND)[:, None], positions)
    other = integers(
        key(example_keys, Purpose.MASK_TOKEN)[:, None], vocab_size - len(SPECIAL), positions
    )
    shown = np.where(
        kind < config.mask_token_share,
        MASK,
        np.where(
            kind < config.mask_token_share + config.random_token_share,
            other + len(SPECIAL),
            labels,
        ),
    )
    masked = input_ids.copy()
    row, slot = np.nonzero(used)
    masked[row, positions[row, slot]] = shown[row, slot]
    return {
        "input_ids": masked,
        "mlm_positions": positions.astype(np.int32),
        "mlm_labels": np.where(used, labels, 0).astype(np.int32),
        "mlm_weights": used.astype(np.float32),
        "mlm_overflow": np.maximum(budget - slots, 0).astype(np.int32),
    }
