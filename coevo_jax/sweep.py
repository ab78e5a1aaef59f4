"""One config over losses, betas and seeds: which runs that makes, and running them one after the other."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.coevolution import coevolve, collect_results
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.check import check
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.recipe import LossTerms
from coevo_jax.config.recipe_queries import lead_of, learners_of, learnings_of
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.learning.agent_loss import agent_losses
from coevo_jax.phases.fault_watch import AgentBroken
from coevo_jax.phases.world import check_world
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.folder import CONFIG_FILE, first_difference
from coevo_jax.run_folder.fork import find_source, fork_run
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.results import Results
from coevo_jax.run_folder.run import Run, create_run, open_run
from coevo_jax.training.watched import LearningDiverged


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    loss: str  # as it was written
    beta: float | None  # None: the config's own, round by round
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.runs_dir) / self.config.name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    how: str  # "ran", "resumed", "forked" (began with another run's warm start) or "reused"
    results: Results  # as far as the run came
    diverged: str | None  # where and why the run broke off


def parse_loss(text: str) -> LossTerms:
    """A loss as it is written on a command line: a name, module:function, or "sigmoid=0.8,sft=0.2".

    Raises:
      ConfigError: a mixture whose weights are not numbers above 0, or that names a loss twice.
    """
    if "=" not in text:
        return text
    terms: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            terms[name.strip()] = float(weight)
        except ValueError:
            raise ConfigError(f"--losses {text}: found {part!r}, expected NAME=WEIGHT") from None
    if len(terms) < text.count(",") + 1:
        raise ConfigError(f"--losses {text}: names a loss twice")
    if not all(math.isfinite(weight) and weight > 0 for weight in terms.values()):
        raise ConfigError(f"--losses {text}: expected weights above 0")
    return terms


def plan_sweep(
    base: Config, *, agent: str | None, losses: Sequence[str], betas: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """Every run of the sweep, seed by seed, each checked as `launch.train` checks its config.

    `loss_options` of the base reach the losses they name; a loss without options of its own takes none.

    Args:
      agent: whose loss it is, by the recipe's name; "all" for every agent that learns, None for the one that
        the run is about.

    Raises:
      ConfigError: the first run that could not be, or a folder that holds a run of another config.
    """
    agent = agent or lead_of(base.recipe)
    agents = swept_agents(base, agent)
    for name in agents:
        _check_agent(base, name)
    if any(not math.isfinite(beta) or beta <= 0 for beta in betas):
        raise ConfigError(f"--betas: found {list(betas)}, expected numbers above 0")
    if any(seed < 0 for seed in seeds):
        raise ConfigError(f"--seeds: found {list(seeds)}, expected none below 0")
    named = {text: parse_loss(text) for text in losses}
    for name in agents:
        _check_options(base.agents[name], name, named)
    cells = [
        Cell(loss=text, beta=beta, seed=seed, config=_config(base, agent, text, named[text], beta, seed))
        for seed in dict.fromkeys(seeds)
        for text in named
        for beta in (dict.fromkeys(betas) or (None,))
    ]
    for cell in cells:
        check(cell.config, cell.config.name)
        agent_losses(cell.config)
        _check_folder(cell)
    check_world(cells[0].config)
    return cells


def run_sweep(
    cells: Sequence[Cell],
    before: Callable[[int, Cell], None] = lambda number, cell: None,
    after: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run every cell: finished runs are reused, interrupted ones resumed, a diverged one is only noted.

    Runs of a seed share the warm start and the first exploration, which no loss has a part in.

    Raises:
      Stopped: a signal asked to end; the run under way has committed what it had done.
    """
    outcomes = []
    for number, cell in enumerate(cells, start=1):
        before(number, cell)
        outcomes.append(_run_cell(cell, [c.folder for c in cells if c.seed == cell.seed]))
        after(outcomes[-1])
    return outcomes


def _run_cell(cell: Cell, relatives: Sequence[Path]) -> Outcome:
    run, how = _open(cell, relatives)
    try:
        if how == "reused":
            return Outcome(cell=cell, how=how, results=collect_results(run), diverged=None)
        try:
            with run.stop:
                return Outcome(cell=cell, how=how, results=coevolve(run), diverged=None)
        except (LearningDiverged, AgentBroken) as error:
            return Outcome(cell=cell, how=how, results=collect_results(run), diverged=str(error))
    finally:
        run.close()


def _open(cell: Cell, relatives: Sequence[Path]) -> tuple[Run, str]:
    if cell.folder.exists():
        run = open_run(cell.folder)
        finished = all(run.manifest.record(phase.name) for phase in schedule(cell.config))
        return run, "reused" if finished else "resumed"
    source = find_source(relatives, cell.config)
    return (create_run(cell.config), "ran") if source is None else (fork_run(source, cell.config), "forked")


def swept_agents(base: Config, agent: str) -> tuple[str, ...]:
    """The agents that a word names.

    Raises:
      ConfigError: no such agent learns.
    """
    learners = learners_of(base.recipe)
    if agent == "all":
        return learners
    if agent not in learners:
        raise ConfigError(f"--agent {agent}: no such agent learns{nearest(agent, [*learners, 'all'])}")
    return (agent,)


def _config(base: Config, agent: str, text: str, terms: LossTerms, beta: float | None, seed: int) -> Config:
    words = [base.name, agent, _folder_words(text), *([] if beta is None else [f"beta{beta:g}"])]
    method = text if beta is None else f"{text}, beta {beta:g}"
    own = {name: _agent_config(base.agents[name], terms, beta) for name in swept_agents(base, agent)}
    new = {"name": "-".join([*words, f"seed{seed}"]), "method": method, "seed": seed}
    return base.model_copy(update=new | {"agents": base.agents | own})


def _agent_config(learn: AgentConfig, terms: LossTerms, beta: float | None) -> AgentConfig:
    names = {terms} if isinstance(terms, str) else set(terms)
    options = {name: values for name, values in learn.loss_options.items() if name in names}
    update: dict[str, Any] = {"loss": terms, "loss_options": options}
    return learn.model_copy(update=update if beta is None else update | {"beta": (beta,)})


def _folder_words(text: str) -> str:
    """A loss as a part of a folder's name: "sigmoid0.8+sft0.2", "my_pkg.my_mod.my_loss"."""
    return re.sub(r"[^A-Za-z0-9_.+-]", ".", text.replace(" ", "").replace("=", "").replace(",", "+"))


def _check_agent(base: Config, name: str) -> None:
    sources = [source for learning in learnings_of(base.recipe, name) for source in learning.pairs]
    preferring = [source for source in sources if source.dpo > 0]
    if base.rounds == 0 or not preferring:
        why = "rounds is 0" if base.rounds == 0 else f"the {name} agent learns from no pairs"
        raise ConfigError(f"--agent {name}: {why}, so no preference loss would be used")
    for source in preferring:
        if source.loss is not None:
            raise ConfigError(
                f"recipe: loss of {source.label} is {source.loss!r}: it would not follow the sweep; set it "
                "to null"
            )


def _check_options(learn: AgentConfig, name: str, losses: dict[str, LossTerms]) -> None:
    used = {part for terms in losses.values() for part in ([terms] if isinstance(terms, str) else terms)}
    for loss in learn.loss_options:
        if loss not in used:
            raise ConfigError(
                f"agents.{name}.loss_options.{loss}: no loss of the sweep ({', '.join(sorted(used))})"
            )


def _check_folder(cell: Cell) -> None:
    if not cell.folder.exists():
        return
    read_manifest(cell.folder)
    found = load_resolved(cell.folder / CONFIG_FILE)
    moved = {"runs_dir": cell.config.runs_dir}  # or mounted elsewhere, it is the same run
    difference = first_difference(cell.config.model_dump(), found.model_dump() | moved)
    if difference is not None:
        key, ours, theirs = difference
        raise ConfigError(
            f"{cell.folder}: holds a run of another config ({key}: found {theirs!r}, this sweep has "
            f"{ours!r}); choose another name=NAME or runs_dir=FOLDER"
        )
