"""From a compiled step to seconds, hours and the largest batch."""

from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from bert_jax.config import RunConfig
from bert_jax.data.config import DataConfig
from launch.preflight.chips import Chip
from launch.preflight.compile import Fit, Step
from launch.preflight.hlo import Collective, Kernel, Program

SHOWN = 10  # operations
KERNEL_SHARE = 0.5  # of peak, that a kernel without an estimate is taken to reach
TRIES = 5  # compilations at most in a search
LEFT_OUT = (
    "overlap of collectives with computation (none is assumed: the step can be faster)",
    "contention and latency of the networks, and slow hosts (it can be slower)",
    "the loader, transfers to the device, logging, evaluation and checkpoints",
)


def phase_facts(
    step: Step, data: DataConfig, steps: int, fit: Fit, chip: Chip, chips: int
) -> dict[str, Any]:
    """Bytes and seconds are of one chip where they are of a chip, seconds of one step."""
    facts: dict[str, Any] = {
        "length": data.sequence_length, "batch": data.batch_size, "steps": steps,
        "fits": fit.fits,
        "hbm": {
            "needed": fit.needed * chip.devices, "usable": fit.available * chip.devices,
            "state": fit.state * chip.devices, "work": fit.work * chip.devices,
        },
    }  # fmt: skip
    if fit.program is None or not fit.fits:
        return facts | {"reason": fit.reason}
    cost = Program(fit.program).cost()
    seconds = {
        "compiler": cost.cycles / chip.clock,
        "collectives": sum(seconds_of(one, chip) for one in cost.collectives),
        "kernels": sum(kernel_seconds(one, chip) for one in cost.kernels),
        "unestimated": sum(cost.unestimated.values()) * chip.devices / chip.hbm_bandwidth,
    }
    if any(one.flops is None for one in cost.kernels):  # those of attention, which do not say them
        compute = step.attention_flops(data) / (chips * chip.peak)
        seconds["kernels"] = max(seconds["kernels"], compute / KERNEL_SHARE)
    flops = step.flops(data)
    seconds["step"] = sum(seconds.values())
    network = [one for one in cost.collectives if one.over == "ici"]
    roofline = {
        "compute": flops / (chips * chip.peak),
        # The state is read once and written once, whatever else is.
        "memory": 2 * fit.state * chip.devices / chip.hbm_bandwidth,
        "network": sum(seconds_of(one, chip) for one in network),
        "between_slices": sum(seconds_of(one, chip) for one in cost.collectives)
        - sum(seconds_of(one, chip) for one in network),
    }
    return facts | {
        "flops": flops,
        "seconds": seconds,
        "mfu": flops / (seconds["step"] * chips * chip.peak),
        "roofline": roofline | {"step": max(roofline.values())},
        "collectives": collective_facts(cost.collectives, chip),
        "operations": [
            {
                "source": source, "largest": cost.largest[source][1],
                "seconds": cycles / chip.clock, "share": cycles / cost.cycles,
            }
            for source, cycles in cost.dearest(SHOWN)
        ],
        "kernels": [asdict(one) | {"seconds": kernel_seconds(one, chip)} for one in cost.kernels],
        "unestimated_bytes": cost.unestimated,
        "loops_of_unknown_length": cost.unknown_loops,
    }  # fmt: skip


def seconds_of(one: Collective, chip: Chip) -> float:
    """At the full bandwidth of all links of a device."""
    bandwidth = chip.ici_bandwidth if one.over == "ici" else chip.dcn_bandwidth
    return one.sent * chip.devices / bandwidth


def kernel_seconds(one: Kernel, chip: Chip) -> float:
    compute = (one.flops or 0.0) * chip.devices / chip.peak
    memory = one.bytes * chip.devices / chip.hbm_bandwidth
    return one.times * max(compute, memory) / KERNEL_SHARE


def collective_facts(collectives: list[Collective], chip: Chip) -> list[dict[str, Any]]:
    """One row for those of a kind, a group and a source line; the most bytes first. Bytes are a
    device's operands in one step, sent is what it sends of and for them in a ring."""
    rows: dict[tuple, dict[str, Any]] = {}
    for one in collectives:
        key = (one.kind, one.over, one.group, one.source)
        row = rows.setdefault(
            key,
            {
                "kind": one.kind, "over": one.over, "group": one.group, "source": one.source,
                "times": 0, "bytes": 0.0, "sent": 0.0, "seconds": 0.0,
            },
        )  # fmt: skip
        row["times"] += one.times
        row["bytes"] += one.bytes * one.times
        row["sent"] += one.sent
        row["seconds"] += seconds_of(one, chip)
    return sorted(rows.values(), key=lambda row: -row["bytes"])


def run_facts(
    config: RunConfig, name: str, chip: Chip, chips: int, step: Step, phases: list[dict[str, Any]]
) -> dict[str, Any]:
    fits = all(phase["fits"] for phase in phases)
    slices = config.mesh.slices
    facts = {
        "topology": name, "slices": slices, "chips": chips * slices, "fits": fits,
        "mesh": dict(step.mesh.shape), "remat": config.model.remat,
        "chip": {
            "peak_flops": chip.peak, "hbm_gib": chip.gib, "usable_gib": chip.usable_gib,
            "hbm_bandwidth": chip.hbm_bandwidth, "ici_bandwidth": chip.ici_bandwidth,
            "dcn_bandwidth": chip.dcn_bandwidth, "clock": chip.clock,
        },
        "phases": phases,
        "left_out": LEFT_OUT,
        "versions": {one: version(one) for one in ("jax", "libtpu")},
    }  # fmt: skip
    if fits:
        seconds = sum(phase["steps"] * phase["seconds"]["step"] for phase in phases)
        facts |= {"seconds": seconds, "chip_hours": seconds / 3600 * chips * slices}
    return facts


def largest_batch(
    step: Step, data: DataConfig, first: Fit, try_: Callable[[DataConfig], Fit]
) -> dict[str, int | None]:
    """The largest global batch found to fit, and the smallest found not to (None: the search ended
    before); multiples of what the mesh divides. `first` is the fit of data's own batch, `try_`
    that of another. Memory is nearly linear in the batch, so the next to try is predicted."""
    known = {data.batch_size // step.rows: first}
    for _ in range(TRIES):
        if (units := _next(known)) is None:
            break
        known[units] = try_(replace(data, batch_size=units * step.rows))
    fitting = [units for units, fit in known.items() if fit.fits]
    failing = [units for units, fit in known.items() if not fit.fits]
    return {
        "fits": max(fitting, default=0) * step.rows,
        "does_not_fit": min(failing) * step.rows if failing else None,
    }


def _next(known: dict[int, Fit]) -> int | None:
    """How many rows a device to try next; None where nothing is left to learn."""
    low = max((units for units, fit in known.items() if fit.fits), default=0)
    high = min((units for units, fit in known.items() if not fit.fits), default=None)
    close = max(1, low // 8)
    if high is not None and high - low <= close:
        return None
    guess = _predicted(known)
    if high is None:
        return min(max(guess, low + max(1, low // 4)), 16 * low)
    return guess if low < guess < high else (low + high + 1) // 2


def _predicted(known: dict[int, Fit]) -> int:
    """Rows that fill the memory, on the line through the two largest of which a program was made;
    of one alone, through the bytes of its state."""
    points = sorted(
        ((units, fit) for units, fit in known.items() if fit.program is not None),
        key=lambda point: point[0],
    )
    if not points:
        return 0
    units, fit = points[-1]
    fixed, slope = fit.state, fit.work / units
    if len(points) > 1:
        before, other = points[-2]
        slope = (fit.needed - other.needed) / (units - before)
        fixed = fit.needed - slope * units
    return int((fit.available - fixed) / slope) if slope > 0 else 2 * units
