"""The TPUs that a run can be compiled for: what a chip can do, and which slices there are.

Numbers are of one chip. Sources, read in 2026: docs.cloud.google.com/tpu/docs/v5e, v5p, v6e and
tpu7x for compute, memory, networks and slices; those of tpu7x are the standard ones of
docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus. `usable_gib` is what libtpu 0.0.50
says is available when a program is too large, as it keeps some for itself. `flop_per_cycle` is the
matrix units' size: v5e has four of 128 × 128, two operations a cell; the compiler's estimates for
large products (127k, 252k, 456k, 846k a cycle) come close to the figures here and to no others.
"""

from dataclasses import dataclass

from bert_jax.errors import UserError
from bert_jax.training.flops import PEAKS


@dataclass(frozen=True)
class Chip:
    kind: str  # as jax.Device.device_kind has it, and flops.PEAKS, where the peak of a device is
    devices: int  # that JAX sees in a chip
    flop_per_cycle: float  # bf16, dense
    gib: float  # HBM
    usable_gib: float
    hbm_bandwidth: float  # bytes a second
    ici_bandwidth: float  # bytes a second, out of the chip over all its links; as many come in
    dcn_bandwidth: float  # bytes a second, between slices
    slices: tuple[str, ...]

    @property
    def peak(self) -> float:
        """bf16 FLOP a second."""
        return PEAKS[self.kind] * self.devices

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak / self.flop_per_cycle


_TWO = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_THREE = ("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
CHIPS = {
    "v5e": Chip("TPU v5 lite", 1, 131_072, 16, 15.75, 819e9, 200e9, 6.4e12 / 8 / 256, _TWO),
    "v5p": Chip(
        "TPU v5", 1, 262_144, 95, 95.73, 2765e9, 600e9, 50e9 / 8,
        (*_THREE, "16x16x16", "16x16x24"),
    ),
    "v6e": Chip("TPU v6 lite", 1, 524_288, 32, 31.24, 1638e9, 400e9, 100e9 / 8, _TWO),
    "tpu7x": Chip(
        "TPU7x", 2, 1_048_576, 192, 2 * 94.74, 7380e9, 600e9, 100e9 / 8, (*_THREE, "2x2x4"),
    ),
}  # fmt: skip


def parse(topology: str) -> tuple[str, Chip, int]:
    """'v5e:16x16' to the slice's name as libtpu wants it, its chip and how many it has. Raises
    UserError for one that cannot be had."""
    generation, _, slice_ = topology.strip().lower().partition(":")
    if generation not in CHIPS:
        raise UserError(
            f"--topology={topology}: is none; write CHIP:SLICE as in v5e:16x16, with a chip of "
            f"{', '.join(CHIPS)}"
        )
    chip = CHIPS[generation]
    if slice_ not in chip.slices:
        raise UserError(
            f"--topology={topology}: there is no such slice of {generation}; there are "
            f"{', '.join(chip.slices)}, and mesh.slices joins several"
        )
    count = 1
    for size in slice_.split("x"):
        count *= int(size)
    return f"{generation}:{slice_}", chip, count
