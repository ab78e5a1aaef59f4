"""Suggestions: that an agent was told the distorted expert's actions, and what was made of what it did.

corrections       the experts of what was played, `copies` times, every turn behind its suggestion; turns
                  whose suggestion is the expert's own action weigh `plain_weight`
kept_corrections  what was played with suggestions and reached the threshold, told again without; none
                  that did at every turn what the expert did, unless `repeats`
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, NotCheckable, differs, judge
from coevo_jax.audit.distortions import NAMES, suggested
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.rendering import Rendering
from coevo_jax.audit.round import Round, round_of
from coevo_jax.audit.sides import Imitated, Side, by_task
from coevo_jax.config.hints import HintOptions
from coevo_jax.config.recipe import ImitationSource

TAUGHT: Mapping[str, Any] = {  # where a source of corrections does not say
    "share": 0.3,
    "operations": NAMES,
    "wording": "{text}\nSuggested action: {action}",
    "copies": 2,
    "plain_weight": 1.0,
}
KEPT: Mapping[str, Any] = {"threshold": 1.0, "repeats": False}  # the same of what is kept


def tell(text: str, action: str, wording: str) -> str:
    """What an agent is told with a suggestion; without one where the action is ""."""
    if not action:
        return text
    front, back = wording.split("{text}")
    return front.replace("{action}", action) + text + back.replace("{action}", action)


def hint_check(files: RunFiles, phase: Phase) -> Check:
    """One phase that played with suggestions."""
    counts: Counter[str] = Counter()
    return judge(
        f"hints/{phase.name}",
        hint_problems(files, phase, counts),
        lambda: f"{counts['suggested']} suggestions drawn again, {counts['distorted']} of them distorted",
    )


def hint_problems(files: RunFiles, phase: Phase, counts: Counter[str]) -> Iterator[str]:
    """Every episode's suggestions, and the phase's counts of them; what stands in tokens, `tokens` checks."""
    options, found = phase.hints, round_of(files, phase)
    assert options is not None
    operations: Counter[str] = Counter()
    for path in files.collection(phase.round, phase.collection):
        for row, episode in enumerate(read_episodes(path, ("prompt", "turns"))):
            where = f"{path.relative_to(files.folder)}: row {row}: {episode.name}"
            expert = found.expert_by_task.get(episode.task_id)
            hints = list(episode.hints or ())
            counts["episodes" if expert else "without"] += 1
            if expert is None:
                yield from differs(f"{where}: hints", hints, [])
                continue
            name = (files.config.seed, phase.name, episode.sample)
            made = suggested(expert, options.share, options.operations, name, found.offered)
            given = _told(episode, expert, options, [action for action, _ in made])
            yield from differs(f"{where}: hints", hints, given)
            counts["successes"] += episode.success
            counts["as_expert"] += episode.success and _did(episode) == _did(expert)
            for number, (action, operation) in enumerate(made[: sum(map(bool, given))]):
                did, right = (one.turns[number]["action"] for one in (episode, expert))
                counts["suggested"] += 1
                operations[operation] += 1
                counts["distorted"] += operation != ""
                counts["corrected"] += operation != "" and did == right
                counts["followed"] += operation != "" and did == action
                counts["agreed"] += operation == "" and did == right
    recorded = files.record(phase.name)["hints"]
    del operations[""]
    yield from differs(f"{phase.name}: hints by operation", recorded["by_operation"], dict(operations))
    for name, value in recorded.items():
        if name != "by_operation":
            yield from differs(f"{phase.name}: hints: {name}", value, counts[name])


def _told(episode: Episode, expert: Episode, options: HintOptions, actions: Sequence[str]) -> list[str]:
    """The suggestions before each turn of an episode, "" for none; () where there were none at all."""
    given = [*actions, *[""] * len(episode.turns)][: len(episode.turns)]
    if options.while_same:
        texts = [[one.prompt, *(turn["observation"] for turn in one.turns)] for one in (episode, expert)]
        parts = [place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b]
        end = min(parts, default=len(given))
        given = [action if place < end else "" for place, action in enumerate(given)]
    return given if any(given) else []


def _did(episode: Episode) -> list[str]:
    return [turn["action"] for turn in episode.turns]


def corrections(source: ImitationSource, found: Round) -> list[Imitated]:
    """What a corrector learns from."""
    options = {**TAUGHT, **source.options}
    tasks = sorted({side.episode.task_id for played in found.played(source) for side in played})
    learned = []
    for expert in (found.expert_of[task] for task in tasks if task in found.expert_of):
        episode = expert.episode
        for copy in range(options["copies"] if len(episode.run_ends) == len(episode.turns) else 0):
            name = (found.seed, found.phase, copy)
            made = suggested(episode, options["share"], options["operations"], name, found.offered)
            actions = [action for action, _ in made]
            told = replace(told_again(episode, actions, options["wording"], found.rendering), sample=copy)
            weights = tuple(1.0 if operation else options["plain_weight"] for _, operation in made)
            side = Side(source="corrections", episode=told, length=len(told.tokens))
            learned.append(Imitated(side=side, turns=weights))
    return learned


def kept_corrections(source: ImitationSource, found: Round) -> list[Imitated]:
    """What is kept of what a corrector played."""
    options = {**KEPT, **source.options}
    kept = []
    for played in found.played(source):
        for task, sides in by_task(played).items():
            expert = found.expert_of.get(task)
            for side in (one for one in sides if one.episode.reward >= options["threshold"]):
                repeated = expert is not None and _did(side.episode) == _did(expert.episode)
                if options["repeats"] or not repeated:
                    told = told_again(side.episode, (), "", found.rendering)
                    again = Side(source=side.source, episode=told, length=len(told.tokens))
                    kept.append(Imitated(side=again))
    return kept


def told_again(episode: Episode, actions: Sequence[str], wording: str, rendering: Rendering) -> Episode:
    """An episode whose agent is told these suggestions, or none; its own tokens are the same."""
    texts = [episode.prompt, *(turn["observation"] for turn in episode.turns)]
    tokens: list[int] = []
    mask: list[bool] = []
    for turn, (start, end) in enumerate(zip(episode.run_starts, episode.run_ends, strict=True)):
        text = tell(texts[turn], actions[turn] if actions else "", wording)
        given = rendering.answer(text) if turn else rendering.opening(text)
        if given is None:
            raise NotCheckable(f"{episode.name}: what is told holds text like a special token")
        if turn and tokens[-1] != rendering.end_id:
            given = [rendering.end_id, *given]
        own = episode.tokens[start:end].tolist()
        tokens += [*given, *own]
        mask += [False] * len(given) + [True] * len(own)
    arrays = {"tokens": np.array(tokens, np.int32), "agent_mask": np.array(mask, bool)}
    return replace(episode, **arrays, hints=list(actions))
