"""A recipe as plain data, before it is checked: who learns in it, and an override of one of its options."""

from collections.abc import Mapping
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest

KINDS = ("explore", "branch", "ask", "judge", "learn", "evaluate")
NESTED = ("beside", "hints", "adapt")  # keys of a phase that have keys of their own


def learners_in(recipe: Any) -> list[str] | None:
    """The agents that learn in a recipe, in the order in which it names them; None where it is no recipe."""
    if not isinstance(recipe, list):
        return None
    agents: dict[str, bool] = {}
    for phase in recipe:
        options = [(kind, phase[kind]) for kind in KINDS if isinstance(phase, dict) and kind in phase]
        for kind, one in options:
            if isinstance(one, dict) and isinstance(one.get("agent"), str):
                agents[one["agent"]] = agents.get(one["agent"], False) or kind == "learn"
    return [agent for agent, learns in agents.items() if learns]


def override_recipe(recipe: Any, parts: list[str], value: Any, source: str) -> None:
    """Set an option of a phase, or of a source of what a phase learns from, each addressed by its name.

    Such as learn_target.expert_failure.dpo: a source of pairs by its kind, another by its builder.

    Raises:
      ConfigError: there is no such phase or source.
    """
    named = {name: phase for phase in recipe if (name := _phase_name(phase))} if _is_list(recipe) else {}
    phase = _one(named, parts[0], f"{source}: recipe")
    if len(parts) == 1:
        raise ConfigError(f"{source}: expected an option of the phase, such as recipe.{parts[0]}.agent=NAME")
    options = phase[next(kind for kind in KINDS if kind in phase)]
    if len(parts) == 2:
        options[parts[1]] = value
        return
    if parts[1] in NESTED:  # no source has its name: a source's is that of a builder or a kind
        _put(options, parts[1:], value, source)
        return
    sources = {name: one for one in options.get("sources") or () if (name := _source_name(one))}
    _put(_one(sources, parts[1], f"{source}: recipe.{parts[0]}"), parts[2:], value, source)


def _put(found: Any, parts: list[str], value: Any, source: str) -> None:
    for part in parts[:-1]:
        found = found.setdefault(part, {})
        if not isinstance(found, dict):
            raise ConfigError(f"{source}: {part} has no keys of its own")
    found[parts[-1]] = value


def _is_list(found: Any) -> bool:
    return isinstance(found, list)


def _one(named: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in named:
        raise ConfigError(f"{where}: unknown name '{name}'{nearest(name, list(named))}")
    return named[name]


def _phase_name(phase: Any) -> str | None:
    kinds = [kind for kind in KINDS if isinstance(phase, dict) and isinstance(phase.get(kind), dict)]
    if len(kinds) != 1:
        return None
    options = phase[kinds[0]]
    own = options.get("name" if kinds[0] in ("learn", "evaluate") else "into")
    return f"{kinds[0]}_{own or options.get('agent')}"


def _source_name(source: Any) -> str | None:
    if not isinstance(source, dict):
        return None
    name = next((source[key] for key in ("kind", "pairs", "imitate", "reinforce") if source.get(key)), None)
    return name.rpartition(":")[2] if isinstance(name, str) else None
