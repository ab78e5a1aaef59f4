"""What chips send each other, read from a compiled program: kinds, bytes, and how often loops repeat them.

The compiler's own figures count the body of a loop once; a scanned model's layers are such a body.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)
BETWEEN_SLICES = "between slices"  # what hosts send for their chips over the network
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SENT = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = \(([^ ]*) .* send\(.*is_host_transfer=true")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLS = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The collectives of one kind in a program."""

    kind: str
    count: int  # calls, as often as loops of known length repeat them
    wire_bytes: float  # that a chip sends, by the ring algorithm


def collectives(text: str, chips: int) -> tuple[Traffic, ...]:
    """The collectives of a compiled program's text, largest first.

    A loop whose length is not known when it is compiled counts once: of a decode block, one token.

    Args:
      text: optimised HLO, as `Compiled.as_text()` gives it.
      chips: of the program, where a collective goes over all of them.
    """
    bodies, entry = _computations(text)
    counts: dict[str, int] = defaultdict(int)
    sent: dict[str, float] = defaultdict(float)
    pending = [(entry, 1, entry)]
    seen = set()
    while pending:
        name, times, loop = pending.pop()
        for line in bodies.get(name, ()):
            kind, wire_bytes = _sent_by(line, name, chips)
            channel = _CHANNEL.search(line)
            # One that is overlapped with other work may be written several times, under one channel.
            again = channel is not None and (loop, kind, channel[1]) in seen
            if kind is not None and not again:
                counts[kind] += times
                sent[kind] += times * wire_bytes
                if channel is not None:
                    seen.add((loop, kind, channel[1]))
            repeat = _trip_count(line, bodies) if " while(" in line else 1
            for role, called in _CALLS.findall(line):
                if role != "to_apply" or " call(" in line:
                    names = re.findall(r"[\w.\-]+", called)
                    if role == "body":
                        pending += [(one, times * repeat, one) for one in names]
                    else:
                        pending += [(one, times, loop) for one in names]
    found = [Traffic(kind=kind, count=counts[kind], wire_bytes=sent[kind]) for kind in counts]
    return tuple(sorted(found, key=lambda traffic: -traffic.wire_bytes))


def _sent_by(line: str, computation: str, chips: int) -> tuple[str | None, float]:
    """The kind of a line's collective, None where there is none, and the bytes that a chip sends for it."""
    if match := _COLLECTIVE.match(line):
        # A TPU writes a reduce-scatter as an all-reduce whose result is cut, in one fusion.
        kind = "reduce-scatter" if computation.startswith("all-reduce-scatter") else match[2]
        return kind, _wire_bytes(kind, match, line, chips)
    if match := _SENT.match(line):
        return BETWEEN_SLICES, sum(_bytes(*shape) for shape in _SHAPE.findall(match[1]))
    return None, 0.0


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
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


def _trip_count(line: str, bodies: Mapping[str, list[str]]) -> int:
    """How often a while loop runs: as the compiler notes it, or from its counter's one bound and its step."""
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
        return 1
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


def _wire_bytes(kind: str, match: re.Match[str], line: str, chips: int) -> float:
    """Bytes that a chip sends for one call: a ring over the group's n chips, in steps of 1/n of it all."""
    shapes = [_bytes(dtype, dims) for dtype, dims in _SHAPE.findall(match[1]) if dtype in BITS]
    if match[3] and kind != "all-reduce":  # (operands, results) and, of a permute, contexts
        shapes = shapes[1:2] if kind == "collective-permute" else shapes[len(shapes) // 2 :]
    total, n = sum(shapes), _group_size(line, chips)
    share = (n - 1) / n
    if kind == "all-reduce":
        return 2 * total * share
    if kind == "reduce-scatter" and match[2] == "reduce-scatter":
        return total * (n - 1)  # its result is one chip's part
    return total if kind == "collective-permute" else total * share


def _bytes(dtype: str, dims: str) -> float:
    size = BITS[dtype] / 8
    for dim in filter(None, dims.split(",")):
        size *= int(dim)
    return size


def _group_size(line: str, chips: int) -> int:
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line)
    if iota:
        return int(iota[2])
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", line)
    if axes:  # mesh['a'=4,'b'=2] {'a','b':(1)2}: whole axes, and parts of axes with their sizes
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
        named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else chips
