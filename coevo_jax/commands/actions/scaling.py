"""Measure the cells of docs/scaling.md, and write its tables."""

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import require_writable, write_whole
from coevo_jax.machine.chips import find_machine
from coevo_jax.preflight.fits import Compiled
from coevo_jax.preflight.scaling import (
    CHIPS,
    ROW_LENGTHS,
    SLICES,
    Figures,
    FsdpCell,
    GridCell,
    cell_config,
    measure,
    measure_fsdp,
)
from coevo_jax.preflight.scaling_tables import tables
from coevo_jax.progress import CONSOLE
from coevo_jax.report.markdown import replace_table

PAPER = Path("configs") / "paper"
MODELS = ("qwen3-0.6b", "qwen3-4b", "llama31-8b", "qwen3-32b", "llama31-70b")
FSDP_MODELS = (
    ("v5p", "llama31-8b"),
    ("v5p", "llama31-70b"),
    ("v5e", "llama31-8b"),
    ("v6e", "llama31-8b"),
)


def config_of(model: str) -> Path:
    """The smallest named config of a model: which it is does not matter, its tasks are set per benchmark."""
    found = sorted(PAPER.glob(f"{model}-*.yaml"))
    if not found:
        raise ConfigError(f"{PAPER}: no config of {model}; run this in the repository's root")
    return found[0]


def cells() -> Iterator[GridCell]:
    """Every point of the grid of models and chips."""
    for trained in SLICES:
        for model in MODELS:
            for chips in CHIPS[trained]:
                yield GridCell(config=config_of(model), trained=trained, chips=chips)


def fsdp_cells() -> Iterator[FsdpCell]:
    """The points at which FSDP becomes bound by communication."""
    for chip, model in FSDP_MODELS:
        for length in ROW_LENGTHS:
            yield FsdpCell(config=config_of(model), chip=chip, row_length=length)


def fill(file: Path) -> dict[str, Figures]:
    """Measure what a file of figures lacks, writing it after every cell."""
    known: dict[str, Figures] = json.loads(file.read_text()) if file.exists() else {}
    played: dict[tuple[object, ...], dict[str, Compiled]] = {}

    order = ["versions", *(cell.key for cell in [*cells(), *fsdp_cells()])]

    def ordered() -> dict[str, Figures]:
        """As the page has them, whatever was measured first."""
        return {key: known[key] for key in order if key in known}

    def grid_cell(cell: GridCell) -> Figures:
        machine = find_machine(cell.topology)
        rollout = cell_config(cell, machine).rollout
        alike = (cell.config, cell.trained, rollout.tensor, rollout.slots)
        return measure(cell, played.setdefault(alike, {}), _say)

    def add(key: str, work: Callable[[], Figures]) -> None:
        if key in known:
            return
        CONSOLE.print(key)
        known[key] = work()
        write_whole(file, json.dumps(ordered(), indent=1) + "\n")

    try:
        versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"{error}; it comes with pip install -r requirements-tpu.txt") from None
    add("versions", lambda: versions)
    if known["versions"] != versions:
        raise ConfigError(f"{file}: made with {known['versions']}, found {versions}; start again with --anew")
    for cell in cells():
        add(cell.key, lambda cell=cell: grid_cell(cell))
    for cell in fsdp_cells():
        add(cell.key, lambda cell=cell: measure_fsdp(cell))
    return ordered()


def _say(words: str) -> None:
    CONSOLE.print(f"  compiling {words}", style="dim")


def write_tables(page: Path, *, anew: bool) -> None:
    """Measure what the page's figures lack, and write its tables; `anew` forgets the figures."""
    file = page.with_suffix(".json")
    for path in (page, file):
        require_writable(path)  # before hours of compiling, not after
    if anew:
        file.unlink(missing_ok=True)
    for name, text in tables(fill(file)):
        replace_table(name, text, page)
