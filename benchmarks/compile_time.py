"""How long BERT-base's train step takes to compile, scanned over the layers and unrolled.

  python -m benchmarks.compile_time                        # for the device that is here
  python -m benchmarks.compile_time --topology=v5e:1x1     # for a TPU that is not, by libtpu

The step is that of configs/bert.py's base preset at 16 rows of 128, with no compiled program kept
from before. `traced` is what Python does before the compiler sees it. In turns: A B A B A B; the
table has the median of the turns.
"""

import statistics
import sys
import time
from dataclasses import replace

import jax

from benchmarks import turns
from bert_jax import cli
from bert_jax.config import from_mapping
from configs import bert
from configs.common import differing
from launch.preflight.chips import parse
from launch.preflight.compile import Step, load_devices

TURNS, ROWS, LENGTH, SLOTS = 3, 16, 128, 20
WAYS = {"scanned": True, "unrolled": False}
BAR = {"scanned": 25}  # seconds


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--topology", help="as v5e:1x1; else the first device that is here")
    parser.add_argument("--turns", type=turns.positive, default=TURNS)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if arguments.topology:
        jax.config.update("jax_platforms", "cpu")  # an accelerator that is here stays free
        name, _, _ = parse(arguments.topology)
        devices = load_devices(name, 1)
    else:
        devices = jax.devices()
    config = from_mapping(differing(bert.get_config("base"), {
        "data.phases": "", "data.sequence_length": LENGTH, "data.batch_size": ROWS,
        "data.max_predictions": SLOTS,
    }).to_dict())  # fmt: skip

    figures: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(arguments.turns):
        for name, tried in figures.items():
            model = replace(config.model, scan_layers=WAYS[name])
            step = Step(replace(config, model=model), devices[:1])
            begin = time.monotonic()
            lowered = step.lower(config.data)
            traced = time.monotonic()
            lowered.compile()
            tried.append({"traced": traced - begin, "compiled": time.monotonic() - traced})
            print(f"{name}: {sum(tried[-1].values()):.1f} s", file=sys.stderr, flush=True)
    print(f"{turns.versions('jax', 'jaxlib')}; {devices[0].device_kind}, {turns.cores()} cores\n")
    print("| BERT base, B16 S128 | traced, s (turns) | compiled, s (turns) | both | bar |")
    print("|---|---|---|---|---|")
    for name, tried in figures.items():
        cells = [turns.cell([one[key] for one in tried], ".1f") for key in ("traced", "compiled")]
        both = statistics.median(sum(one.values()) for one in tried)
        print(f"| {name} | {cells[0]} | {cells[1]} | {both:.1f} | {BAR.get(name, '')} |")
    turns.write(figures, arguments.json)


if __name__ == "__main__":
    with cli.guarded():
        main()
