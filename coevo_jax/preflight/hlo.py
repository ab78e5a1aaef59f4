"""The text of compiled programs: computations, instructions, the bytes of shapes, and how often loops run.

Optimised HLO, as `Compiled.as_text()` gives it: a computation is a header, a line an instruction, and `}`.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}

SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
CALLS = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_NAME = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r" *([\w\-]+)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str  # of its result, with layouts; a tuple's in parentheses
    opcode: str
    operands: tuple[str, ...]
    inside: str  # the operands as they are written: a parameter's number, a constant's value
    line: str
    root: bool

    @property
    def bytes(self) -> float:
        """The size of its result."""
        return sum(shape_bytes(dtype, dims) for dtype, dims in SHAPE.findall(self.shape) if dtype in BITS)

    @property
    def elements(self) -> int:
        """How many values its result has."""
        found = (filter(None, dims.split(",")) for _, dims in SHAPE.findall(self.shape))
        return sum(math.prod(map(int, dims)) for dims in found)

    @property
    def called(self) -> dict[str, tuple[str, ...]]:
        """The computations that it names, by the role that they have."""
        return {role: tuple(re.findall(r"[\w.\-]+", names)) for role, names in CALLS.findall(self.line)}


def instruction_of(line: str) -> Instruction | None:
    """What a line says; None where it is no instruction."""
    named = _NAME.match(line)
    if named is None:
        return None
    start = named.end()
    end = _closing(line, start) if line[start : start + 1] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end)
    if opcode is None:
        return None
    last = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : last - 1]
    return Instruction(
        name=named[2],
        shape=line[start:end],
        opcode=opcode[1],
        operands=tuple(_OPERAND.findall(inside)),
        inside=inside,
        line=line,
        root=named[1] is not None,
    )


def _closing(line: str, start: int) -> int:
    """The place behind the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if depth == 0:
            return place + 1
    return len(line)


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the one that is run."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and " = " not in line.split("{")[0]:
            lines = bodies[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return bodies, entry


def trip_count(line: str, bodies: Mapping[str, list[str]]) -> int | None:
    """How often a while loop runs, None where that is not known when it is compiled.

    As the compiler notes it, or from its counter's one bound and its step.
    """
    noted = _TRIPS.search(line)
    if noted:
        return int(noted[1])
    named = dict(re.findall(r"\b(condition|body)=%?([\w.\-]+)", line))
    lines = bodies.get(named.get("condition", ""), [])
    bounds = [
        int(found[1]) for text in lines if (found := re.search(r"[su]32\[\]\S* constant\((\d+)\)", text))
    ]
    compares = sum(" compare(" in text for text in lines)
    if len(bounds) != 1 or compares != 1 or len(lines) > 6:
        return None
    counters = [found[1] for text in lines if (found := re.search(r"get-tuple-element\(.*index=(\d+)", text))]
    step = _step(bodies.get(named["body"], []), int(counters[0])) if len(counters) == 1 else 1
    return math.ceil(bounds[0] / step)


def _step(body: list[str], counter: int) -> int:
    """What a loop's body adds to an element of its tuple; unrolled loops add more than one."""
    made = {found[1]: text for text in body if (found := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", text))}
    root = next((text for text in body if text.lstrip().startswith("ROOT")), "")
    results = re.search(r" tuple\((.*?)\)", root)
    names = re.findall(r"%([\w.\-]+)", results[1]) if results else []
    added = re.search(r" add\(([^)]*)\)", made.get(names[counter], "")) if counter < len(names) else None
    operands = re.findall(r"%([\w.\-]+)", added[1]) if added else []
    steps = [found[1] for x in operands if (found := re.search(r" constant\((\d+)\)", made.get(x, "")))]
    return int(steps[0]) if steps and int(steps[0]) else 1


def shape_bytes(dtype: str, dims: str) -> float:
    """The size of an array, by its type and its dimensions as they are written: "bf16", "64,128"."""
    size = BITS[dtype] / 8
    for dim in filter(None, dims.split(",")):
        size *= int(dim)
    return size
