"""Bad paths beside good ones, what is asked about them and what revisions are made of them, derived again.

bad and good   two episodes of a task: the good one's reward is above alpha of the round, or 1, and more than
               beta above the other's
good_or_bad    at every turn of a bad path from the first on that one of its good ones did not take: the
               task, the actions before with their answers, the action; the same text of a task once
revisions      the bad path to its first bad turn behind what both begin with; a thought, drawn by the
               SHA-256 of "seed/task/collection/sample/collection/sample" (bad, good), and its answer; the
               good path from where they part. Bad turns weigh 0
good_paths     the good ones
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.rendering import Rendering
from coevo_jax.audit.search import Trees, step
from coevo_jax.audit.sides import Imitated, Side, by_task

ALPHA, BETA = [0.5, 0.7, 1.0], 0.2
INSTRUCTION = (
    "Was the last action a good step towards the solution of the task? Answer with one word: Good, Bad or "
    "Uncertain."
)
THOUGHTS = (
    "That step was a mistake. I go back to where I was and try something else.",
    "What I did last does not help with the task. I start again from before it.",
    "I see that I went wrong here. Another way should be better.",
    "This leads nowhere, so I give up this way and take another one.",
)
Options = Mapping[str, Any]
Collections = Sequence[Sequence[Side]]
Seen = tuple[str, ...]  # the task and what a judge reads behind it


class Both(NamedTuple):
    """A bad path, a good one, and how many turns they begin with alike."""

    bad: Side
    good: Side
    alike: int


def all_paths(collections: Collections) -> dict[str, list[Side]]:
    """The episodes of each task, the same tokens once."""
    tasks: dict[str, dict[Any, Side]] = {}
    for sides in collections:
        for task, own in by_task(sides).items():
            for side in own:
                tasks.setdefault(task, {}).setdefault(side.key, side)
    return {task: list(tasks[task].values()) for task in sorted(tasks)}


def good_of(paths: Sequence[Side], options: Options, number: int) -> list[Side]:
    """The good paths among a task's."""
    alpha = list(options.get("alpha", ALPHA))
    least = alpha[number - 1] if number <= len(alpha) else alpha[-1]
    return [side for side in paths if side.episode.reward > least or side.episode.success]


def couples(collections: Collections, options: Options, number: int) -> Iterator[list[Both]]:
    """Every bad path with its good ones, those with most reward first."""
    for paths in all_paths(collections).values():
        good = good_of(paths, options, number)
        for bad in paths:
            gaps = [(round(one.episode.reward - bad.episode.reward, 9), one) for one in good]
            better = [one for gap, one in gaps if gap > options.get("beta", BETA)]
            better.sort(key=lambda one: one.episode.reward, reverse=True)
            if better:
                yield [Both(bad, one, _alike(bad.episode, one.episode)) for one in better]


def _alike(one: Episode, other: Episode) -> int:
    count = 0
    while count < min(len(one.turns), len(other.turns)):
        if step(one.turns[count]) != step(other.turns[count]):
            break
        count += 1
    return count


def seen(episode: Episode, turns: int) -> Seen:
    """What a judge of the last of some turns is told."""
    told = [(turn["action"] or turn["response"], turn["observation"]) for turn in episode.turns[:turns]]
    return episode.task_id, *(text for both in told for text in both)


def questions(
    collections: Collections, options: Options, number: int
) -> list[tuple[str, str, int, int, str]]:
    """What is asked: task, collection, sample and turn that it is about, and the text; by tasks."""
    asked: dict[Seen, tuple[str, str, int, int, str]] = {}
    for pairs in couples(collections, options, number):
        side = pairs[0].bad
        for turn in range(min(both.alike for both in pairs), len(side.episode.turns)):
            known = seen(side.episode, turn + 1)
            lines = [side.episode.prompt]
            for place in range(1, len(known) - 2, 2):
                lines += [f"Action: {known[place]}", known[place + 1]]
            lines += ["", f"Last action: {known[-2]}", f"Answer: {known[-1]}", ""]
            text = "\n".join([*lines, options.get("instruction", INSTRUCTION)])
            asked.setdefault(known, (side.episode.task_id, side.source, side.episode.sample, turn, text))
    return list(asked.values())


def _verdicts(collections: Collections) -> dict[Seen, bool]:
    """What was asked about, and whether the answer's first label was Bad."""
    known = {
        (side.source, side.episode.task_id, side.episode.sample): side.episode
        for sides in collections
        for side in sides
        if side.episode.about is None
    }
    bad: dict[Seen, bool] = {}
    for answer in (side.episode for sides in collections for side in sides if side.episode.about):
        assert answer.about is not None
        other = known.get((answer.about["collection"], answer.task_id, answer.about["sample"]))
        if other is not None and answer.turns:
            words = re.findall(r"\w+", answer.turns[0]["response"].lower())
            labels = [word for word in words if word in ("good", "bad", "uncertain")]
            bad[seen(other, answer.about["turn"] + 1)] = labels[:1] == ["bad"]
    return bad


def _bad_turns(collections: Collections, options: Options) -> Callable[[Episode], list[bool]]:
    """Which turns of an episode are bad, by the transition of the recipe."""
    transition = options.get("transition", "actor")
    if transition == "direct":
        return lambda episode: [*[False] * (len(episode.turns) - 1), True]
    if transition == "actor":
        verdicts = _verdicts(collections)
        return lambda episode: [verdicts.get(seen(episode, n + 1), False) for n in range(len(episode.turns))]
    trees = Trees((sides[0].source, [side.episode for side in sides]) for sides in collections if sides)
    least = options.get("threshold", 0.5)

    def low(episode: Episode) -> list[bool]:
        node, found = trees.roots[episode.task_id], []
        for turn in episode.turns:
            node = node.children[step(turn)]
            found.append(node.value < least)
        return found

    return low


def revisions(
    collections: Collections, options: Options, number: int, rendering: Rendering
) -> tuple[list[Imitated], dict[str, int]]:
    """The revisions, and what the record says of them."""
    bad_turns = _bad_turns(collections, options)
    tasks: dict[str, list[list[tuple[Both, int] | None]]] = {}
    for pairs in couples(collections, options, number):
        wrong = bad_turns(pairs[0].bad.episode)
        found = []
        for both in pairs:
            behind = [turn for turn in range(both.alike, len(wrong)) if wrong[turn]]
            whole = behind and both.alike < len(both.good.episode.turns)
            found.append((both, behind[0] + 1) if whole else None)
        tasks.setdefault(pairs[0].bad.episode.task_id, []).append(found)
    made: list[Imitated] = []
    noted: Counter[str] = Counter()
    for own in tasks.values():
        dealt = [found[n] for n in range(max(map(len, own))) for found in own if n < len(found)]
        noted["pairs"] += len(dealt)
        noted["no bad action"] += dealt.count(None)
        kept: dict[tuple[Any, int], tuple[Both, int]] = {}
        for both, cut in filter(None, dealt):
            beginning = tuple(step(turn) for turn in both.bad.episode.turns[:cut])
            noted["the same again"] += (beginning, id(both.good)) in kept
            kept.setdefault((beginning, id(both.good)), (both, cut))
        most = options.get("per_task") or len(kept)
        noted["more than per_task"] += max(len(kept) - most, 0)
        for both, cut in list(kept.values())[:most]:
            noted[f"cut behind turn {cut}"] += 1
            made.append(_spliced(both, cut, options, rendering))
    return made, {what: noted[what] for what in sorted(noted) if noted[what]}


def _spliced(both: Both, cut: int, options: Options, rendering: Rendering) -> Imitated:
    """The tokens of a revision."""
    bad, good = both.bad.episode, both.good.episode
    names = "/".join(f"{side.source}/{side.episode.sample}" for side in both[:2])
    lot = f"{options.get('draw_seed', 42)}/{bad.task_id}/{names}".encode()
    thoughts = options.get("thoughts", THOUGHTS)
    thought = thoughts[int(hashlib.sha256(lot).hexdigest(), 16) % len(thoughts)]
    told = rendering.answer(bad.turns[cut - 1]["observation"])
    said = rendering.spoken(f"Thought: {thought}\nAction: {options.get('action', 'wait')}")
    heard = rendering.answer(options.get("answer", "ok."))
    if told is None or said is None or heard is None:
        raise NotCheckable(f"{bad.name}: a revision holds text like a special token")
    end, first = int(bad.run_ends[cut - 1]), int(good.run_starts[both.alike])
    before, after = bad.tokens[:end].tolist(), good.tokens[first:].tolist()
    closed = [] if before[-1] == rendering.end_id else [rendering.end_id]
    parts = [
        (before, bad.agent_mask[:end].tolist()),
        ([*closed, *told], [False] * (len(closed) + len(told))),
        (said, [True] * len(said)),
        (heard, [False] * len(heard)),
        (after, good.agent_mask[first:].tolist()),
    ]
    tokens = np.array([token for ids, _ in parts for token in ids], np.int32)
    mask = np.array([own for _, owns in parts for own in owns], bool)
    made = replace(bad, tokens=tokens, agent_mask=mask)
    weights = [0.0] * cut + [1.0] * (1 + len(good.turns) - both.alike)
    return Imitated(side=replace(both.bad, episode=made, length=len(tokens)), turns=tuple(weights))


def good_paths(collections: Collections, options: Options, number: int) -> list[Imitated]:
    """The good paths of each task: most reward first, then fewest turns."""
    made: list[Imitated] = []
    for paths in all_paths(collections).values():
        good = good_of(paths, options, number)
        good.sort(key=lambda side: (-side.episode.reward, len(side.episode.turns)))
        made += [Imitated(side=side) for side in good[: options.get("per_task")]]
    return made
