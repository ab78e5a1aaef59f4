"""Playing one game inside the worker process: .z8 games of TextWorld, and .tw-pddl games such as ALFWorld's.

An engine lives in a dict of the worker: `env`, the running environment, and `path`, the file it plays.
"""

from collections.abc import Iterable
from typing import Any

PDDL = ".tw-pddl"
KIND_BREAK = "_bar_"  # in the names of ALFWorld's objects: "cabinet_bar__minus_00..."


def load(engines: dict[str, Any], request: dict) -> dict:
    """Load a game file (.z8 beside its .json, or .tw-pddl) and start it."""
    import textworld

    path = request["path"]
    pddl = path.endswith(PDDL)
    if pddl and engines.get("path", "").endswith(PDDL):
        if engines["path"] != path:  # the planner's library stays in memory once loaded
            engines.pop("path")
            engines["env"].load(path)
            engines["path"] = path
    elif engines.get("path") != path:
        if "env" in engines:
            engines.pop("path", None)
            engines.pop("env").close()
        wanted = {"score", "max_score", "won", "lost", "admissible_commands", "command_templates"}
        infos = textworld.EnvInfos(**dict.fromkeys(wanted, True))
        engines["env"] = textworld.start(path, infos, [_readable_names()] if pddl else [])
        engines["path"] = path
        if not pddl:
            engines["env"].seed(1)
    return _answer(engines["env"].reset())


def step(engines: dict[str, Any], request: dict) -> dict:
    """Play one command."""
    state, _, _ = engines["env"].step(request["action"])
    return _answer(state)


def plan(engines: dict[str, Any], request: dict) -> list[str] | None:
    """The planner's commands from where a tw-pddl game stands; None where it finds no plan."""
    game = engines["env"].unwrapped
    return game._pddl_state.replan(game._entity_infos) or None


def _answer(state: Any) -> dict:
    return {
        "observation": state.feedback,
        "score": int(state.score or 0),
        "max_score": int(state.max_score or 1),
        "won": bool(state.won),
        "lost": bool(state.lost),
        "commands": list(state.admissible_commands or ()),
        "verbs": sorted({template.split()[0] for template in state.command_templates or ()}),
    }


def _readable_names() -> type:
    """A wrapper that calls "cabinet_bar__minus_00..." "cabinet 1", numbered as ALFWorld numbers them."""
    from textworld.core import Wrapper

    class ReadableNames(Wrapper):
        def load(self, path: str) -> None:
            super().load(path)
            infos = self.unwrapped._entity_infos
            for identifier, name in readable_names(infos).items():
                infos[identifier].name = name

    return ReadableNames


def readable_names(identifiers: Iterable[str]) -> dict[str, str]:
    """Names such as "apple 2" for ALFWorld's objects; the last of a kind in order of identifiers is 1."""
    kinds: dict[str, list[str]] = {}
    names = {}
    for identifier in sorted(identifiers):
        kind, mark, _ = identifier.partition(KIND_BREAK)
        if mark:
            kinds.setdefault(f"{kind}basin" if "basin" in identifier else kind, []).append(identifier)
        else:
            names[identifier] = identifier
    for kind, members in kinds.items():
        names |= {member: f"{kind} {len(members) - i}" for i, member in enumerate(members)}
    return names
