"""Bytes that a program compiled for a GPU reads from memory and writes to it, by instruction of its text.

A kernel reads each operand once and writes its results once, whatever the chip keeps in its caches. Of an
operand that it only cuts from, it reads what it cuts; of one that it updates in place, it writes what it puts
there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coevo_jax.preflight.hlo import SHAPE, Instruction, computations, instruction_of, shape_bytes, trip_count

# These name memory and touch none.
NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
NAMES |= {"replica-id", "opt-barrier", "while", "conditional", "call"}
SAME = {"bitcast", "reshape", "get-tuple-element", "tuple"}  # inside of a kernel: another name of a value
CUTS = {"dynamic-slice", "slice", "gather"}  # of their first operand
PUTS = {"dynamic-update-slice": 1, "scatter": 2}  # into their first operand, and which one they put there

Known = Mapping[str, Instruction]  # of a computation, by name


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What an instruction of a program reads and writes."""

    name: str
    opcode: str
    shape: str
    origin: str  # where it comes from, as JAX names it
    bytes: float  # as often as loops of known length repeat it


@dataclass(frozen=True, kw_only=True)
class Movements:
    """What a program moves: once in a call, and in each pass of its loop of unknown length; largest first."""

    once: tuple[Moved, ...]
    each: tuple[Moved, ...]

    @property
    def of_a_pass(self) -> float:
        """Bytes."""
        return sum(one.bytes for one in self.each)


def movements(text: str) -> Movements:
    """What a compiled program moves.

    Of branches the one counts that moves the most; inside of such a branch, the one that moves the least: a
    decode step draws tokens, and filters nothing.

    Args:
      text: optimised HLO, as `Compiled.as_text()` gives it.
    """
    bodies, entry = computations(text)
    found = list(_walk(_Program(bodies), entry, 1.0, looped=False, branched=False))

    def largest(looped: bool) -> tuple[Moved, ...]:
        chosen = (moved for moved, inside in found if inside == looped)
        return tuple(sorted(chosen, key=lambda one: -one.bytes))

    return Movements(once=largest(False), each=largest(True))


class _Program:
    """The computations of a program; each is read when it is first asked for."""

    def __init__(self, bodies: Mapping[str, list[str]]):
        self.bodies = bodies
        self._known: dict[str, Known] = {}
        self.shares: dict[int, dict[str, float]] = {}  # of values that a kernel needs

    def __getitem__(self, name: str) -> Known:
        if name not in self._known:
            lines = map(instruction_of, self.bodies.get(name, ()))
            self._known[name] = {one.name: one for one in lines if one is not None}
        return self._known[name]

    def kernel(self, fusion: Instruction) -> Known:
        """What a fusion computes."""
        return self[fusion.called["calls"][0]]


def _walk(
    program: _Program, name: str, times: float, *, looped: bool, branched: bool
) -> Iterator[tuple[Moved, bool]]:
    """Every instruction that runs and moves something, and whether the loop of unknown length repeats it."""
    known = program[name]
    for one in known.values():
        called = [part for parts in one.called.values() for part in parts]
        if one.opcode == "while":
            trips = trip_count(one.line, program.bodies)
            for part in called:
                inside = looped or trips is None
                yield from _walk(program, part, times * (trips or 1), looped=inside, branched=branched)
        elif one.opcode == "conditional":
            branches = [list(_walk(program, part, times, looped=looped, branched=True)) for part in called]
            yield from (min if branched else max)(branches, key=lambda found: sum(x.bytes for x, _ in found))
        elif one.opcode == "call":
            for part in called:
                yield from _walk(program, part, times, looped=looped, branched=branched)
        elif one.opcode not in NAMES:
            size = times * (_read(program, one, known) + _written(program, one, known))
            origin = one.line.partition('op_name="')[2].partition('"')[0]
            yield Moved(name=one.name, opcode=one.opcode, shape=one.shape, origin=origin, bytes=size), looped


def _read(program: _Program, one: Instruction, known: Known) -> float:
    """Bytes that an instruction reads of its operands, each of them at most once."""
    operands = [name for name in dict.fromkeys(one.operands) if name in known]
    return sum(known[name].bytes * min(1.0, _share(program, one, name, known, 1.0)) for name in operands)


def _share(program: _Program, one: Instruction, operand: str, known: Known, wanted: float) -> float:
    """The share of an operand that an instruction needs for a share of its result."""
    places = [place for place, name in enumerate(one.operands) if name == operand]
    value = known[operand]
    if one.opcode == "fusion":
        kernel = program.kernel(one)
        inputs = [x.name for x in kernel.values() if x.opcode == "parameter" and int(x.inside) in places]
        return sum(_used(program, name, kernel) for name in inputs)
    if places == [0] and one.opcode in CUTS:
        return wanted * one.elements / max(value.elements, 1)
    if places == [0] and one.opcode in PUTS:
        put = known[one.operands[PUTS[one.opcode]]]
        return put.bytes / max(value.bytes, 1) if _adds(program, one) else 0.0
    # Value by value, or sums over whole axes: a part of the result is that of a part.
    partly = one.elements == value.elements or (one.opcode == "reduce" and places[0] == 0)
    return wanted if partly else 1.0


def _used(program: _Program, name: str, kernel: Known) -> float:
    """The share of a value inside of a kernel that the kernel needs."""
    known = program.shares.setdefault(id(kernel), {})
    if name not in known:
        users = [one for one in kernel.values() if name in one.operands]
        shares = [_share(program, one, name, kernel, _used(program, one.name, kernel)) for one in users]
        known[name] = 1.0 if kernel[name].root else min(1.0, sum(shares))
    return known[name]


def _adds(program: _Program, put: Instruction) -> bool:
    """Whether what is put somewhere is computed with what stood there."""
    if "to_apply" not in put.called:
        return False
    return _root(program[put.called["to_apply"][0]]).opcode != "parameter"


def _written(program: _Program, one: Instruction, known: Known) -> float:
    """Bytes that an instruction writes."""
    if one.opcode == "fusion":
        return _result(program, _root(program.kernel(one)), program.kernel(one))
    if one.opcode in PUTS:
        return known[one.operands[PUTS[one.opcode]]].bytes
    if one.opcode == "custom-call" and "__cublas" in one.line:
        return one.bytes - sum(shape_bytes(*workspace) for workspace in SHAPE.findall(one.shape)[1:])
    return one.bytes


def _result(program: _Program, one: Instruction, kernel: Known) -> float:
    """Bytes that a kernel writes for a value that it returns."""
    if one.opcode == "fusion":
        return _result(program, _root(program.kernel(one)), program.kernel(one))
    if one.opcode in SAME:
        return sum(_result(program, kernel[name], kernel) for name in one.operands)
    if one.opcode in PUTS:
        into = kernel[one.operands[0]]
        while into.opcode in SAME:
            into = kernel[into.operands[0]]
        if into.opcode == "parameter":  # else the kernel has made what it updates
            return kernel[one.operands[PUTS[one.opcode]]].bytes
    return one.bytes


def _root(known: Known) -> Instruction:
    return next(one for one in known.values() if one.root)
