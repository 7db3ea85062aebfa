"""How much arithmetic a step is, by two conventions, and how much of a device's peak it used.

`model`: matrix products alone, a multiply-add as 2, the backward pass twice the forward;
embeddings are look-ups, and the vocabulary is scored at the predicted positions only. MFU in the
metrics is by this one.

`electra`: that of Clark et al. 2020, table 1, as the script released with it counts: the backward
pass once the forward, look-ups as products with a one-hot vector, and every addition, norm,
activation and dropout as well. For comparison with that paper's budgets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig

# Dense bf16 FLOP a second of one chip, by a part of jax.Device.device_kind; vendors' sheets.
PEAKS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12,
    "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # a device is half a chip
    "A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "V100": 125e12,
}  # fmt: skip


class Pass(NamedTuple):
    """An encoder that a row goes through, and at how many of its positions a head then scores
    the vocabulary, and gives a single logit; whether it is trained, so goes backward too; and
    whether its kernels are, or only what lies between them (whose own products, few, are not
    counted): the backward pass then goes through them once."""

    config: EncoderConfig
    vocabulary_positions: int
    logit_positions: int
    trained: bool = True
    kernels: bool = True


def train_flops(passes: Sequence[Pass], sequence_length: int, convention: str = "model") -> int:
    """Forward and backward of one row. Raises UserError for a convention that there is not."""
    if convention not in CONVENTIONS:
        raise UserError(f"{convention!r}: the conventions are {' and '.join(CONVENTIONS)}")
    forward, factor = CONVENTIONS[convention]
    return sum(
        forward(one, sequence_length) * (factor - (not one.kernels) if one.trained else 1)
        for one in passes
    )


def _model(one: Pass, S: int) -> int:
    """A token and layer: 8D² (projections) + 4DF (feed-forward) + 4SD (attention)."""
    config = one.config
    D, E, F = config.hidden_size, config.embedding_width, config.intermediate_size
    layers = config.num_layers * (8 * D**2 + 4 * D * F + 4 * S * D)
    projection = 2 * E * D if config.embedding_size else 0
    vocabulary = one.vocabulary_positions * (2 * D * E + 2 * E * config.vocab_size)
    return S * (layers + projection) + vocabulary + one.logit_positions * (2 * D**2 + 2 * D)


# Operations an element, by the script: a random number, a comparison and two products; mean,
# variance, shift and scale; tanh's GELU; maximum, subtraction, exponential, sum and division.
_DROPOUT, _NORM, _ACTIVATION, _SOFTMAX = 4, 5, 8, 5


def _electra(one: Pass, S: int) -> int:
    config = one.config
    D, E, F = config.hidden_size, config.embedding_width, config.intermediate_size
    N, V = config.num_heads, config.vocab_size
    attention = 3 * (2 * D**2 + D) + 4 * S * D + S * N * (_SOFTMAX + _DROPOUT + 1)
    # The first norm is counted as one element, as it is there.
    after = 2 * D**2 + D + _DROPOUT * D + D + _NORM
    feedforward = 4 * D * F + (_ACTIVATION + 1) * F + D * (1 + _DROPOUT + 1 + _NORM)
    tables = 2 * E * V + 2 * E * (S + 2) + 2 * E + (_NORM + _DROPOUT) * E
    if E != D:
        tables += 2 * D * E + D
    flops = S * (config.num_layers * (attention + after + feedforward) + tables)
    transform = 2 * D * E + E + (_ACTIVATION + _NORM) * E
    flops += one.vocabulary_positions * (2 * E * V + transform + _SOFTMAX * V + 2 * V)
    return flops + one.logit_positions * (2 * D**2 + D + _ACTIVATION * D + 2 * D)


CONVENTIONS = {"model": (_model, 3), "electra": (_electra, 2)}


def peak_flops() -> float | None:
    """Of all devices together; None where the kind's peak is not in the table (a CPU)."""
    kind = jax.devices()[0].device_kind
    for name, peak in PEAKS.items():
        if name in kind:
            return peak * jax.device_count()
    return None
