"""What is wrong with a discriminator in a recipe: what it cannot judge, and what nobody learns from."""

from collections.abc import Iterator

from coevo_jax.config.judge import JUDGE
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import BranchOptions, JudgePhase, ReinforceSource
from coevo_jax.config.recipe_queries import agents_of, branches_of, filled_by, judgings_of, learnings_of

FORCED = ("expert_proposals", "agent_proposals")  # points whose first turn is given: no agent drew it


def check_judge(config: Config) -> Iterator[str]:
    """Every fault of the phases that judge and of what is learned from them, each in one sentence."""
    judgings = judgings_of(config.recipe)
    if not judgings:
        return
    if JUDGE in agents_of(config.recipe):
        yield f"recipe: the name {JUDGE} is the discriminator's in logs; expected another one for an agent"
    if min(config.judge.learning_rate, default=0.0) <= 0:
        yield f"judge.learning_rate: found {list(config.judge.learning_rate)}, expected values above 0"
    branches = {phase.branch.into: phase.branch for phase in branches_of(config.recipe)}
    filling = {name: phase for phase in config.recipe if (name := filled_by(phase))}
    used = {name for _, source in _reinforcements(config) for name in source.of}
    for phase in judgings:
        where = f"recipe.{phase.name}"
        for name in phase.judge.of:
            kind = filling[name].name.partition("_")[0] if name in filling else "explore"
            if kind not in ("explore", "branch"):
                yield f"{where}.of: {name} is what {kind} makes; expected what explore or branch plays into"
            elif name in branches and branches[name].at in FORCED:
                yield f"{where}.of: {name} begins with proposals, which no agent drew; expected its own turns"
        if phase.judge.into not in used:
            yield f"{where}: nobody learns from {phase.judge.into}, so it does nothing; leave it out"
    for where, source in _reinforcements(config):
        if source.reinforce == "judged_steps":
            yield from _alone_in_states(config, where, source, branches)


def judges_experts(config: Config) -> list[str]:
    """The phases that tell own steps from experts': where there are none, they judge nothing."""
    return [f"recipe.{phase.name}" for phase in judgings_of(config.recipe)]


def _alone_in_states(
    config: Config, where: str, source: ReinforceSource, branches: dict[str, BranchOptions]
) -> Iterator[str]:
    """Where every state is visited once, a turn compared with others in its state has no advantage."""
    judged = {phase.judge.into: phase.judge for phase in config.recipe if isinstance(phase, JudgePhase)}
    names = [name for into in source.of if into in judged for name in judged[into].of]
    samples = [branches[name].samples if name in branches else config.explore.samples for name in names]
    if source.options.get("among", "state") == "state" and len(samples) == 1 and samples[0] == 1:
        key = f"recipe.branch_{names[0]}.samples" if names[0] in branches else "explore.samples"
        yield (
            f"{where}.among is state, and {key} is 1: no turn has another one in its state, and every "
            "advantage would be 0; expected more samples, or among: task or round"
        )


def _reinforcements(config: Config) -> list[tuple[str, ReinforceSource]]:
    return [
        (f"recipe.learn_{learning.name or learning.agent}.{source.label}", source)
        for learning in learnings_of(config.recipe)
        for source in learning.reinforcements
    ]
