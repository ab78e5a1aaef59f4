"""Controls at equal cost: the totals of a finished run, round by round, as the budget of another.

A budget is kept in the phase's record, by its name: {"pairs": {"asked": 558, "reached": 558}}.
"""

from pathlib import Path
from typing import Any

from coevo_jax.config.options import BudgetConfig, Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.recipe_queries import lead_of
from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.hosts.processes import Processes
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import Manifest, read_manifest

Budget = dict[str, dict[str, int]]  # name of a total -> what was asked for and what was reached


def resolve_budget(config: Config, processes: Processes | None = None) -> Config:
    """The config with the totals of `budget.run` in its place; the same config where it names no run.

    Process 0 reads them for all.

    Raises:
      ConfigError: the folder is no run, or one that is not finished, has another number of rounds, or learned
        or explored nothing in a round.
    """
    run = config.budget.run
    if run is None or config.rounds == 0:
        return config
    processes = processes or Processes()
    totals = processes.once("budget", lambda: _totals_of(Path(run), config))
    budget = validate(BudgetConfig, totals, run, "budget")
    return config.model_copy(update={"budget": budget})


def asked_of(config: Config, phase: Phase, name: str) -> int | None:
    """The total of a name that the phase is to reach; None where there is no budget of it."""
    totals: dict[str, Any] = dict(config.budget)
    known = phase.agent == lead_of(config.recipe) and totals[name] is not None
    return totals[name][phase.round - 1] if known else None


def budget_words(budget: Budget) -> str:
    """What was reached of what was asked for, for people; "" without a budget."""
    words = [
        f"{both['reached']:,} of {both['asked']:,} {name.replace('_', ' ')} asked for"
        + (", too few" if both["reached"] < both["asked"] else "")
        for name, both in budget.items()
    ]
    return "; ".join(words)


def _totals_of(folder: Path, config: Config) -> dict[str, list[int]]:
    """The totals that budget.match names, one per round."""
    try:
        manifest = read_manifest(folder)
    except ConfigError as error:
        raise ConfigError(f"budget.run: {error}") from None
    theirs = load_resolved(folder / CONFIG_FILE)
    if theirs.rounds != config.rounds:
        raise ConfigError(
            f"budget.run: {folder}: found {theirs.rounds} rounds, expected {config.rounds} as in this config"
        )
    for phase in schedule(theirs):
        if manifest.record(phase.name) is None:
            raise ConfigError(
                f"budget.run: {folder}: found no {phase.name}, expected a finished run; finish it with "
                f"--resume {folder}"
            )
    rounds = range(1, theirs.rounds + 1)
    totals = {
        name: [_total(folder, theirs, manifest, name, number) for number in rounds]
        for name in config.budget.match
    }
    for name, values in totals.items():
        if min(values) < 1:
            number = 1 + values.index(min(values))
            raise ConfigError(f"budget.run: {folder}: found 0 {name} in round {number}, expected 1 or more")
    return totals


def _total(folder: Path, config: Config, manifest: Manifest, name: str, number: int) -> int:
    """What a finished run took of something in a round: its lead's pairs, or all agents' tokens."""
    kind, key = {
        "pairs": ("learn", "pairs"),
        "explored_tokens": ("explore", "agent_tokens"),
        "learned_tokens": ("learn", "learned_tokens"),
    }[name]
    total, lead = 0, lead_of(config.recipe)
    for phase in schedule(config):
        if phase.round != number or phase.kind != kind or (name == "pairs" and phase.agent != lead):
            continue
        record = manifest.record(phase.name)
        records = {} if record is None else record.records
        if key not in records:
            raise ConfigError(
                f"budget.run: {folder}: found no {key} in the record of {phase.name}; it was made by another "
                "version"
            )
        if name == "pairs":
            total += sum(pairs["count"] for pairs in records["pairs"]) - records["dropped_pairs"]
        else:
            total += records[key]
    return total
