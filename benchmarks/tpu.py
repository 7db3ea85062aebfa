"""What the TPU compiler expects of the train step, for a fixed list of models, batches and slices.

  python -m benchmarks.tpu                         # all rows: an hour or more on two cores
  python -m benchmarks.tpu --row=base-512 --set=model.attention=auto --set=model.attention_dropout=0

Every change of the step can be judged by it on a machine without a TPU: `launch.preflight` says
where its numbers come from and what they leave out. Each row is compiled for each of its batches a
chip, and the best is shown. MFU is of the compiler's cycles, and of kernels at 50% of peak, over
one chip's peak; `step` and the MFU behind it have collectives and operations without an estimate
as well, none of them overlapped. Status 1 where no batch of a row fits.
"""

import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax

from benchmarks import turns
from bert_jax import cli
from bert_jax.config import RunConfig, flat, from_mapping, nearest
from configs import bert
from configs.common import differing
from launch.preflight.chips import parse
from launch.preflight.compile import GIB, Step, load_devices
from launch.preflight.estimate import phase_facts

SHOWN = 3  # source lines of a row that take most
LENGTHS = {128: 20, 512: 77}  # and K
PACKED = {"data.packing": True, "data.format": "full-sentences", "data.pairs": "none",
          "objective.nsp": 0.0}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One question: `batches` are those a chip, of which the best counts."""

    preset: str  # of configs/bert.py
    topology: str
    length: int
    batches: tuple[int, ...]
    bar: float  # MFU that it should reach
    packed: bool = False


ROWS = {
    "base-128": Row("base", "v5e:1x1", 128, (128,), 0.50),
    "base-512": Row("base", "v5e:1x1", 512, (32,), 0.45),
    "large-v5e": Row("large", "v5e:16x16", 512, (4, 8, 16), 0.50, packed=True),
    "large-v6e": Row("large", "v6e:16x16", 512, (8, 16, 32), 0.50, packed=True),
}


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--row", action="append", choices=ROWS, help="these alone; else all")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of all")
    parser.add_argument(
        "--batch", type=turns.positive, help="rows a chip, in the place of a row's own"
    )
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # an accelerator that is here stays free
    jax.config.update("jax_enable_compilation_cache", False)
    changes, fields = dict[str, Any](), flat(bert.get_config("base").to_dict())
    for one in arguments.set:
        field, equals, text = one.partition("=")
        if not equals:
            parser.error(f"--set={one}: must be FIELD=VALUE, as model.remat=full")
        if field not in fields:
            parser.error(f"--set={one}: there is no such field; {nearest(field, list(fields))}")
        try:
            changes[field] = _value(fields[field], text)
        except ValueError:
            kind = type(fields[field]).__name__
            parser.error(f"--set={one}: the value must be as {fields[field]!r} ({kind})")
    names = arguments.row or ROWS
    batches = {
        name: (arguments.batch,) if arguments.batch else ROWS[name].batches for name in names
    }
    for name, tried in batches.items():  # what cannot be is refused before anything is compiled
        for batch in tried:
            run_of(ROWS[name], batch, changes)
    figures: dict[str, list[dict[str, Any]]] = {}
    print(f"jax {version('jax')}, libtpu {version('libtpu')}; {changes or 'as in the presets'}\n")
    print(
        "| row | slice | rows a chip × length | attention dropout | HBM, GiB | cycles, ms | MFU "
        "| bar | step, ms | MFU | most of the cycles |\n" + "|---" * 11 + "|",
        flush=True,
    )
    for name, tried in batches.items():
        figures[name] = [measure(ROWS[name], batch, changes) for batch in tried]
        print(line(name, ROWS[name], figures[name]), flush=True)
    turns.write(figures, arguments.json)
    fits = all(any(one["fits"] for one in found) for found in figures.values())
    sys.exit(0 if fits else 1)


def measure(row: Row, batch: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Preflight's facts of the row at that many rows a chip."""
    name, chip, chips = parse(row.topology)
    run = run_of(row, batch, changes)
    begin = time.monotonic()
    step = Step(run, load_devices(name, 1))
    fit = step.compile(run.data, chip.usable_gib * GIB / chip.devices)
    facts = phase_facts(step, run.data, 1, fit, chip, chips)
    facts |= {"rows_a_chip": batch, "compile_seconds": time.monotonic() - begin}
    facts["attention"] = step.config.model.attention
    facts["attention_dropout"] = run.model.attention_dropout
    if fit.fits:
        estimated = facts["seconds"]["compiler"] + facts["seconds"]["kernels"]
        facts["estimated"] = estimated
        facts["estimated_mfu"] = facts["flops"] / (estimated * chips * chip.peak)
    says = f"MFU {facts['estimated_mfu']:.1%}" if fit.fits else "does not fit"
    print(f"{row.preset} × {batch}: {says}", file=sys.stderr, flush=True)
    return facts


def run_of(row: Row, batch: int, changes: dict[str, Any]) -> RunConfig:
    """Raises UserError for what no run can be."""
    fields = {
        "data.phases": "", "data.sequence_length": row.length,
        "data.max_predictions": LENGTHS[row.length],
        "data.batch_size": batch * parse(row.topology)[2],
    }  # fmt: skip
    fields |= (PACKED if row.packed else {}) | changes
    return from_mapping(differing(bert.get_config(row.preset), fields).to_dict())


def _value(before: Any, text: str) -> Any:
    """Of the type that the field has. Raises ValueError."""
    if not isinstance(before, bool):
        return type(before)(text)
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def line(name: str, row: Row, tried: list[dict[str, Any]]) -> str:
    best = max(tried, key=lambda one: one["fits"] and one["estimated_mfu"])
    about = f"| {name} | {row.topology} | {best['rows_a_chip']} × {row.length}"
    about += ", packed" if row.packed else ""
    about += f" | {best['attention_dropout']:g}, {best['attention']}"
    if not best["fits"]:
        return f"{about} | does not fit | | | {row.bar:.0%} | | | |"
    most = ", ".join(f"`{one['source']}` {one['share']:.0%}" for one in best["operations"][:SHOWN])
    return (
        f"{about} | {best['hbm']['needed'] / GIB:.1f} | {1e3 * best['estimated']:.1f} "
        f"| {best['estimated_mfu']:.1%} | {row.bar:.0%} | {1e3 * best['seconds']['step']:.1f} "
        f"| {best['mfu']:.1%} | {most} |"
    )


if __name__ == "__main__":
    with cli.guarded():
        main()
