"""Why options of playing do nothing: a recipe whose phases do not explore, or have options of their own."""

from coevo_jax.config.options import Config
from coevo_jax.config.recipe import AskPhase, BranchPhase
from coevo_jax.config.recipe_queries import explorations_of, players_of, together_of
from coevo_jax.config.strict import nearest


def plays_alone(config: Config, _: str) -> str:
    """There is no other exploration to be played beside the first."""
    return "a round begins with one agent's exploration" if len(together_of(config.recipe)) < 2 else ""


def no_exploration(config: Config, _: str) -> str:
    """No phase plays from tasks' starts."""
    return "" if explorations_of(config.recipe) else "no phase of the recipe explores"


def never_plays(config: Config, name: str) -> str:
    """No server is asked for the turns of such an agent."""
    players = players_of(config.recipe)
    return "" if name in players else f"no such agent plays{nearest(name, players)}"


def other_temperatures(config: Config, name: str) -> str:
    """The temperature of explorations is that of no phase."""
    own = None not in _own_temperatures(config)
    return (
        "every phase that plays has a temperature of its own" if own and no_exploration(config, name) else ""
    )


def greedy(config: Config, _: str) -> str:
    """Nothing is drawn: all temperatures are 0."""
    own = _own_temperatures(config)
    shared = config.explore.temperature and (explorations_of(config.recipe) or None in own)
    return "" if shared or any(own) else "explore.temperature is 0, which is greedy"


def _own_temperatures(config: Config) -> list[float | None]:
    """The temperatures of the phases that branch or ask; None is that of explorations."""
    options = [
        phase.branch if isinstance(phase, BranchPhase) else phase.ask
        for phase in config.recipe
        if isinstance(phase, BranchPhase | AskPhase)
    ]
    return [one.temperature for one in options]
