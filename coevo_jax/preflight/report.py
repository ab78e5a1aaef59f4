"""What a preflight found, as tables for a terminal, as JSON, and as one row of a table of many configs."""

from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coevo_jax.machine.chips import GIB, Machine
from coevo_jax.preflight.arrays import array_bytes, bytes_per_device
from coevo_jax.preflight.fits import PhaseResult, Preflight, Result, largest_arrays, leaf_name
from coevo_jax.preflight.plan import Plan
from coevo_jax.preflight.run_time import ASSUMPTIONS, RunTime, estimate_run, in_hours

TERA = 1e12


def print_preflight(result: Preflight, console: Console) -> None:
    """Tables of memory and cost, what a run would take, and the verdict."""
    _print_machine(result, console)
    for phase in result.phases:
        console.print(_resident_table(phase, result.machine))
        console.print(_programs_table(phase, result.machine))
        for one in phase.results:
            for words in filter(None, (_collectives_words(one), _moved_words(one))):
                console.print(words, soft_wrap=True)
    run = estimate_run(result)
    if run is not None:
        console.print(_run_words(run))
    _print_verdict(result, console)


def sharding_table(plan: Plan) -> Table:
    """Every array of the run: shape, how the mesh splits it, bytes on a device."""
    table = Table(title=f"Arrays on {plan.machine.name}, mesh {_mesh_words(plan)}", title_justify="left")
    table.add_column("array", overflow="fold")
    table.add_column("shape")
    table.add_column("type")
    table.add_column("spec")
    table.add_column("MiB a device", justify="right")
    seen: set[str] = set()
    for phase in plan.phases:
        for group, tree in phase.resident.items():
            if group not in seen:
                seen.add(group)
                _add_arrays(table, group, tree)
    return table


def _add_arrays(table: Table, group: str, tree: Any) -> None:
    table.add_section()
    table.add_row(group, "", "", "", f"{bytes_per_device(tree) / 2**20:,.1f}", style="bold")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        spec = ", ".join(_axis_words(axis) for axis in leaf.sharding.spec) or "everywhere"
        shape = " x ".join(map(str, leaf.shape)) or "scalar"
        table.add_row(leaf_name(path), shape, str(leaf.dtype), spec, f"{array_bytes(leaf) / 2**20:,.2f}")


def _axis_words(axis: Any) -> str:
    if axis is None:
        return "-"
    return axis if isinstance(axis, str) else "+".join(axis)


def _mesh_words(plan: Plan) -> str:
    mesh = plan.config.mesh
    return f"data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor}"


def _print_machine(result: Preflight, console: Console) -> None:
    machine, plan = result.machine, result.plan
    sharing = plan.rollouts.hosts
    where = "each host" if sharing == 1 else f"{sharing} hosts, in lockstep"
    console.print(
        f"{plan.config.name} on {machine.name}: {len(machine.devices)} chips of "
        f"{machine.memory / GIB:.2f} GiB on {machine.hosts} hosts; mesh {_mesh_words(plan)}; roll-outs over "
        f"{plan.rollouts.mesh.size} chips of {where}"
    )
    if machine.chip is not None:
        chip = machine.chip
        console.print(
            f"published rates of a chip: {chip.flops / TERA:,.0f} TFLOP/s bf16, memory "
            f"{chip.bandwidth / 1e9:,.0f} GB/s, links {chip.link / 1e9:,.0f} GB/s ({chip.source})"
        )
    if machine.stand_in:
        console.print(
            "compiled by the CPU's compiler: arrays that stay are exact, temporaries are the CPU's, which "
            "are larger where it computes bfloat16 in float32"
        )


def _resident_table(phase: PhaseResult, machine: Machine) -> Table:
    table = Table(title=f"{phase.phase.name}: resident", title_justify="left", min_width=60)
    table.add_column("arrays")
    table.add_column("GiB a chip", justify="right")
    for group, tree in phase.phase.resident.items():
        table.add_row(group, f"{bytes_per_device(tree) / GIB:.2f}")
    return table


def _programs_table(phase: PhaseResult, machine: Machine) -> Table:
    table = Table(title=f"{phase.phase.name}: programs, a chip", title_justify="left")
    table.add_column("program")
    table.add_column("resident + own GiB", justify="right")
    table.add_column("full", justify="right")
    table.add_column("sent GiB", justify="right")
    table.add_column("model TFLOP, all chips", justify="right")
    for column in ("compute s", "memory s", "links s", "sum s"):
        table.add_column(column, justify="right")
    for result in phase.results:
        share = result.peak / machine.memory if machine.memory else 0.0
        sent = sum(one.wire_bytes for one in result.traffic) / GIB
        table.add_row(
            result.program.name,
            f"{result.resident / GIB:.2f} + {result.own / GIB:.2f}",
            Text(f"{share:.0%}", style="" if share <= 1 and not result.refusal else "bold red"),
            f"{sent:.2f}" if sent else "-",
            f"{result.cost.model_flops / TERA:,.2f}" if result.cost.model_flops else "-",
            *_seconds_cells(result),
        )
    return table


def _collectives_words(result: Result) -> str | None:
    """What a chip sends in one call, by kind; None where it is next to nothing."""
    sent = [
        f"{one.kind} {one.wire_bytes / GIB:.2f} GiB in {one.count:,} calls"
        for one in result.traffic
        if one.wire_bytes > GIB / 1000
    ]
    return f"  {result.program.name} sends {', '.join(sent)}" if sent else None


def _moved_words(result: Result) -> str | None:
    """What the compiled program reads and writes for a token of every slot; None where it is not counted."""
    if result.moved is None:
        return None
    times = result.moved / result.held
    held = " and ".join(result.program.holds)
    return (
        f"  {result.program.name} reads and writes {result.moved / GIB:.2f} GiB for a token of every slot, "
        f"{times:.2f} times its {held}"
    )


def _seconds_cells(result: Result) -> tuple[str, ...]:
    if result.seconds is None or result.cost.traffic == 0:
        return ("-",) * 4
    seconds = result.seconds
    return tuple(f"{one:.3g}" for one in (seconds.compute, seconds.memory, seconds.links, seconds.total))


def _run_words(run: RunTime) -> str:
    whole, warm_start, roll_outs, learning = (
        in_hours(seconds / 3600) for seconds in (run.total, run.warm_start, run.roll_outs, run.learning)
    )
    return (
        f"estimate of the whole run: {whole} h = {in_hours(run.chip_hours)} chip-hours "
        f"(warm start {warm_start} h, roll-outs {roll_outs} h, learning {learning} h); "
        f"a DPO step {run.step:.1f} s.\n"
        f"It adds up times at published rates, nothing overlapped. Assumed: {ASSUMPTIONS}."
    )


def _print_verdict(result: Preflight, console: Console) -> None:
    machine = result.machine
    if result.fits:
        fullest = max(result.phases, key=lambda phase: phase.peak)
        console.print(
            f"It fits: at most {fullest.peak / GIB:.2f} of {machine.memory / GIB:.2f} GiB a chip "
            f"({fullest.phase.name}).",
            style="green",
        )
        return
    for phase in result.phases:
        for program in phase.results:
            if program.refusal is None and program.peak <= machine.memory:
                continue
            console.print(
                f"It does not fit: {phase.phase.name}, {program.program.name}: {program.peak / GIB:.2f} GiB "
                f"a chip, but there are {machine.memory / GIB:.2f}",
                style="bold red",
            )
            console.print(f"  its own (temporaries, results, batch): {program.own / GIB:.2f} GiB")
            for name, size in largest_arrays(phase.phase):
                console.print(f"  {name}: {size / GIB:.2f} GiB", soft_wrap=True)
            if phase.phase.name == "roll-outs" and machine.hosts > 1:
                console.print(
                    "  Roll-outs run on one host's chips, or in lockstep on those of several where "
                    "rollout.tensor is more than one host has: take more rollout.tensor, fewer "
                    "rollout.slots or shorter rollout.max_tokens.",
                    soft_wrap=True,
                )


def record(result: Preflight) -> dict[str, Any]:
    """Plain values of a preflight, for JSON and for tables of many."""
    run = estimate_run(result)
    return {
        "name": result.plan.config.name,
        "machine": result.machine.name,
        "chips": len(result.machine.devices),
        "mesh": _mesh_words(result.plan),
        "memory_gib": result.machine.memory / GIB,
        "fits": result.fits,
        "phases": {
            phase.phase.name: {
                "peak_gib": phase.peak / GIB,
                "resident_gib": {
                    group: bytes_per_device(tree) / GIB for group, tree in phase.phase.resident.items()
                },
                "programs": {one.program.name: _program_record(one) for one in phase.results},
            }
            for phase in result.phases
        },
        "run": None
        if run is None
        else {
            "step_seconds": run.step,
            "warm_start_hours": run.warm_start / 3600,
            "roll_outs_hours": run.roll_outs / 3600,
            "learning_hours": run.learning / 3600,
            "chip_hours": run.chip_hours,
        },
    }


def _program_record(result: Result) -> dict[str, Any]:
    seconds = result.seconds
    return {
        "resident_gib": result.resident / GIB,
        "own_gib": result.own / GIB,
        "refused": result.refusal is not None,  # by the compiler: no chip of this kind holds it
        "model_flops": result.cost.model_flops,
        "moved_gib": None if result.moved is None else result.moved / GIB,
        "collectives": [
            {"kind": one.kind, "calls": one.count, "sent_gib": one.wire_bytes / GIB} for one in result.traffic
        ],
        "seconds": None
        if seconds is None
        else {"compute": seconds.compute, "memory": seconds.memory, "links": seconds.links},
        "compile_seconds": result.compile_seconds,
    }
