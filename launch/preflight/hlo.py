"""The text of a program that XLA compiled for TPUs, read for what it will cost.

Every operation of the schedule is counted as often as it runs: the body of a loop as often as the
loop turns. What the compiler estimated (`estimated_cycles`) is taken from it; collectives and
kernels, for which it says nothing, are listed with their bytes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Moves that the schedule hides behind other work, and what is no work at all.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "while", "conditional", "call", "add-dependency", "domain", "send",
    "recv",
}  # fmt: skip
_MOVES = ("copy", "copy-start", "copy-done", "bitcast", "opt-barrier")
# Custom calls that only name or place what is there.
_NAMES = re.compile(
    r'custom_call_target="(AllocateBuffer|ConcatBitcast|AssumeGatherIndicesInBound'
    r'|GatherScatterIndicesBitpacked)"'
)
_ASYNC = re.compile(r"-(start|done|update)$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')


@dataclass(frozen=True)
class Operation:
    name: str
    shape: str  # of the result, as text
    opcode: str
    inside: str  # the text of its operands
    rest: str  # all that stands behind them
    root: bool = False

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.inside)

    @property
    def number(self) -> int | None:
        """Of a whole constant, or of a parameter."""
        return int(self.inside) if re.fullmatch(r"-?\d+", self.inside) else None

    def named(self, attribute: str) -> str | None:
        """The computation that `attribute` names."""
        found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.rest)
        return found and found[1]


@dataclass(frozen=True)
class Collective:
    """One that runs `times`, in groups of `group` devices; `bytes` are those of a device's
    operands, each time. `over` is ici within a slice, dcn between slices."""

    kind: str
    bytes: float
    group: int
    times: int
    over: str
    source: str

    @property
    def sent(self) -> float:
        """Bytes that each device sends in all, in a ring."""
        n, all_bytes = self.group, self.bytes * self.times
        return all_bytes * {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": n - 1,
            "collective-permute": 1,
        }.get(self.kind, (n - 1) / n)


@dataclass(frozen=True)
class Kernel:
    """A custom kernel, that runs `times`; `flops` is None where it does not say."""

    name: str
    flops: float | None
    bytes: float
    times: int
    source: str


@dataclass
class Cost:
    """Of one run of the program, on one device."""

    cycles: float = 0.0
    by_source: dict[str, float] = field(default_factory=dict)  # cycles, by file:line
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)  # of each: cycles, op
    collectives: list[Collective] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    unestimated: dict[str, float] = field(default_factory=dict)  # bytes moved, by opcode
    unknown_loops: list[str] = field(default_factory=list)  # counted once, as turns are not known

    def dearest(self, number: int) -> list[tuple[str, float]]:
        """Source lines and their cycles, the most first."""
        return sorted(self.by_source.items(), key=lambda item: -item[1])[:number]


class Program:
    """`text` as `Compiled.as_text()` gives it."""

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, Operation]] = {}
        self._tables: dict[str, dict[int, str]] = {}
        self._entry = ""
        partitions = re.search(r"num_partitions=(\d+)", text[:1_000_000])
        self._devices = int(partitions[1]) if partitions else 1
        self._read(text)

    def cost(self) -> Cost:
        cost = Cost()
        self._chains: set[str] = set()
        self._walk(self._entry, 1, cost, estimated=False)
        return cost

    def _read(self, text: str) -> None:
        current: dict[str, Operation] = {}
        table: dict[int, str] = {}
        for line in text.splitlines():
            if match := _LINE.match(line):
                root, name, shape, opcode, rest = match.groups()
                inside, after = _closed(rest)
                current[name] = Operation(name, shape, opcode, inside, after, bool(root))
            elif match := _HEAD.match(line):
                current = self._computations[match[2]] = {}
                if match[1]:
                    self._entry = match[2]
            elif re.match(r"^(FileNames|FunctionNames|FileLocations|StackFrames)$", line):
                table = self._tables[line] = {}
            elif match := re.match(r"^(\d+) (.*)$", line):
                table[int(match[1])] = match[2]

    def _walk(self, name: str, times: int, cost: Cost, estimated: bool) -> None:
        """Add what `times` runs of the computation cost. `estimated`: its cycles are those of
        the fusion it belongs to, which are counted already."""
        for op in self._computations[name].values():
            kind = _ASYNC.sub("", op.opcode)
            if op.opcode.endswith(("-done", "-update")):
                continue  # counted where it started
            if kind in _COLLECTIVES:
                if (chain := _chain(op)) and chain in self._chains:
                    continue  # another piece of one that is spread over several fusions
                self._chains.add(chain)
                cost.collectives.append(self._collective(name, op, kind, times))
                continue
            if op.opcode == "send" and "_xla_megascale_transfer_type" in op.rest:
                cost.collectives.append(self._between_slices(name, op, times))
                continue
            if op.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in op.rest:
                cost.kernels.append(self._kernel(name, op, times))
                continue
            cycles = _CYCLES.search(op.rest)
            if cycles and not estimated:
                self._add(op, int(cycles[1]) * times, cost)
            before = len(cost.collectives) + len(cost.kernels)
            self._walk_called(name, op, times, cost, estimated or cycles is not None)
            carries = len(cost.collectives) + len(cost.kernels) > before
            moved = 2 * _bytes(op.shape)  # what it writes it has read from somewhere
            if not (estimated or cycles or carries or kind != op.opcode or _is_free(op)):
                so_far = cost.unestimated.get(op.opcode, 0.0)
                cost.unestimated[op.opcode] = so_far + moved * times

    def _walk_called(self, name: str, op: Operation, times: int, cost: Cost, estimated: bool):
        if op.opcode == "while":
            turns = self._turns(name, op)
            if turns is None:
                cost.unknown_loops.append(op.name)
            self._walk(op.named("body") or "", times * (turns or 1), cost, estimated)
        elif op.opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", op.rest)
            names = re.findall(r"[\w.-]+", branches[1]) if branches else []
            names += [n for n in map(op.named, ("true_computation", "false_computation")) if n]
            self._walk(max(names, key=self._cycles), times, cost, estimated)
        elif op.opcode == "call":
            self._walk(op.named("to_apply") or "", times, cost, estimated)
        elif called := op.named("calls"):  # a fusion: one operation, whatever is inside
            self._walk(called, times, cost, True)

    def _cycles(self, name: str) -> float:
        cost, before = Cost(), set(self._chains)
        self._walk(name, 1, cost, estimated=False)
        self._chains = before  # it was only priced: its collectives are still to be counted
        return cost.cycles

    def _add(self, op: Operation, cycles: float, cost: Cost) -> None:
        source = self._source(op)
        cost.cycles += cycles
        cost.by_source[source] = cost.by_source.get(source, 0.0) + cycles
        if cycles >= cost.largest.get(source, (0.0, ""))[0]:
            path = re.search(r'op_name="([^"]*)"', op.rest)
            cost.largest[source] = cycles, path[1].rsplit("/", 1)[-1] if path else op.opcode

    def _collective(self, name: str, op: Operation, kind: str, times: int) -> Collective:
        # An all-reduce of which each device keeps its own part is a reduce-scatter.
        kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind
        size = self._operand_bytes(name, op)
        return Collective(kind, size, self._group(op), times, "ici", self._source(op))

    def _between_slices(self, name: str, op: Operation, times: int) -> Collective:
        """A transfer over the data centre's network. Its target is a list of slices by a range of
        devices, `{1,2}x{0:3}`."""
        what = re.search(r'_xla_megascale_transfer_type="([\w-]+)"', op.rest)
        kind = (what[1] if what else "").lower().replace("_", "-")
        target = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', op.rest)
        slices = len(target[1].split(",")) if target else 2
        if target and ":" in target[1]:
            first, last = target[1].split(":")
            slices = int(last) - int(first) + 1
        size = _bytes(self._computations[name][op.operands[0]].shape)
        return Collective(kind, size, slices, times, "dcn", self._source(op))

    def _kernel(self, name: str, op: Operation, times: int) -> Kernel:
        said = re.search(r'"cost_estimate":\{([^}]*)\}', op.rest.replace("\\", ""))
        numbers = dict(re.findall(r'"(\w+)":"?(\d+)', said[1])) if said else {}
        flops = float(numbers["flops"]) if "flops" in numbers else None
        moved = float(numbers.get("bytes_accessed", 0)) or (
            self._operand_bytes(name, op) + _bytes(op.shape)
        )
        return Kernel(op.name, flops, moved, times, self._source(op))

    def _operand_bytes(self, name: str, op: Operation) -> float:
        known = self._computations[name]
        return sum(_bytes(known[operand].shape) for operand in op.operands if operand in known)

    def _group(self, op: Operation) -> int:
        """Devices of a replica group, in any of the ways that HLO writes them down."""
        rest = op.rest
        if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
            sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
            axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
            return math.prod(int(part or sizes[axis]) for axis, part in axes)
        if found := re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", rest):
            return int(found[1].split(",")[-1])
        if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
            return len(found[1].split(","))
        return 2 if "source_target_pairs" in rest else self._devices

    def _turns(self, name: str, op: Operation) -> int | None:
        """How often a loop turns: as the compiler says, or from `counter < constant`."""
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', op.rest):
            return int(found[1])
        condition, body = op.named("condition") or "", op.named("body") or ""
        compared = self._comparison(condition)
        if compared is None:
            return None
        index, bound = compared
        start = self._element(name, op.operands[0], index)
        first = self._constant(name, start) if start else None
        after = self._element(body, self._root(body).name, index)
        step = self._increment(body, after) if after else None
        if first is None or not step:
            return None
        return max(0, math.ceil((bound - first) / step))

    def _comparison(self, condition: str) -> tuple[int, int] | None:
        """Which element of the loop's state must be below which number."""
        scope, outer, root = condition, [], self._root(condition)
        if root.opcode == "fusion":
            scope, outer = root.named("calls") or "", root.operands
            root = self._root(scope)
        if root.opcode != "compare" or "direction=LT" not in root.rest:
            return None
        sides = [self._computations[scope][operand] for operand in root.operands]
        if outer:
            sides = [
                self._computations[condition][outer[side.number or 0]]
                if side.opcode == "parameter"
                else side
                for side in sides
            ]
        counter, bound = sides
        index = re.search(r"index=(\d+)", counter.rest)
        if index is None or bound.opcode != "constant" or bound.number is None:
            return None
        return int(index[1]), bound.number

    def _element(self, name: str, operand: str, index: int) -> str | None:
        """What a tuple holds at `index`."""
        op = self._behind(name, operand)
        return op.operands[index] if op and op.opcode == "tuple" else None

    def _constant(self, name: str, operand: str) -> int | None:
        op = self._behind(name, operand)
        return op.number if op and op.opcode == "constant" else None

    def _increment(self, body: str, operand: str) -> int | None:
        op = self._behind(body, operand)
        if op and op.opcode == "fusion":
            body = op.named("calls") or ""
            op = self._root(body)
        if not op or op.opcode != "add":
            return None
        found = (self._constant(body, side) for side in op.operands)
        return next((number for number in found if number is not None), None)

    def _behind(self, name: str, operand: str) -> Operation | None:
        """The operation that made a value which was then only moved."""
        op = self._computations[name].get(operand)
        while op and op.opcode in _MOVES:
            op = self._computations[name].get(op.operands[0])
        return op

    def _root(self, name: str) -> Operation:
        return next(op for op in self._computations[name].values() if op.root)

    def _source(self, op: Operation) -> str:
        """file:line of the innermost frame in this package, or of the innermost."""
        if found := re.search(r'source_file="([^"]+)" source_line=(\d+)', op.rest):
            return _shortened(found[1], found[2])
        frames = list(self._frames(op))
        ours = (frame for frame in frames if frame.startswith("bert_jax/"))
        return next(ours, frames[0] if frames else "added by the compiler")

    def _frames(self, op: Operation) -> Iterator[str]:
        found = re.search(r"stack_frame_id=(\d+)", op.rest)
        number, seen = int(found[1]) if found else 0, set()
        while number and number not in seen:
            seen.add(number)
            frame = self._tables["StackFrames"][number]
            place = self._tables["FileLocations"][_field(frame, "file_location_id")]
            file = self._tables["FileNames"][_field(place, "file_name_id")].strip('"')
            yield _shortened(file, str(_field(place, "line")))
            number = _field(frame, "parent_frame_id")


def _is_free(op: Operation) -> bool:
    return op.opcode in _FREE or bool(_NAMES.search(op.rest)) or _bytes(op.shape) < 1024


def _chain(op: Operation) -> str:
    """What the pieces of one collective have in common; empty of one that is whole."""
    chain = re.search(r'chain_id="(\d+)"', op.rest)
    channel = re.search(r"channel_id=(\d+)", op.rest)
    return f"{chain[1]} {channel[1]}" if chain and channel else ""


def _field(text: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", text)
    return int(found[1]) if found else 0


def _shortened(file: str, line: str) -> str:
    """From the package's folder on, or the last two parts."""
    _, mark, inside = file.rpartition("/bert_jax/")
    return f"{mark[1:]}{inside}:{line}" if mark else f"{'/'.join(file.split('/')[-2:])}:{line}"


def _closed(text: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes, and behind it."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:place], text[place + 1 :]
    return text, ""


def _bytes(shape: str) -> float:
    """Of all arrays in a shape's text."""
    return sum(
        _BYTES.get(kind, 1) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    )
