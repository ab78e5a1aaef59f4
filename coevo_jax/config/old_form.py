"""Configs of format 1, which had two agents and flags of their methods, in the words of today.

Plain data in, plain data out: a whole config of that form becomes one of this form; what is of both is
refused, with the new words for each old key.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest

NEW_KEYS = ("format", "recipe", "agents")
AGENTS = ("target", "failure")
KINDS = ("expert_target", "expert_failure", "failure_failure")
FLAGS = ("explore", "learn")  # of the failure agent
# Options of both agents that are the recipe's now.
OF_RECIPE = ("pairs", "cross_agent_only", "max_extra_turns", "sft_successes", "sft_experts")
EXTRA_TURNS = 5  # the default that they had
ROUNDS = 3


def translated(data: dict[str, Any], origin: Mapping[str, str], source: str) -> dict[str, Any]:
    """A merged config in the form of today; the very same object where it has that form already.

    Args:
      origin: which file set a dotted key, for what is refused.

    Raises:
      ConfigError: keys of both forms, each old one with its new words; or old options that never were.
    """
    if not is_old(data):
        return data
    if any(key in data for key in NEW_KEYS):
        words = (
            f"{origin.get(key, source)}: {key}: {new_words(key, value)}" for key, value in old_keys(data)
        )
        raise ConfigError("\n".join(words))
    return _translate(data, source)


def is_old(data: Mapping[str, Any]) -> bool:
    """Whether a config speaks of anything as format 1 did."""
    return any(True for _ in old_keys(data))


def old_keys(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every dotted key that is gone, with its value."""
    for agent in AGENTS:
        if agent in data:
            yield from _leaves(agent, data[agent])
    evaluate, rollout = data.get("evaluate"), data.get("rollout")
    if isinstance(evaluate, dict) and "failure_agent" in evaluate:
        yield "evaluate.failure_agent", evaluate["failure_agent"]
    server = rollout.get("server") if isinstance(rollout, dict) else None
    if isinstance(server, dict) and "failure_url" in server:
        yield "rollout.server.failure_url", server["failure_url"]


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and not key.endswith((".loss", ".loss_options")):
        for name, one in value.items():
            yield from _leaves(f"{key}.{name}", one)
    else:
        yield key, value


def new_words(key: str, value: Any) -> str | None:
    """What to write in the place of an old dotted key with this value; None for a key that is not gone."""
    if key == "evaluate.failure_agent":
        return "a recipe says who is evaluated: by a phase evaluate: {agent: failure}, or by none"
    if key == "rollout.server.failure_url":
        return f"is now rollout.server.urls: {{failure: {value}}}"
    agent, _, option = key.partition(".")
    if agent not in AGENTS:
        return None
    if not option:
        return f"is now agents.{agent}; what it learns from is the phase learn_{agent} of the recipe"
    name, _, rest = option.partition(".")
    if name in FLAGS and agent == "failure":
        return _flag_words(name, value)
    if name not in OF_RECIPE:
        return f"is now agents.{agent}.{option}"
    learning = f"recipe.learn_{agent}"
    if name == "pairs":
        kind, _, weight = rest.partition(".")
        if value is None and kind and not weight:
            return f"is now a recipe whose phase learn_{agent} has no source of kind {kind}"
        return f"is now an option of a source of the recipe: {learning}.{rest or 'KIND.dpo'}"
    if name == "cross_agent_only":
        return f"is now {learning}.failure_failure.across"
    if name == "max_extra_turns":
        return f"is now an option of each source of the recipe: {learning}.expert_target.max_extra_turns"
    imitated = name.removeprefix("sft_")
    shipped = {"successes": "rft", "experts": "sft-more"}[imitated]
    example = f"{{imitate: {imitated}, of: {agent}, weight: {value}}}"
    return f"is now a source of the recipe's phase learn_{agent}: {example}, as in recipe: {shipped}"


def _flag_words(name: str, value: Any) -> str:
    if name == "learn":
        return f"is now a recipe: {'coevo' if value else 'frozen-failure'}, or another with its own phases"
    return f"is now a recipe: {'coevo' if value else 'eto'}, or another with its own phases"


def _translate(data: dict[str, Any], source: str) -> dict[str, Any]:
    """A whole config of the old form in the new one."""
    new = {key: value for key, value in data.items() if key not in AGENTS} | {"format": 2}
    options = {agent: _mapping(data.get(agent, {}), agent, source) for agent in AGENTS}
    flags = {name: options["failure"].get(name, True) for name in FLAGS}
    flags = {name: _flag(value, f"failure.{name}", source) for name, value in flags.items()}
    evaluated = True
    if isinstance(evaluate := data.get("evaluate"), dict):
        evaluated = _flag(evaluate.get("failure_agent", True), "evaluate.failure_agent", source)
        new["evaluate"] = {key: value for key, value in evaluate.items() if key != "failure_agent"}
    if isinstance(rollout := data.get("rollout"), dict) and isinstance(rollout.get("server"), dict):
        new["rollout"] = rollout | {"server": _server(rollout["server"])}
    learners = [] if data.get("rounds", ROUNDS) == 0 else ["target"]
    if learners and flags["explore"] and flags["learn"]:
        learners.append("failure")
    gone = {"target": OF_RECIPE, "failure": (*OF_RECIPE, *FLAGS)}
    new["agents"] = {
        agent: {key: value for key, value in options[agent].items() if key not in gone[agent]}
        for agent in learners
    }
    sources = {agent: _sources(agent, options[agent], flags["explore"], source) for agent in learners}
    new["recipe"] = _phases(sources, flags["explore"], evaluated) if learners else []
    return new


def _phases(sources: Mapping[str, list[Any]], second: bool, evaluated: bool) -> list[dict[str, Any]]:
    """The phases of a round, in the order that they had."""
    phases: list[dict[str, Any]] = [{"explore": {"agent": "target"}}]
    if second:
        phases.append({"explore": {"agent": "failure"}})
        if "failure" in sources:
            phases.append({"learn": {"agent": "failure", "sources": sources["failure"]}})
        phases.append({"explore": {"agent": "failure", "into": "hard_negatives"}})
    phases.append({"learn": {"agent": "target", "sources": sources["target"]}})
    phases.append({"evaluate": {"agent": "target"}})
    if second and evaluated:
        phases.append({"evaluate": {"agent": "failure"}})
    return phases


def _sources(agent: str, options: Mapping[str, Any], second: bool, source: str) -> list[dict[str, Any]]:
    """What an agent learned from, as sources of its learning."""
    pairs = _mapping(options.get("pairs", {}), f"{agent}.pairs", source)
    for kind in pairs:
        if kind not in KINDS:
            raise ConfigError(f"{source}: {agent}.pairs.{kind}: unknown key{nearest(kind, KINDS)}")
    kinds = [kind for kind in KINDS if pairs.get(kind) is not None]
    other = "hard_negatives" if agent == "target" else "failure"
    of = {"expert_target": "target", "expert_failure": other, "failure_failure": ["target"]}
    of["failure_failure"] = ["target", other] if second else ["target"]
    alone = agent == "failure" and kinds == ["failure_failure"]  # no expert was at hand to cut by
    turns = None if alone else options.get("max_extra_turns", EXTRA_TURNS)
    found: list[dict[str, Any]] = []
    for kind in kinds:
        failures = kind == "failure_failure"
        one = {"pairs": "better_over_worse" if failures else "expert_over", "of": of[kind], "kind": kind}
        one |= _mapping(pairs[kind], f"{agent}.pairs.{kind}", source)
        one |= {} if turns == (None if failures else EXTRA_TURNS) else {"max_extra_turns": turns}
        one |= {"across": True} if failures and options.get("cross_agent_only") else {}
        found.append(one)
    for imitated in ("successes", "experts"):
        if weight := options.get(f"sft_{imitated}", 0):
            if agent == "failure":
                raise ConfigError(f"{source}: failure.sft_{imitated}: the failure agent learns from pairs")
            found.append({"imitate": imitated, "of": "target", "weight": weight})
    if not found:
        raise ConfigError(f"{source}: {agent}: nothing to learn from: expected a kind of {agent}.pairs")
    return found


def _server(server: Mapping[str, Any]) -> dict[str, Any]:
    url = server.get("failure_url")
    rest = {key: value for key, value in server.items() if key != "failure_url"}
    return rest if url is None else rest | {"urls": {"failure": url}}


def _mapping(found: Any, key: str, source: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{source}: {key}: found {found!r}, expected a mapping of keys")
    return found


def _flag(found: Any, key: str, source: str) -> bool:
    if not isinstance(found, bool):
        raise ConfigError(f"{source}: {key}: found {found!r}, expected true or false")
    return found
