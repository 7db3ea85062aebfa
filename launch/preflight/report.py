"""The facts of a preflight as text."""

from typing import Any

GIB = 2**30
COLLECTIVES = 8  # rows shown; --json has all


def report(facts: dict[str, Any]) -> str:
    slices = f"{facts['slices']} slices of " if facts["slices"] > 1 else ""
    mesh = " × ".join(f"{name}={size}" for name, size in facts["mesh"].items())
    chip = facts["chip"]
    lines = [
        f"{slices}{facts['topology']}: {facts['chips']} chips, mesh {mesh}",
        f"a chip: {chip['peak_flops'] / 1e12:.0f} TFLOP/s bf16, {chip['usable_gib']:g} of "
        f"{chip['hbm_gib']:g} GiB usable at {chip['hbm_bandwidth'] / 1e9:.0f} GB/s, "
        f"{chip['ici_bandwidth'] / 1e9:.0f} GB/s out over its links",
    ]
    for number, phase in enumerate(facts["phases"], 1):
        lines += ["", *_phase(number, phase, facts)]
    lines += ["", *_whole(facts)]
    return "\n".join(lines)


def _phase(number: int, phase: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    lines = [
        f"PHASE {number}: {phase['steps']:,} steps of {phase['batch']:,} rows of length "
        f"{phase['length']}",
        *_memory(phase, facts),
    ]
    if "largest_batch" in phase:
        found = phase["largest_batch"]
        beyond = found["does_not_fit"]
        tail = f"; {beyond:,} does not fit" if beyond else "; larger ones were not tried"
        fits = f"{found['fits']:,} fits" if found["fits"] else "none found that fits"
        lines.append(_row("largest batch", fits + tail))
    if not phase["fits"]:
        return lines
    seconds, roofline = phase["seconds"], phase["roofline"]
    bound = max((key for key in roofline if key != "step"), key=lambda key: roofline[key])
    lines += [
        _row("step", f"{_time(seconds['step'])}, MFU {100 * phase['mfu']:.1f}%"),
        _row("", f"{_time(seconds['compiler'])} by the compiler's cycles"),
        _row("", f"{_time(seconds['collectives'])} collectives, by bytes over bandwidth"),
    ]
    if phase["kernels"]:
        says = f"{_time(seconds['kernels'])} kernels, by FLOPs and bytes at 50% of peak"
        lines.append(_row("", says))
    lines += [
        _row("", f"{_time(seconds['unestimated'])} operations without an estimate, by bytes"),
        _row(
            "roofline",
            f"{_time(roofline['step'])}, by {bound.replace('_', ' ')} (compute "
            f"{_time(roofline['compute'])}, state through HBM {_time(roofline['memory'])}, "
            f"network {_time(roofline['network'])}"
            + (
                f", between slices {_time(roofline['between_slices'])})"
                if facts["slices"] > 1
                else ")"
            ),
        ),
    ]
    if phase["loops_of_unknown_length"]:
        named = ", ".join(phase["loops_of_unknown_length"])
        lines.append(_row("", f"counted as if they ran once, as their length is unknown: {named}"))
    return lines + _collectives(phase) + _operations(phase)


def _memory(phase: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    hbm = phase["hbm"]
    usable = hbm["usable"] / GIB
    if phase["fits"]:
        return [
            _row(
                "HBM a chip",
                f"{hbm['needed'] / GIB:.2f} of {usable:.2f} GiB, "
                f"{hbm['needed'] / hbm['usable']:.0%}: state {hbm['state'] / GIB:.2f}, "
                f"activations and code {hbm['work'] / GIB:.2f}",
            )
        ]
    needed = f"{hbm['needed'] / GIB:.2f} GiB are needed, " if hbm["needed"] else ""
    return [
        _row("HBM a chip", f"DOES NOT FIT: {needed}{usable:.2f} GiB can be used"),
        _row("", phase["reason"]),
        _row("", "what can be changed: " + "; ".join(_advice(phase, facts))),
    ]


def _advice(phase: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    advice = []
    if facts["remat"] == "none":
        advice.append("--config.model.remat=full")
    if facts["mesh"]["fsdp"] == 1:
        advice.append("--config.mesh.fsdp=8 (or another part of the devices)")
    advice.append("--config.train.accumulation=2 or more (the same batch in parts)")
    advice.append("a smaller data.batch_size, or more chips")
    return advice


def _collectives(phase: dict[str, Any]) -> list[str]:
    rows = phase["collectives"]
    lines = [
        "",
        "  collectives of a step           group  times   operands       sent      time",
    ]
    for row in rows[:COLLECTIVES]:
        over = " (DCN)" if row["over"] == "dcn" else ""
        lines.append(
            f"    {row['kind'] + over:<26} {row['group']:>6} {row['times']:>6} "
            f"{_megabytes(row['bytes'])} {_megabytes(row['sent'])} {_time(row['seconds']):>9}"
            f"  {row['source']}"
        )
    if rest := rows[COLLECTIVES:]:
        lines.append(
            f"    {f'and {len(rest)} more':<26} {'':>6} {sum(r['times'] for r in rest):>6} "
            f"{_megabytes(sum(r['bytes'] for r in rest))} "
            f"{_megabytes(sum(r['sent'] for r in rest))} "
            f"{_time(sum(r['seconds'] for r in rest)):>9}"
        )
    if not rows:
        lines.append("    none")
    return lines


def _operations(phase: dict[str, Any]) -> list[str]:
    lines = ["", "  most of the compiler's cycles        time  share  largest operation"]
    for row in phase["operations"]:
        lines.append(
            f"    {row['source']:<34} {_time(row['seconds']):>7}  {row['share']:>4.0%}  "
            f"{row['largest']}"
        )
    return lines


def _whole(facts: dict[str, Any]) -> list[str]:
    if not facts["fits"]:
        return ["This run does not fit as it is."]
    hours = facts["seconds"] / 3600
    lines = [
        f"To finish the config: {hours:,.1f} hours, {facts['chip_hours']:,.0f} chip-hours"
        + (f", {facts['cost']:,.0f} at the price given" if "cost" in facts else "")
    ]
    return lines + ["Left out: " + ";\n          ".join(facts["left_out"]) + "."]


def table_head() -> str:
    return (
        "| preset | pod | length × batch | HBM a chip, GiB | step, ms | MFU | hours "
        "| chip-hours |\n"
        "|---|---|---|---|---|---|---|---|"
    )


def one_line(name: str, facts: dict[str, Any]) -> str:
    """A row of the table of all presets; the phases of a run stand behind each other."""

    def joined(cell: Any) -> str:
        return ", ".join(cell(phase) if phase["fits"] else "-" for phase in facts["phases"])

    sizes = ", ".join(f"{phase['length']} × {phase['batch']:,}" for phase in facts["phases"])
    hbm = ", ".join(
        f"{phase['hbm']['needed'] / GIB:.1f}" if phase["fits"] else "does not fit"
        for phase in facts["phases"]
    )
    usable = facts["chip"]["usable_gib"]
    hours = f"{facts['seconds'] / 3600:,.0f} | {facts['chip_hours']:,.0f}" if facts["fits"] else "|"
    return (
        f"| `{name}` | {facts['topology']} | {sizes} | {hbm} of {usable:g} | "
        f"{joined(lambda phase: f'{1000 * phase["seconds"]["step"]:.0f}')} | "
        f"{joined(lambda phase: f'{100 * phase["mfu"]:.0f}%')} | {hours} |"
    )


def _row(name: str, text: str) -> str:
    return f"  {name:<14} {text}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:>7.1f} MB"
