"""Who reinforces anything in a config, and why options of it do nothing where nobody does."""

from coevo_jax.config.options import Config
from coevo_jax.config.recipe import ReinforceSource
from coevo_jax.config.recipe_queries import learnings_of


def reinforcements(config: Config, agent: str | None = None) -> list[ReinforceSource]:
    """The sources of what is reinforced, of all agents or of one."""
    return [one for learning in learnings_of(config.recipe, agent) for one in learning.reinforcements]


def tied(config: Config, agent: str) -> bool:
    """Whether what an agent reinforces is tied to its reference."""
    return bool(reinforcements(config, agent)) and config.agents[agent].surrogate.kl > 0


# Reasons, as `coevo_jax.config.idle` has them: words, or "" where an option does something.


def no_reinforcement(config: Config, name: str) -> str:
    """Why an agent's surrogate is idle."""
    return "" if reinforcements(config, name) else f"nothing that the agent {name} learns from is reinforced"


def no_lone_reinforcement(config: Config, _: str) -> str:
    """Why a number of reinforced trajectories makes no step."""
    lone = any(one.reinforcements and not one.pairs for one in learnings_of(config.recipe))
    return "" if lone else "no learning reinforces without pairs"


def no_credit(config: Config, name: str) -> str:
    """Why credit per turn weighs nothing."""
    learnings = learnings_of(config.recipe, name)
    weighed = any(one.pairs or one.imitations for one in learnings)
    return "" if weighed else "what is reinforced has a weight of its own for each turn"
