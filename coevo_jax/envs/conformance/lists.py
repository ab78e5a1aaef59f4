"""Checks of what an environment says about itself and its tasks, before anything is played."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from coevo_jax.envs.conformance.probe import Probe, Violation, shorten
from coevo_jax.envs.env import SPLITS, Env, Task

ATTRIBUTES = {"name": str, "system_prompt": str, "deterministic": bool}
METHODS = ("tasks", "max_turns", "reset", "step", "reward_at_limit", "expert", "close")


def protocol(probe: Probe) -> str:
    """Every call of the maker gives an instance of its own, with the attributes and methods of `Env`."""
    env, other = probe.open(), probe.open()
    if env is other:
        raise Violation("two calls of the maker gave the same instance, expected two")
    for attribute, kind in ATTRIBUTES.items():
        if not hasattr(env, attribute):
            raise Violation(
                f"{type(env).__name__} has no attribute {attribute!r}, expected a {kind.__name__}"
            )
        found = getattr(env, attribute)
        if not isinstance(found, kind):
            raise Violation(f"{attribute}: found {shorten(found)}, expected a {kind.__name__}")
        if found != getattr(other, attribute):
            raise Violation(f"{attribute}: found {shorten(found)} and {shorten(getattr(other, attribute))}")
    if not env.name.strip():
        raise Violation(f"name: found {env.name!r}, expected a name")
    for method in METHODS:
        if not callable(getattr(env, method, None)):
            raise Violation(f"{type(env).__name__} has no method {method!r}")
    return f"{env.name}, {'deterministic' if env.deterministic else 'not deterministic'}"


def task_lists(probe: Probe) -> str:
    """Every split lists tasks that name that split; train, at least, has some."""
    env, sizes = probe.open(), []
    for split in SPLITS:
        tasks = _tasks(probe, env, split)
        if not isinstance(tasks, Sequence):
            raise Violation(f"tasks({split!r}): found a {type(tasks).__name__}, expected a sequence of Task")
        for task in tasks:
            if not isinstance(task, Task):
                raise Violation(f"tasks({split!r}): found {shorten(task)} in it, expected a Task")
            if task.split != split:
                raise Violation(f"tasks({split!r}): task {task.id} has the split {task.split!r}")
            if not isinstance(task.family, str) or not task.family:
                raise Violation(f"task {task.id}: family: found {task.family!r}, expected a name")
        sizes.append(f"{len(tasks)} {split}")
    if not _tasks(probe, env, "train"):
        raise Violation("tasks('train') is empty, expected tasks to learn from")
    return ", ".join(sizes)


def task_order(probe: Probe) -> str:
    """Task lists stand in one fixed order: in every instance, and before and after an episode."""
    env, other = probe.open(), probe.open()
    expected = {split: _ids(probe, env, split) for split in SPLITS}
    task = probe.sample()[0]
    env, _ = probe.try_play(env, task, probe.solution(task))
    for place, instance in (("another instance", other), ("the same instance after an episode", env)):
        for split in SPLITS:
            found = _ids(probe, instance, split)
            if len(found) != len(expected[split]):
                raise Violation(
                    f"tasks({split!r}) of {place}: {len(found)} tasks, expected {len(expected[split])}"
                )
            for index, (name, first) in enumerate(zip(found, expected[split], strict=True)):
                if name != first:
                    raise Violation(f"tasks({split!r}) of {place}: task {index} is {name}, expected {first}")
    return f"{sum(map(len, expected.values()))} tasks"


def task_ids(probe: Probe) -> str:
    """Task ids are non-empty texts, and within a split unique."""
    env, count = probe.open(), 0
    for split in SPLITS:
        ids = _ids(probe, env, split)
        for name in ids:
            if not isinstance(name, str) or not name.strip():
                raise Violation(f"tasks({split!r}): found the id {name!r}, expected a non-empty text")
        twice = [name for name, number in Counter(ids).items() if number > 1]
        if twice:
            raise Violation(f"tasks({split!r}): {len(twice)} ids stand more than once, such as {twice[0]}")
        count += len(ids)
    return f"{count} ids"


def disjoint_splits(probe: Probe) -> str:
    """The splits are disjoint: no task stands in two of them."""
    env = probe.open()
    owner: dict[str, str] = {}
    for split in SPLITS:
        for name in dict.fromkeys(_ids(probe, env, split)):
            if name in owner:
                raise Violation(f"task {name} stands in {owner[name]} and in {split}")
            owner[name] = split
    return f"{len(owner)} tasks"


def max_turns(probe: Probe) -> str:
    """`max_turns` of a task is a whole number of at least 1."""
    env, found = probe.open(), []
    for task in probe.sample():
        limit: Any = probe.max_turns(env, task)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise Violation(f"max_turns of task {task.id}: found {limit!r}, expected a whole number above 0")
        found.append(limit)
    return f"{min(found)} to {max(found)} turns"


def _tasks(probe: Probe, env: Env, split: str) -> Sequence[Task]:
    return probe.call(f"tasks({split!r})", lambda: env.tasks(split))


def _ids(probe: Probe, env: Env, split: str) -> list[str]:
    return [task.id for task in _tasks(probe, env, split)]
