"""What a recipe says as a whole: agents, learnings, collections and evaluations, in the phases' order."""

from coevo_jax.config.recipe import (
    LEAD,
    AskPhase,
    BranchPhase,
    EvaluateOptions,
    EvaluatePhase,
    ExplorePhase,
    JudgePhase,
    KindWeights,
    LearnOptions,
    LearnPhase,
    Recipe,
    RecipePhase,
)


def agents_of(recipe: Recipe) -> tuple[str, ...]:
    """The agents that a recipe names, the lead first; the lead alone where it has no phases."""
    agents = (phase.agent for phase in recipe if not isinstance(phase, JudgePhase))
    return tuple(dict.fromkeys(agents)) or (LEAD,)


def lead_of(recipe: Recipe) -> str:
    """The agent that a run is about."""
    return agents_of(recipe)[0]


def learnings_of(recipe: Recipe, agent: str | None = None) -> tuple[LearnOptions, ...]:
    """Every learning of a round, or those of an agent."""
    learnings = (phase.learn for phase in recipe if isinstance(phase, LearnPhase))
    return tuple(learning for learning in learnings if agent in (None, learning.agent))


def learners_of(recipe: Recipe) -> tuple[str, ...]:
    """The agents that learn in a round, in the order of `agents_of`."""
    learning = {one.agent for one in learnings_of(recipe)}
    return tuple(agent for agent in agents_of(recipe) if agent in learning)


def weights_of(recipe: Recipe, agent: str) -> dict[str, KindWeights]:
    """The weights of every kind of pair that an agent learns from, of the last learning that prefers it."""
    found: dict[str, KindWeights] = {}
    for learning in learnings_of(recipe, agent):
        for kind, weights in learning.kinds.items():
            if kind not in found or weights.dpo > 0:
                found[kind] = weights
    return found


def kinds_of(recipe: Recipe) -> tuple[str, ...]:
    """Every kind of pair of a recipe, the lead's first; a kind's place here is its number on the devices."""
    return tuple(
        dict.fromkeys(
            kind
            for agent in learners_of(recipe)
            for learning in learnings_of(recipe, agent)
            for kind in learning.kinds
        )
    )


def explorations_of(recipe: Recipe) -> tuple[ExplorePhase, ...]:
    """Every exploration of a round, in order."""
    return tuple(phase for phase in recipe if isinstance(phase, ExplorePhase))


def branches_of(recipe: Recipe) -> tuple[BranchPhase, ...]:
    """Every phase of a round that plays on from the middle of episodes, in order."""
    return tuple(phase for phase in recipe if isinstance(phase, BranchPhase))


def judgings_of(recipe: Recipe) -> tuple[JudgePhase, ...]:
    """Every phase of a round in which the discriminator learns, in order; none where there is none."""
    return tuple(phase for phase in recipe if isinstance(phase, JudgePhase))


def players_of(recipe: Recipe) -> tuple[str, ...]:
    """The agents that play into collections, in the order in which they first do."""
    filling = (phase for phase in recipe if filled_by(phase) and not isinstance(phase, JudgePhase))
    return tuple(dict.fromkeys(phase.agent for phase in filling))


def filled_by(phase: RecipePhase) -> str | None:
    """The collection that a phase fills; None where it fills none."""
    if isinstance(phase, ExplorePhase):
        return phase.explore.collection
    if isinstance(phase, BranchPhase):
        return phase.branch.into
    if isinstance(phase, JudgePhase):
        return phase.judge.into
    return phase.ask.into if isinstance(phase, AskPhase) else None


def played_of(recipe: Recipe) -> dict[str, str]:
    """The collections that a round's phases fill, in order, and the names of these phases."""
    return {name: phase.name for phase in recipe if (name := filled_by(phase)) is not None}


def sides_of(learning: LearnOptions) -> set[str]:
    """Whose trajectories a learning pairs: the collections, and "expert" where they stand beside it."""
    sides = set[str]()
    for source in learning.pairs:
        sides |= set(source.of) | (set() if source.pairs == "better_over_worse" else {"expert"})
    return sides


def evaluations_of(recipe: Recipe) -> tuple[EvaluateOptions, ...]:
    """Every evaluation of a round, in order."""
    return tuple(phase.evaluate for phase in recipe if isinstance(phase, EvaluatePhase))


def adapts(recipe: Recipe) -> bool:
    """Whether an agent learns from the episodes of an evaluation."""
    return any(one.adapt is not None for one in evaluations_of(recipe))


def mark_of(recipe: Recipe, agent: str) -> str:
    """The mark that an agent is used under: that of its evaluation by its own name; "" without one."""
    return next((one.mark for one in evaluations_of(recipe) if one.label == agent), "")


def together_of(recipe: Recipe) -> tuple[ExplorePhase, ...]:
    """The explorations at a round's start that can be played side by side.

    They are of several agents, none of which has learned in between.
    """
    first: list[ExplorePhase] = []
    for phase in recipe:
        if not isinstance(phase, ExplorePhase) or phase.agent in [other.agent for other in first]:
            break
        first.append(phase)
    return tuple(first)
