"""Compile the programs of a run for a machine, and hold what they need against what it has."""

import re
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace

import jax

from coevo_jax.config.options import Config
from coevo_jax.machine.chips import GIB, Machine
from coevo_jax.machine.costs import Cost, cost_of
from coevo_jax.preflight.arrays import array_bytes, bytes_per_device
from coevo_jax.preflight.collectives import BETWEEN_SLICES, Traffic, collectives
from coevo_jax.preflight.compiled import CompiledPhase, Program
from coevo_jax.preflight.moved import movements
from coevo_jax.preflight.plan import Plan, plan_programs

QUICK = -1.0  # the compiler's effort for fast code, from -1 to 1
LARGEST = 6  # arrays that are named where memory is short


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Time of a program's call if each part ran alone at the chip's published rate."""

    compute: float
    memory: float
    links: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(
            compute=self.compute + other.compute,
            memory=self.memory + other.memory,
            links=self.links + other.links,
        )

    @property
    def total(self) -> float:
        """With nothing overlapped: published rates are never reached, overlap makes up for some of it."""
        return self.compute + self.memory + self.links


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a program needs on a chip, and what it costs."""

    program: Program
    resident: int  # bytes: what lies in memory while it runs, its arguments among them
    own: int  # bytes beside them: temporaries, results, its batch, the compiler's padding
    traffic: tuple[Traffic, ...]
    cost: Cost
    seconds: Seconds | None  # None: the chip's rates are not known
    compile_seconds: float
    refusal: str | None = None  # the compiler's words where the program alone does not fit
    held: int = 0  # bytes of the resident groups that are among its arguments
    moved: float | None = None  # bytes that a pass of decode's loop reads and writes; None: not counted

    @property
    def peak(self) -> int:
        return self.resident + self.own


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """The programs of a phase with the memory that each needs."""

    phase: CompiledPhase
    results: tuple[Result, ...]

    @property
    def peak(self) -> int:
        return max(result.peak for result in self.results)


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """A run on a machine: every phase with its programs."""

    plan: Plan
    phases: tuple[PhaseResult, ...]

    @property
    def machine(self) -> Machine:
        return self.plan.machine

    @property
    def fits(self) -> bool:
        refused = any(result.refusal for phase in self.phases for result in phase.results)
        return not refused and all(phase.peak <= self.machine.memory for phase in self.phases)

    def of(self, config: Config) -> "Preflight":
        """The same figures for a run with the same programs, over other tasks."""
        return replace(self, plan=replace(self.plan, config=config))

    def result(self, name: str) -> Result | None:
        """The program of a name, such as "DPO step", in whichever phase."""
        found = [one for phase in self.phases for one in phase.results if one.program.name == name]
        return found[0] if found else None


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says of a program, on a chip."""

    arguments: int  # bytes
    own: int  # bytes: results that are no argument's buffers, temporaries
    traffic: tuple[Traffic, ...]
    seconds: float
    refusal: str | None = None
    moved: float | None = None  # bytes that a pass of its loop reads and writes


def set_effort(*, quick: bool) -> None:
    """How hard the compiler looks for fast code, for all that this process compiles from now on."""
    if "jax_exec_time_optimization_effort" in jax.config.values:
        jax.config.update("jax_exec_time_optimization_effort", QUICK if quick else 0.0)
    else:  # from jax 0.11 on
        jax.config.update("jax_optimization_level", "O0" if quick else "UNKNOWN")


def preflight(
    config: Config,
    machine: Machine,
    say: Callable[[str], None] = lambda _: None,
    *,
    thorough: bool = False,
    played: MutableMapping[str, Compiled] | None = None,
) -> Preflight:
    """Compile every program of a run for a machine.

    Args:
      say: told of each program before it is compiled.
      played: what was compiled, by name, of the programs that play episodes: they do not depend on the
        machine around a copy's devices. Taken from here, and added.
      thorough: let the compiler work as hard as in a run. Otherwise it is told not to look for the fastest
        code, which takes a fifth of the time; where both were measured, temporaries differed by 2 %.

    Raises:
      ConfigError: the config cannot run on the machine at all (see `plan_programs`).
    """
    prepare_compiler(thorough=thorough)
    plan = plan_programs(config, machine)
    phases = []
    alike: dict[str, Compiled] = {}
    for phase in plan.phases:
        results = []
        for program in phase.programs:
            known, name = (played, program.name) if program.playing else (alike, program.compiled_as)
            compiled = known.get(name) if known is not None else None
            if compiled is None:
                say(f"{phase.name}: {program.name}")
                compiled = _compile(plan, program)
            if known is not None and name:
                known[name] = compiled
            results.append(_measure(plan, phase, program, compiled))
        phases.append(PhaseResult(phase=phase, results=tuple(results)))
    return Preflight(plan=plan, phases=tuple(phases))


def prepare_compiler(*, thorough: bool = False) -> None:
    """Set JAX up for programs that are compiled to be looked at."""
    jax.config.update("jax_enable_compilation_cache", False)  # a stored program has no text to read
    set_effort(quick=not thorough)


def check_program(plan: Plan, phase_name: str, name: str) -> Result:
    """Compile one program of a plan."""
    phase = next(one for one in plan.phases if one.name == phase_name)
    program = next(one for one in phase.programs if one.name == name)
    return _measure(plan, phase, program, _compile(plan, program))


def largest_arrays(phase: CompiledPhase) -> list[tuple[str, int]]:
    """The largest resident arrays of a phase, by group and path, with their bytes on a device."""
    arrays = []
    for group, tree in phase.resident.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays.append((f"{group} {leaf_name(path)}", array_bytes(leaf)))
    return sorted(arrays, key=lambda array: -array[1])[:LARGEST]


def leaf_name(path: tuple[object, ...]) -> str:
    """A leaf's place in its tree: "layers/gate"."""
    parts = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return "/".join(str(part) for part in parts)


def _compile(plan: Plan, program: Program) -> Compiled:
    started = time.monotonic()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = _used(str(error), plan.machine)
        seconds = time.monotonic() - started
        return Compiled(arguments=used, own=0, traffic=(), seconds=seconds, refusal=str(error))
    memory = compiled.memory_analysis()
    assert memory is not None
    results, text = memory.output_size_in_bytes - memory.alias_size_in_bytes, compiled.as_text() or ""
    counted = program.work == "decode" and plan.machine.platform == "gpu" and not plan.machine.stand_in
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        own=results + memory.temp_size_in_bytes,
        traffic=collectives(text, _chips(plan, program)),
        seconds=time.monotonic() - started,
        moved=movements(text).of_a_pass if counted else None,
    )


def _measure(plan: Plan, phase: CompiledPhase, program: Program, compiled: Compiled) -> Result:
    away = (*program.frees, *program.yields)
    resident = sum(bytes_per_device(tree) for name, tree in phase.resident.items() if name not in away)
    held = sum(bytes_per_device(phase.resident[name]) for name in program.holds if name in phase.resident)
    cost = cost_of(
        program.work,
        plan.config,
        plan.vocab_size,
        trained=program.trained,
        prefill_rows=plan.prefill_rows,
    )
    return Result(
        program=program,
        resident=resident,
        own=max(compiled.arguments - held + compiled.own, 0),
        traffic=compiled.traffic,
        cost=cost,
        seconds=_seconds(plan.machine, cost, compiled.traffic, _chips(plan, program)),
        compile_seconds=compiled.seconds,
        refusal=compiled.refusal,
        held=held,
        moved=compiled.moved,
    )


def _chips(plan: Plan, program: Program) -> int:
    """Chips that work on a program together."""
    return plan.rollouts.mesh.size if program.playing else plan.learning.mesh.size


def _used(refusal: str, machine: Machine) -> int:
    """Bytes that the compiler found a program to need."""
    # Two ways of the compiler to say it: of all programs together, and of this one alone.
    found = re.search(r"(?:Used |required for [\w ]+\()([\d.]+)([KMGT])\b", refusal)
    scale = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    return int(float(found[1]) * scale[found[2]]) if found else machine.memory + 1


def _seconds(machine: Machine, cost: Cost, traffic: tuple[Traffic, ...], chips: int) -> Seconds | None:
    chip = machine.chip
    if chip is None:
        return None
    # What goes between hosts of GPUs is in the same collectives: all of them at the network's rate.
    link = chip.network if chip.network and machine.platform == "gpu" and machine.hosts > 1 else chip.link
    beyond = chip.network or chip.link
    return Seconds(
        compute=cost.flops / chips / chip.flops,
        memory=cost.traffic / chips / chip.bandwidth,
        links=sum(one.wire_bytes / (beyond if one.kind == BETWEEN_SLICES else link) for one in traffic),
    )
