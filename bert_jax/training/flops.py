"""How much arithmetic a step is, and how much of a device's peak it used."""

import jax

from bert_jax.models.config import EncoderConfig

# Dense bf16 FLOP a second of one chip, by a part of jax.Device.device_kind; vendors' sheets.
PEAKS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12,
    "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "V100": 125e12,
}  # fmt: skip


def forward_flops(config: EncoderConfig, sequence_length: int, predictions: int) -> int:
    """FLOPs of one row, forward, a multiply-add as 2, by the `model` convention: matrix products
    alone; embeddings are look-ups; the vocabulary is scored at predicted positions only.

    A token and layer: 8D² (projections) + 4DF (feed-forward) + 4SD (attention).
    """
    D, F = config.hidden_size, config.intermediate_size
    layer = 8 * D**2 + 4 * D * F + 4 * sequence_length * D
    head = predictions * (2 * D**2 + 2 * D * config.vocab_size)
    return config.num_layers * layer * sequence_length + head


def train_flops(config: EncoderConfig, sequence_length: int, predictions: int) -> int:
    """Forward and backward of one row: three times the forward."""
    return 3 * forward_flops(config, sequence_length, predictions)


def peak_flops() -> float | None:
    """Of all devices together; None where the kind's peak is not in the table (a CPU)."""
    kind = jax.devices()[0].device_kind
    for name, peak in PEAKS.items():
        if name in kind:
            return peak * jax.device_count()
    return None
