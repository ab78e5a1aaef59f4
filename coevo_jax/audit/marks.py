"""Marks, derived again: the prompts under them, and what the recipe's `graded` imitates under which.

A mark is a text with {task} in it, in whose place the task stands. `graded` takes every trajectory that can
teach, each once; failures with a turn without an action, or with an action more often in a row than its
options allow, are left out; of the others it keeps so many for each success, those with the smallest SHA-256
of "seed/collection/task/sample". The grade of a reward is the number of bounds that it does not reach, where
a bound of 0 is to be exceeded. What was played under one mark is learned under another by other tokens in
front of the agent's first.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coevo_jax.audit.check import NotCheckable, same
from coevo_jax.audit.order import Phase, expected_phases
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.rendering import Rendering
from coevo_jax.audit.sides import Side, by_task
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import ImitationSource

PLACE = "{task}"
DEFAULTS: Mapping[str, Any] = {  # where a source does not say
    "marks": ("{task} What follows is right.", "{task} What follows is wrong."),
    "bounds": (1.0,),
    "failures_per_success": 1.0,
    "draw_seed": 42,
    "drop_unparsable": True,
    "most_repeats": 2,
}


def is_under(mark: str, prompt: str) -> bool:
    """Whether a prompt is some task under the mark; every prompt is one under none."""
    return bare(mark, prompt) is not None


def bare(mark: str, prompt: str) -> str | None:
    """The task that stands in a prompt under the mark; None where it is not under it."""
    if not mark:
        return prompt
    front, back = mark.split(PLACE)
    if len(prompt) < len(front) + len(back) or not (prompt.startswith(front) and prompt.endswith(back)):
        return None
    return prompt[len(front) : len(prompt) - len(back)]


def marks_in(config: Config) -> set[str]:
    """Every mark that the recipe names."""
    phases = expected_phases(config)
    sources = [s for p in phases for s in p.sources if isinstance(s, ImitationSource)]
    taught = {mark for s in sources if s.imitate == "graded" for mark in options_of(s)["marks"]}
    return {p.mark for p in phases if p.mark} | taught


def options_of(source: ImitationSource) -> Mapping[str, Any]:
    """The options of a source of graded trajectories."""
    return {**DEFAULTS, **source.options}


def prompt_problems(where: str, prompt: str, phase: Phase, marks: set[str]) -> Iterator[str]:
    """A task was played under the mark of its phase, once, and under no other."""
    task = bare(phase.mark, prompt)
    if task is None:
        yield f"{where}: prompt: found {prompt[:60]!r}, expected one under the mark {phase.mark!r}"
        return
    for mark in sorted(marks):
        if is_under(mark, task):
            expected = f"the mark {phase.mark!r} alone" if phase.mark else "no mark"
            yield f"{where}: prompt: found it under the mark {mark!r}, expected {expected}"


def graded(source: ImitationSource, played: Sequence[Sequence[Side]], rendering: Rendering) -> Iterator[Side]:
    """What a source imitates: sides in the order of tasks and samples, under their marks."""
    options = options_of(source)
    able = [side for group in by_task(side for sides in played for side in sides).values() for side in group]
    able = [side for side in able if side.episode.success or not _left_out(side.episode, options)]
    failures = [side for side in able if not side.episode.success]
    most = options["failures_per_success"]
    if most is not None:
        lots = sorted(failures, key=lambda side: _lot(options["draw_seed"], side))
        failures = lots[: int(most * (len(able) - len(failures)))]
    for side in able:
        if side.episode.success or any(side is failure for failure in failures):
            grade = sum(not _reaches(side.episode.reward, bound) for bound in options["bounds"])
            yield remarked(side, options["marks"][grade], rendering)


def _reaches(reward: float, bound: float) -> bool:
    return reward >= bound and reward > 0


def _left_out(episode: Episode, options: Mapping[str, Any]) -> bool:
    actions = [turn["action"] for turn in episode.turns]
    if options["drop_unparsable"] and "" in actions:
        return True
    most = options["most_repeats"]
    if most is None:
        return False
    return any(len(set(actions[at : at + most + 1])) == 1 for at in range(len(actions) - most))


def _lot(seed: int, side: Side) -> str:
    words = f"{seed}/{side.source}/{side.episode.task_id}/{side.episode.sample}"
    return hashlib.sha256(words.encode()).hexdigest()


def remarked(side: Side, mark: str, rendering: Rendering) -> Side:
    """The side with other tokens in front of the agent's first: those of its task under the mark."""
    episode = side.episode
    task = bare(side.mark, episode.prompt)
    if task is None:
        raise ValueError(f"{episode.name}: found a prompt that is not under the mark {side.mark!r}")
    prompt = mark.replace(PLACE, task) if mark else task
    opening = rendering.opening(prompt)
    if opening is None:
        raise NotCheckable(f"{episode.name}: its task holds text like a special token")
    first = int(episode.run_starts[0])
    tokens = np.append(np.array(opening, np.int32), episode.tokens[first:])
    agent_mask = np.append(np.zeros(len(opening), bool), episode.agent_mask[first:])
    moved = len(opening) - first
    branch = episode.branch and {**episode.branch, "tokens": episode.branch["tokens"] + moved}
    learned = replace(episode, prompt=prompt, tokens=tokens, agent_mask=agent_mask, branch=branch)
    return Side(source=side.source, episode=learned, length=len(tokens), mark=mark)


def count_problems(where: str, record: Mapping[str, Any], imitated: Sequence[Side]) -> Iterator[str]:
    """What is recorded of the trajectories under each mark; nothing where there are no marks."""
    found = {row["mark"]: row for row in record.get("marks", [])}
    expected: dict[str, dict[str, Any]] = {}
    marks = {side.mark for side in imitated}
    for mark in marks if marks != {""} else ():
        own = [side.episode for side in imitated if side.mark == mark]
        mean = float(np.mean([one.reward for one in own]))
        tasks = len({one.task_id for one in own})
        expected[mark] = {"mark": mark, "count": len(own), "tasks": tasks, "mean_reward": mean}
    if not same(found, expected) or len(found) != len(expected):
        yield f"{where}: recorded marks: found {found}, expected {expected}"
