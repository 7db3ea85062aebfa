"""What a chip's memory holds of a train step, and what each way to need less of it costs.

  python -m benchmarks.memory                       # BERT-base, 32 rows of 512 on a v5e: 20 minutes
  python -m benchmarks.memory --row=base-128 --way=remat-full

By the TPU compiler, as `benchmarks.tpu`, whose rows these are: none needs a TPU. HBM is what the
program needs at its peak, with the state in it; cycles are the compiler's, and times those of the
step as its preset has it.
"""

from typing import Any

import jax

from benchmarks import tpu, turns
from bert_jax import cli
from launch.preflight.compile import GIB

WAYS: dict[str, dict[str, Any]] = {
    "as in the preset": {},
    "remat-dots": {"model.remat": "dots"},
    "remat-full": {"model.remat": "full"},
    "accumulation": {"train.accumulation": 4},
    "unrolled": {"model.scan_layers": False},
    "kernel": {"model.attention": "auto", "model.attention_dropout": 0.0},
}


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--row", choices=tpu.ROWS, default="base-512")
    parser.add_argument("--way", choices=WAYS, action="append", help="these alone; else all")
    parser.add_argument("--batch", type=turns.positive, help="rows a chip; else the row's first")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # an accelerator that is here stays free
    jax.config.update("jax_enable_compilation_cache", False)
    row = tpu.ROWS[arguments.row]
    batch = arguments.batch or row.batches[0]
    print(f"{turns.versions('jax', 'libtpu')}; {arguments.row}: {row.topology}, {batch} a chip\n")
    print("| | | HBM, GiB | of which state | cycles, ms | times | MFU |")
    print("|---|---|---|---|---|---|---|", flush=True)
    figures, first = {}, None
    for name in arguments.way or WAYS:
        found = figures[name] = tpu.measure(row, batch, WAYS[name])
        told = " ".join(f"`{field}={value}`" for field, value in WAYS[name].items())
        hbm = found["hbm"]
        line = f"| {name} | {told} | {hbm['needed'] / GIB:.1f}"
        if found["fits"]:
            first = first or found["estimated"]
            line += f" | {hbm['state'] / GIB:.1f} | {1e3 * found['estimated']:.1f} "
            line += f"| {found['estimated'] / first:.2f} | {found['estimated_mfu']:.1%} |"
        else:
            line += " | does not fit | | | |"
        print(line, flush=True)
    turns.write(figures, arguments.json)


if __name__ == "__main__":
    with cli.guarded():
        main()
