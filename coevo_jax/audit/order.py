"""The phases that a config asks for: who plays and learns what, when, under which name.

    the opening     prepare, the warm start, and the evaluation of the agent that it trained
    every round     the recipe's phases, in its order

The agent that a recipe names first is the one that the run is about. All names come from the recipe: a phase
is called by its collection, its learning, its evaluation or its agent, the files of a learning by its round
and itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from coevo_jax.audit.reading import RunFiles
from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.beside import BesideOptions
from coevo_jax.config.hints import HintOptions
from coevo_jax.config.judge import JudgeOptions
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import (
    AskOptions,
    AskPhase,
    BranchOptions,
    BranchPhase,
    ExplorePhase,
    JudgePhase,
    KindWeights,
    LearnPhase,
    PairSource,
    RecipePhase,
    ReinforceSource,
    Source,
)

ALONE = "target"  # who a run is about whose recipe names nobody


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a run, as the audit derives it from the recipe."""

    name: str
    kind: Literal["prepare", "warm_start", "explore", "branch", "ask", "judge", "learn", "evaluate"]
    agent: str
    round: int = 0
    collection: str = ""  # what the shards of a phase that plays are called
    mark: str = ""  # that a phase that plays plays under
    hints: HintOptions | None = field(default=None, compare=False)  # what was suggested while it was played
    learning: str = ""  # what the files of a learning are called, beside its round
    sources: tuple[Source, ...] = field(default=(), compare=False)  # of what is learned
    branching: BranchOptions | None = field(default=None, compare=False)  # where episodes are left
    asking: AskOptions | None = field(default=None, compare=False)  # what is asked
    beside: BesideOptions | None = field(default=None, compare=False)  # of a learning on mixed logits
    adapting: AdaptOptions | None = field(default=None, compare=False)  # of an evaluation that learns
    judging: JudgeOptions | None = field(default=None, compare=False)  # what a discriminator judges

    @property
    def plan(self) -> str:
        """The path of what a learning phase's steps learned from."""
        return "plans/warm-start.json" if self.kind == "warm_start" else f"plans/{self.stem}.json"

    @property
    def pairs(self) -> str:
        return f"pairs/{self.stem}.jsonl"

    @property
    def draws(self) -> str:
        """The path of how often each trajectory was drawn, and by which entropies."""
        return f"draws/{self.stem}.json"

    @property
    def adaptation(self) -> str:
        """The path of what each step of an evaluation that learns saw and believed."""
        return f"adaptations/round-{self.round:02d}-{self.collection.removeprefix('eval-')}.jsonl"

    @property
    def judgements(self) -> str:
        """The path of what the discriminator thinks of each step."""
        return f"judgements/round-{self.round:02d}-{self.collection}.json"

    @property
    def stem(self) -> str:
        return f"round-{self.round:02d}-{self.learning}"

    @property
    def prefers_or_imitates(self) -> bool:
        """Whether it learns from whole trajectories; what is reinforced, it learns from token by token."""
        return any(not isinstance(source, ReinforceSource) for source in self.sources)

    @property
    def reinforces(self) -> bool:
        return any(isinstance(source, ReinforceSource) for source in self.sources)

    @property
    def kinds(self) -> Mapping[str, KindWeights]:
        """The weights of each kind of pair that is learned from, in the order of the sources."""
        return {
            kind_of(source): KindWeights(dpo=source.dpo, sft=source.sft, loss=source.loss)
            for source in self.sources
            if isinstance(source, PairSource)
        }


def kind_of(source: PairSource) -> str:
    """What a source's pairs are called: as the recipe says, or as the function that makes them."""
    return source.kind or source.pairs.split(":")[-1]


def agents_in(config: Config) -> Sequence[str]:
    """Everybody whom the recipe names, in its order."""
    phases = (_in_round(1, one) for one in config.recipe)
    named = [phase.agent for phase in phases if phase.kind != "judge"]  # which is no agent
    return list(dict.fromkeys(named)) or [ALONE]


def lead_in(config: Config) -> str:
    """The agent that the run is about: it learns in the warm start, and budgets are its own."""
    return agents_in(config)[0]


def expected_phases(config: Config) -> list[Phase]:
    """Every phase of a run, in its order."""
    lead = lead_in(config)
    phases = [
        Phase(name="prepare", kind="prepare", agent=lead),
        Phase(name="warm_start", kind="warm_start", agent=lead),
        _evaluates(0, lead),
    ]
    for number in range(1, config.rounds + 1):
        phases += [_in_round(number, phase) for phase in config.recipe]
    return phases


def _in_round(number: int, phase: RecipePhase) -> Phase:
    if isinstance(phase, ExplorePhase):
        agent, collection = phase.explore.agent, phase.explore.into or phase.explore.agent
        name = f"round-{number:02d}/explore_{collection}"
        return Phase(
            name=name,
            kind="explore",
            round=number,
            agent=agent,
            collection=collection,
            mark=phase.explore.mark,
            hints=phase.explore.hints,
        )
    if isinstance(phase, BranchPhase):
        into = phase.branch.into
        return Phase(
            name=f"round-{number:02d}/branch_{into}",
            kind="branch",
            round=number,
            agent=phase.branch.agent,
            collection=into,
            branching=phase.branch,
        )
    if isinstance(phase, AskPhase):
        into = phase.ask.into
        return Phase(
            name=f"round-{number:02d}/ask_{into}",
            kind="ask",
            round=number,
            agent=phase.ask.agent,
            collection=into,
            asking=phase.ask,
        )
    if isinstance(phase, JudgePhase):
        into = phase.judge.into
        return Phase(
            name=f"round-{number:02d}/judge_{into}",
            kind="judge",
            round=number,
            agent="judge",
            collection=into,
            learning=f"judge-{into}",
            judging=phase.judge,
        )
    if isinstance(phase, LearnPhase):
        agent, learning = phase.learn.agent, phase.learn.name or phase.learn.agent
        return Phase(
            name=f"round-{number:02d}/learn_{learning}",
            kind="learn",
            round=number,
            agent=agent,
            learning=learning,
            sources=phase.learn.sources,
            beside=phase.learn.beside,
        )
    one = phase.evaluate
    return _evaluates(number, one.agent, one.name, one.mark, one.adapt)


def _evaluates(
    number: int, agent: str, own: str | None = None, mark: str = "", adapting: AdaptOptions | None = None
) -> Phase:
    called = own or agent
    name, collection = f"round-{number:02d}/evaluate_{called}", f"eval-{called}"
    return Phase(
        name=name,
        kind="evaluate",
        round=number,
        agent=agent,
        collection=collection,
        mark=mark,
        adapting=adapting,
    )


def finished(files: RunFiles, *kinds: str) -> list[Phase]:
    """The expected phases of these kinds that are finished."""
    return [p for p in expected_phases(files.config) if p.kind in kinds and p.name in files.records]


def learned_before(files: RunFiles, phase: Phase) -> list[Phase]:
    """The finished learnings of a phase's agent that came before it, of its round or an earlier one."""
    names = [p.name for p in expected_phases(files.config)]
    own = [p for p in finished(files, "learn") if p.agent == phase.agent]
    return [p for p in own if names.index(p.name) < names.index(phase.name)]


def learn_options(config: Config, phase: Phase) -> AgentConfig:
    """How a phase's agent learns."""
    return config.agents[phase.agent]


def asked_of(config: Config, phase: Phase, name: str) -> int | None:
    """The total of pairs, explored_tokens or learned_tokens that a phase has to reach; None without one."""
    totals = dict(config.budget)[name]
    return totals[phase.round - 1] if phase.agent == lead_in(config) and phase.round and totals else None
