"""Attention kernels by the length of rows, the share of padding, and packing.

  python -m benchmarks.attention                      # on the accelerator that is here, or the CPU
  python -m benchmarks.attention --length=512 --length=2048

Forward and backward of attention alone, heads of 64 in bfloat16 (float32 on a CPU), without
dropout, as kernels have none. Each kernel of models/kernels.py that this platform has, in turns
with the einsum; what one refuses is said. Rows are full, or half padding, or hold four documents
each. The table has the median of the turns in milliseconds and how many times the einsum's speed
it is; that both give the same numbers is for tests/models/test_kernels.py.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import turns
from bert_jax import cli
from bert_jax.models.config import EncoderConfig
from bert_jax.models.kernels import KERNELS
from bert_jax.training.mesh import one_device

TURNS, SECONDS = 3, 0.5
LENGTHS, HEADS, SIZE = (128, 512, 1024), 12, 64
TOKENS = {"cpu": 4096, "gpu": 65_536, "tpu": 65_536}  # of a batch


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument(
        "--length", type=turns.positive, action="append", help="of rows; else 128, 512, 1024"
    )
    arguments = parser.parse_args()
    platform = jax.default_backend()
    kernels = [name for name, one in KERNELS.items() if one.platform in ("", platform)]
    config = EncoderConfig(
        num_heads=HEADS, hidden_size=HEADS * SIZE, attention_dropout=0.0,
        dtype="float32" if platform == "cpu" else "bfloat16",
    )  # fmt: skip
    print(f"{turns.versions('jax', 'jaxlib')}; {jax.devices()[0].device_kind}, {config.dtype}\n")
    print("| rows | | kernel | ms (turns) | times einsum |\n|---|---|---|---|---|", flush=True)
    figures: dict[str, list[float]] = {}
    with jax.set_mesh(one_device()):
        for length in arguments.length or LENGTHS:
            rows = max(1, TOKENS[platform] // length)
            for name, segments in cases(rows, length).items():
                found: dict[str, list[float]] = {}
                for _ in range(TURNS):
                    for kernel in kernels:
                        if not KERNELS[kernel].refuses(config, length):
                            found.setdefault(kernel, []).append(timed(kernel, config, segments))
                for kernel in kernels:
                    row = f"| {rows} × {length} | {name} | {kernel} "
                    if kernel not in found:
                        why = KERNELS[kernel].refuses(config, length)
                        print(f"{row}| {why} | |", flush=True)
                        continue
                    figures[f"{rows} x {length}, {name}, {kernel}"] = found[kernel]
                    times = statistics.median(found["einsum"]) / statistics.median(found[kernel])
                    print(f"{row}| {turns.cell(found[kernel], '.2f')} | {times:.2f} |", flush=True)
    turns.write(figures, arguments.json)


def cases(rows: int, length: int) -> dict[str, np.ndarray]:
    """Segment ids: int32 [rows, length]."""
    places = np.broadcast_to(np.arange(length), (rows, length))
    return {
        "full": np.ones((rows, length), np.int32),
        "half padding": (places < length // 2).astype(np.int32),
        "four documents": (1 + places * 4 // length).astype(np.int32),
    }


def timed(kernel: str, config: EncoderConfig, segments: np.ndarray) -> float:
    """Milliseconds of a forward and a backward pass."""
    step = compiled(kernel)
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (*segments.shape, config.num_heads, SIZE)
    query, key, value = (jax.random.normal(one, shape, jnp.dtype(config.dtype)) for one in keys)
    ids = jax.device_put(segments)
    jax.block_until_ready(step(query, key, value, ids))
    begin, count = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < SECONDS:
        jax.block_until_ready(step(query, key, value, ids))
        count += 1
    return 1e3 * passed / count


_COMPILED: dict[str, Callable] = {}


def compiled(kernel: str) -> Callable:
    """One program a kernel and shape: turns do not compile again."""
    if kernel not in _COMPILED:
        attend = KERNELS[kernel].attend

        def loss(query, key, value, ids):
            mixed = attend(query, key, value, ids, 0.0, None)
            return jnp.sum(jnp.square(mixed.astype(jnp.float32)))

        _COMPILED[kernel] = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return _COMPILED[kernel]


if __name__ == "__main__":
    with cli.guarded():
        main()
