"""The phases of a run in order: the warm start and its evaluation, then the recipe's, round by round."""

from dataclasses import dataclass

from coevo_jax.config.adapt import AdaptOptions
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
    LearnOptions,
    LearnPhase,
    RecipePhase,
)
from coevo_jax.config.recipe_queries import lead_of, together_of

OPENING = 2  # phases of a schedule before the first round


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a run's schedule."""

    kind: str  # key of PHASES
    name: str  # e.g. "round-01/learn_failure"
    round: int  # 0 is the warm start
    agent: str  # who plays or learns, by the recipe's name
    index: int  # place in the schedule: part of every random key of the phase
    collection: str = ""  # what a phase that plays is filling
    mark: str = ""  # that a phase that plays plays under
    hints: HintOptions | None = None  # of a phase in which an agent is told what it could do
    learning: LearnOptions | None = None  # what a phase that learns learns from
    branching: BranchOptions | None = None  # from where a phase plays on that does not begin at tasks' starts
    asking: AskOptions | None = None  # what a phase asks
    adapting: AdaptOptions | None = None  # how weights follow the episodes of an evaluation
    judging: JudgeOptions | None = None  # what a discriminator judges

    def seed(self, root: int) -> int:
        """Seed of the host's randomness in this phase."""
        return root * 10_007 + self.index

    @property
    def stem(self) -> str:
        """Name of the files that a learning or an adaptation writes, such as "round-01-target".

        A judge's has a sign that no learning's has: "round-01-judge-rewards".
        """
        judge = "judge-" if self.judging is not None else ""
        return f"round-{self.round:02d}-{judge}{self.name.rpartition('/')[2].partition('_')[2]}"


def schedule(config: Config) -> tuple[Phase, ...]:
    """Every phase of a run after `prepare`, in order."""
    lead = lead_of(config.recipe)
    opening = (
        Phase(kind="warm_start", name="warm_start", round=0, agent=lead, index=0),
        Phase(
            kind="evaluate",
            name=f"round-00/evaluate_{lead}",
            round=0,
            agent=lead,
            index=1,
            collection=f"eval-{lead}",
        ),
    )
    rounds = (phase for number in range(1, config.rounds + 1) for phase in phases_of_round(config, number))
    return (*opening, *rounds)


def phases_of_round(config: Config, number: int) -> tuple[Phase, ...]:
    """The recipe's phases as a round, from 1, plays them, in order."""
    begin = OPENING + (number - 1) * len(config.recipe)
    return tuple(_of_recipe(phase, number, begin + place) for place, phase in enumerate(config.recipe))


def _of_recipe(phase: RecipePhase, number: int, index: int) -> Phase:
    mark, hints, learning, branching, asking, judging, adapting = "", *[None] * 6
    if isinstance(phase, ExplorePhase):
        kind, collection, mark = "explore", phase.explore.collection, phase.explore.mark
        hints = phase.explore.hints
    elif isinstance(phase, BranchPhase):
        kind, collection, branching = "branch", phase.branch.into, phase.branch
    elif isinstance(phase, AskPhase):
        kind, collection, asking = "ask", phase.ask.into, phase.ask
    elif isinstance(phase, JudgePhase):
        kind, collection, judging = "judge", phase.judge.into, phase.judge
    elif isinstance(phase, LearnPhase):
        kind, collection, learning = "learn", "", phase.learn
    else:
        kind, collection, mark = "evaluate", f"eval-{phase.evaluate.label}", phase.evaluate.mark
        adapting = phase.evaluate.adapt
    return Phase(
        kind=kind,
        name=f"round-{number:02d}/{phase.name}",
        round=number,
        agent=phase.agent,
        index=index,
        collection=collection,
        mark=mark,
        hints=hints,
        learning=learning,
        branching=branching,
        asking=asking,
        adapting=adapting,
        judging=judging,
    )


def find_phase(config: Config, name: str) -> Phase:
    """The phase of a name.

    Raises:
      KeyError: the config schedules no such phase.
    """
    number = name.partition("/")[0].removeprefix("round-")
    of_recipe = number.isdecimal() and 1 <= int(number) <= config.rounds
    phases = phases_of_round(config, int(number)) if of_recipe else schedule(config)
    return {phase.name: phase for phase in phases}[name]


def explored_together(config: Config, phase: Phase) -> tuple[Phase, ...]:
    """The explorations at a round's start, if `phase` is one of them and they are played side by side."""
    names = [other.name for other in together_of(config.recipe)] if config.explore.together else []
    if len(names) < 2 or phase.name.rpartition("/")[2] not in names:
        return ()
    return tuple(find_phase(config, f"round-{phase.round:02d}/{name}") for name in names)
