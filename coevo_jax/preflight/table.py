"""One table of many configs, each on the machine that its header names."""

import re
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.machine.chips import CHIPS, GIB
from coevo_jax.preflight.fits import Preflight
from coevo_jax.preflight.run_time import ASSUMPTIONS, estimate_run, in_hours
from coevo_jax.report.markdown import has_table, read_rows, replace_table, require_table, table

TOPOLOGY = re.compile(r"\b[a-z]\w+:\d+(?:x\d+)*\b")

# Sections of a config that its programs' shapes come from, whole or in part.
SHAPING = ("model", "mesh", "batch", "optimizer", "rollout")
LEARNING = ("loss", "loss_options", "divergence", "divergence_alpha", "wpo", "reference")

CONFIGS, RATES = "preflight", "preflight-rates"  # names of the tables
PAGE = f"""\
# Does it fit, and what would it take

<!-- table:{CONFIGS} -->
<!-- /table -->

<!-- table:{RATES} -->
<!-- /table -->
"""


def header_topology(path: Path) -> str:
    """The topology that the comment at the head of a config names: "v5e:4x4".

    Raises:
      ConfigError: it names none.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# Needs:") and (found := TOPOLOGY.search(line)):
            return found[0]
    raise ConfigError(f'{path}: the header\'s "Needs:" names no topology such as v5e:4x4')


def same_programs(config: Config, other: Config) -> bool:
    """Whether two runs compile the same programs and hold the same arrays."""

    def shaping(one: Config) -> list[object]:
        agents = [{key: getattr(agent, key) for key in LEARNING} for agent in one.agents.values()]
        sections = [getattr(one, section) for section in SHAPING]
        return [*sections, one.tokenizer, agents, one.recipe, one.rounds > 0]

    return shaping(config) == shaping(other)


def open_page(path: Path) -> None:
    """Make sure that a page can take the table; a file that is not there yet is made.

    Raises:
      ConfigError: the file has no place for it.
    """
    if not path.exists():
        write_whole(path, PAGE)
    require_table(CONFIGS, path)


def write_table(path: Path, rows: Sequence[tuple[Path, Preflight]]) -> None:
    """Write what each config needs and would take into a page, and, where it asks, what that rests on.

    Rows of other configs that stand in the page stay: compiling all of them takes long.
    """
    made = {cells[0]: cells for cells in (_row(file, result) for file, result in rows)}
    kept = {cells[0]: cells for cells in read_rows(CONFIGS, path)}
    replace_table(CONFIGS, _configs(list((kept | made).values())), path)
    if has_table(RATES, path):
        replace_table(RATES, _rates(), path)


def _configs(rows: Sequence[Sequence[str]]) -> str:
    head = ["config", "machine", "fits", "warm start", "roll-outs", "learning", "of"]
    stand_in = [
        "`*`: compiled by the CPU's compiler in place of the GPU's; arrays that stay are exact, temporaries",
        "the CPU's.",
    ]
    return "\n".join(
        [
            table([*head, "DPO step", "run", "chip-hours"], rows),
            "",
            "Compiled for these machines, not run on them. GiB a chip at the fullest moment of each phase,",
            "against what there is. A DPO step is one of the target agent's, all of its microbatches.",
            *(stand_in if any("*" in row[1] for row in rows) else ()),
        ]
    )


def _rates() -> str:
    chips = [
        [
            chip.name,
            f"{chip.memory / GIB:.2f}",
            f"{chip.flops / 1e12:.0f}",
            f"{chip.bandwidth / 1e9:.0f}",
            f"{chip.link / 1e9:.0f}",
            chip.source,
        ]
        for chip in CHIPS.values()
    ]
    head = ["chip", "memory GiB", "bf16 TFLOP/s", "memory GB/s", "links GB/s, one way", "source"]
    assumed = (
        f"Assumed for a whole run: {ASSUMPTIONS}. Times add up compute, memory and links at these rates,"
    )
    return "\n".join(
        [assumed, "nothing overlapped; full rows, all of their tokens scored.", "", table(head, chips)]
    )


def _row(file: Path, result: Preflight) -> list[str]:
    machine, run = result.machine, estimate_run(result)
    peaks = {phase.phase.name: f"{phase.peak / GIB:.1f}" for phase in result.phases}
    phases = [peaks.get(name, "–") for name in ("warm start", "roll-outs", "learning")]
    name = f"{machine.name}{'*' if machine.stand_in else ''} ({len(machine.devices)})"
    times = ("–",) * 3
    if run is not None:
        times = (f"{run.step:.1f} s", f"{in_hours(run.total / 3600)} h", in_hours(run.chip_hours))
    return [
        file.stem,
        name,
        "yes" if result.fits else "**no**",
        *phases,
        f"{machine.memory / GIB:.1f}",
        *times,
    ]
