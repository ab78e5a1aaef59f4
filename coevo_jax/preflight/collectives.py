"""What chips send each other, read from a compiled program: kinds, bytes, and how often loops repeat them.

The compiler's own figures count the body of a loop once; a scanned model's layers are such a body.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from coevo_jax.preflight.hlo import BITS, CALLS, SHAPE, computations, shape_bytes, trip_count

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)
BETWEEN_SLICES = "between slices"  # what hosts send for their chips over the network

_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SENT = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = \(([^ ]*) .* send\(.*is_host_transfer=true")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")


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
    bodies, entry = computations(text)
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
            repeat = (trip_count(line, bodies) or 1) if " while(" in line else 1
            for role, called in CALLS.findall(line):
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
        return BETWEEN_SLICES, sum(shape_bytes(*shape) for shape in SHAPE.findall(match[1]))
    return None, 0.0


def _wire_bytes(kind: str, match: re.Match[str], line: str, chips: int) -> float:
    """Bytes that a chip sends for one call: a ring over the group's n chips, in steps of 1/n of it all."""
    shapes = [shape_bytes(dtype, dims) for dtype, dims in SHAPE.findall(match[1]) if dtype in BITS]
    if match[3] and kind != "all-reduce":  # (operands, results) and, of a permute, contexts
        shapes = shapes[1:2] if kind == "collective-permute" else shapes[len(shapes) // 2 :]
    total, n = sum(shapes), _group_size(line, chips)
    share = (n - 1) / n
    if kind == "all-reduce":
        return 2 * total * share
    if kind == "reduce-scatter" and match[2] == "reduce-scatter":
        return total * (n - 1)  # its result is one chip's part
    return total if kind == "collective-permute" else total * share


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
