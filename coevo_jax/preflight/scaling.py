"""How memory, time and cost grow with chips and with the model: the paper's recipe, checked cell by cell.

A cell is one preflight (`check`): a model, what of it is trained, and a slice. Its figures are plain values,
so that they can be kept in a file and written up again.
"""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.machine.chips import GIB, Machine, find_machine, shape_of
from coevo_jax.machine.costs import WIDTH, whole_weights
from coevo_jax.preflight.arrays import bytes_per_device
from coevo_jax.preflight.fits import Compiled, Preflight, Seconds, check_program, preflight, prepare_compiler
from coevo_jax.preflight.plan import plan_programs, vocabulary
from coevo_jax.preflight.run_time import RunTime, estimate_run

Figures = dict[str, Any]
Say = Callable[[str], None]

ROWS = 16  # the paper's step: 32 pairs of 32 trajectories, two of them to a row
SLICES = {"all": "v5p", "adapters": "v5e"}  # what is trained, and the chip it is checked on
CHIPS = {"all": (4, 16, 32, 64, 256), "adapters": (4, 16, 64, 256)}
ADAPTERS = "{rank: 16, alpha: 32, warm_start: adapter, base_dtype: bfloat16}"
COPY_SHARE = 0.5  # of a chip's memory that copies for roll-outs may take
CACHE_SHARE = 0.2  # and the slots' KV cache
MOST_SLOTS = 16

# Where FSDP turns bound by communication: one row a chip, shorter and shorter.
FSDP_CHIPS = 64
ROW_LENGTHS = (4096, 1024, 512, 256)

# The tasks of the paper's benchmarks, as ETO counts them, and ETO itself on a co-evolution config.
BENCHMARKS = {"WebShop": (1938, 200), "ScienceWorld": (1483, 211), "InterCode-SQL": (621, 281)}
ETO = ("method=eto", "recipe=eto")


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One point of the grid."""

    config: Path
    trained: str  # "all" or "adapters"
    chips: int

    @property
    def topology(self) -> str:
        return slice_of(SLICES[self.trained], self.chips)

    @property
    def key(self) -> str:
        return f"{self.config.stem} {self.trained} {self.topology}"


@dataclass(frozen=True, kw_only=True)
class FsdpCell:
    """One point of the search for FSDP's end: a full step over FSDP_CHIPS chips with rows of a length."""

    config: Path
    chip: str
    row_length: int

    @property
    def key(self) -> str:
        return f"{self.config.stem} {self.chip} rows of {self.row_length}"


def slice_of(chip: str, chips: int) -> str:
    """The topology of a chip with so many of them."""
    return f"{chip}:{shape_of(chip, chips)}"


def cell_config(cell: GridCell, machine: Machine, *overrides: str) -> Config:
    """The run of a cell: the paper's step, FSDP up to a row a chip, tensor parallelism beyond."""
    fsdp = min(cell.chips, ROWS)
    lora = ADAPTERS if cell.trained == "adapters" else "null"
    recipe = [
        *("mesh.data=1", f"mesh.fsdp={fsdp}", f"mesh.tensor={cell.chips // fsdp}"),
        *(f"batch.rows={ROWS}", "batch.pairs=64", f"model.lora={lora}", "explore.together=true"),
        *overrides,
    ]
    config = load_config(cell.config, [*recipe, "rollout.tensor=1", "rollout.slots=1"])
    tensor, slots = roll_out_size(config, machine)
    return load_config(cell.config, [*recipe, f"rollout.tensor={tensor}", f"rollout.slots={slots}"])


def roll_out_size(config: Config, machine: Machine) -> tuple[int, int]:
    """Chips of a copy for roll-outs, and slots: one host's, or those of several where a copy is too big."""
    model, limit = config.model, machine.memory
    width = WIDTH[model.dtype]
    lanes = 1 if model.lora is not None else 2  # adapters play on one copy, side by side
    copies = lanes * width * whole_weights(model, vocabulary(config))
    tensor = min(4, len(machine.devices))
    while copies / tensor > COPY_SHARE * limit and tensor < len(machine.devices):
        tensor *= 2
    parts = min(tensor, model.num_kv_heads)  # chips that are more than these heads share them
    token = 2 * width * model.num_layers * model.num_kv_heads * model.head_dim
    slot = lanes * token * config.rollout.max_tokens / parts
    slots = MOST_SLOTS
    while slots > 1 and slots * slot > CACHE_SHARE * limit:
        slots //= 2
    return tensor, slots


def measure(cell: GridCell, played: MutableMapping[str, Compiled], say: Say) -> Figures:
    """The figures of a cell.

    Args:
      played: programs compiled for the same model and copy on a smaller slice of the same chip.
    """
    machine = find_machine(cell.topology)
    config = cell_config(cell, machine)
    figures = _head(cell, config, machine)
    plan = plan_programs(config, machine)
    resident = {
        phase.name: sum(bytes_per_device(tree) for tree in phase.resident.values()) / GIB
        for phase in plan.phases
    }
    figures |= {"resident_gib": resident, "fits": False, "peak_gib": None, "step": None, "runs": None}
    if resident["learning"] * GIB > machine.memory:
        return figures  # the compiler could only say the same
    result = preflight(config, machine, say, played=played)
    refused = any(one.refusal for one in result.phases[-1].results)
    return figures | {
        "fits": result.fits,
        "peak_gib": {phase.phase.name: phase.peak / GIB for phase in result.phases},
        "step": None if refused else _seconds_record(_step(result)),
        "sent_gib": sum(one.wire_bytes for one in _result(result, "DPO microbatch").traffic) / GIB,
        "runs": None
        if not result.fits
        else {name: _costs(cell, result, *x) for name, x in BENCHMARKS.items()},
    }


def measure_fsdp(cell: FsdpCell) -> Figures:
    """Seconds of a DPO microbatch's parts where every chip has one row of its own."""
    prepare_compiler()
    machine = find_machine(slice_of(cell.chip, FSDP_CHIPS))
    config = load_config(
        cell.config,
        [
            *("mesh.data=1", f"mesh.fsdp={FSDP_CHIPS}", "mesh.tensor=1", f"batch.rows={FSDP_CHIPS}"),
            *(f"batch.row_length={cell.row_length}", f"rollout.max_tokens={cell.row_length}"),
            *("rollout.max_turn_tokens=64", "batch.pairs=64", "model.lora=null", "rollout.tensor=4"),
        ],
    )
    result = check_program(plan_programs(config, machine), "learning", "DPO microbatch")
    assert result.seconds is not None
    return {
        "model": model_name(cell.config),
        "chip": cell.chip,
        "tokens": cell.row_length,
        "refused": result.refusal is not None,
        **_seconds_record(result.seconds),
        "sent_gib": sum(one.wire_bytes for one in result.traffic) / GIB,
    }


def model_name(config: Path) -> str:
    """ "llama31-8b" of configs/paper/llama31-8b-webshop.yaml."""
    return "-".join(config.stem.split("-")[:2])


def _head(cell: GridCell, config: Config, machine: Machine) -> Figures:
    mesh = config.mesh
    return {
        "model": model_name(cell.config),
        "weights": whole_weights(config.model, vocabulary(config)),
        "trained": cell.trained,
        "topology": cell.topology,
        "chips": cell.chips,
        "mesh": [mesh.data, mesh.fsdp, mesh.tensor],
        "rollout": {"tensor": config.rollout.tensor, "slots": config.rollout.slots},
        "memory_gib": machine.memory / GIB,
    }


def _result(result: Preflight, name: str):
    found = result.result(name)
    assert found is not None
    return found


def _step(result: Preflight) -> Seconds:
    """A step is one microbatch here, and the update."""
    parts = [_result(result, name).seconds for name in ("DPO microbatch", "DPO update")]
    micro, update = parts
    assert micro is not None and update is not None
    return micro + update


def _seconds_record(seconds: Seconds) -> dict[str, float]:
    return {"compute": seconds.compute, "memory": seconds.memory, "links": seconds.links}


def _costs(cell: GridCell, result: Preflight, tasks: int, evaluated: int) -> dict[str, dict[str, float]]:
    """Chip-hours of a whole run over a benchmark's tasks: co-evolution by agent, and ETO."""
    slices = (f"warm_start.tasks=0:{tasks}", f"explore.tasks=[0:{tasks}]", f"evaluate.tasks=0:{evaluated}")
    costs = {}
    for method, overrides in (("coevo", ()), ("eto", ETO)):
        config = cell_config(cell, result.machine, *slices, *overrides)
        run = estimate_run(result.of(config))
        assert run is not None
        costs[method] = dict(_parts(run))
    return costs


def _parts(run: RunTime) -> Iterator[tuple[str, float]]:
    yield "warm_start", run.chip_hours_of(run.warm_start)
    for name, agent in run.agents.items():
        yield f"{name}_roll_outs", run.chip_hours_of(agent.roll_outs)
        yield f"{name}_learning", run.chip_hours_of(agent.learning)
    yield "hours", run.total / 3600
