"""Where two runs begin to differ.

  python -m bert_jax.compare runs/a runs/b

The fields of their configs and the facts of their corpora that are not the same; then the first
logged step at which a metric differs by a single bit, and in which metrics; then how far apart
each of them gets. Times and rates are left out. Steps that only one of them logged are counted,
and no difference. The exit status is 1 where metrics differ, or no step is in both.
"""

import json
import math
import sys
from typing import Any

from bert_jax import cli, config as configs, provenance
from bert_jax.errors import UserError
from bert_jax.store import Folder, reach
from bert_jax.training.metrics import read_metrics
from bert_jax.training.rates import MEASURED


def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    with cli.guarded():
        if len(sys.argv) != 3:
            raise UserError(f"{len(sys.argv) - 1} folders given; name two workdirs, see --help")
        lines, same = compare(reach(sys.argv[1]), reach(sys.argv[2]))
        print("\n".join(lines))
        if not same:
            sys.exit(1)


def compare(one: Folder, other: Folder) -> tuple[list[str], bool]:
    """What there is to say, and whether all metrics of the steps in common are the same."""
    runs = [configs.flat(configs.to_mapping(configs.load(workdir))) for workdir in (one, other)]
    lines = _differing("config", *runs)
    lines += _differing("corpus", *(_facts(workdir / provenance.DATA) for workdir in (one, other)))
    mine, theirs = ({r["step"]: r for r in read_metrics(workdir)} for workdir in (one, other))
    for workdir, records, more in ((one, mine, theirs), (other, theirs, mine)):
        if alone := sorted(records.keys() - more.keys()):
            lines.append(f"{len(alone)} logged steps only in {workdir}, the first {alone[0]}")
    steps = sorted(mine.keys() & theirs.keys())
    if not steps:
        return [*lines, "no step was logged by both"], False
    widest: dict[str, tuple[float, int]] = {}
    first = 0
    for step in steps:
        for name, a, b in _unequal(mine[step], theirs[step]):
            if name in MEASURED:
                continue
            if first in (0, step):
                lines += [] if first else [f"equal before step {step}; there"]
                lines.append(f"  {name}: {a} and {b}")
                first = step
            apart = math.inf if a is None or b is None or a - b != a - b else abs(a - b)
            widest[name] = max(widest.get(name, (0.0, step)), (apart, step), key=lambda w: w[0])
    if not first:
        return [*lines, f"equal to the bit in all {len(steps)} steps that both logged"], True
    lines.append("the farthest apart")
    lines += [f"  {name}: {apart:.3g} at step {step}" for name, (apart, step) in widest.items()]
    return lines, False


def _unequal(one: dict, other: dict) -> list[tuple[str, Any, Any]]:
    return [
        (name, one.get(name), other.get(name))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _differing(what: str, one: dict, other: dict) -> list[str]:
    return [f"{what}: {name} is {a} and {b}" for name, a, b in _unequal(one, other)]


def _facts(path: Folder) -> dict:
    try:
        return configs.flat(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read; bring back a copy") from error


if __name__ == "__main__":
    main()
