"""Branches: that they leave episodes where the recipe says, and begin with what was played there.

    expert_turns   before turns of the experts of the round's tasks: all, or `count` equally spaced ones
    failed_turns   before turns of what was played and failed
    turn_ends      behind turns of the experts, and behind the first own turn of branches
    expert_proposals, agent_proposals
                   before turns of failures where the expert, or a branch of another agent, did something
                   else; the first turn from there is given to the agent
    promising_nodes
                   states of search trees, chosen in iterations (`search`)

Points chosen by a function of the user's own are taken as they are recorded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.audit.branch_lessons import alike, left_by, once_each
from coevo_jax.audit.check import Check, differs, judge
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.round import Round, round_of
from coevo_jax.audit.search import Place, Trees, named_sides, search
from coevo_jax.audit.sides import Side
from coevo_jax.audit.whose import Tasks, episode_problems, shard_problems

ARRAYS = ("prompt", "turns", "tokens", "agent_mask", "logps")


class Sources:
    """The episodes that branches begin with, whole, by collection, task and sample; read when first named."""

    def __init__(self, files: RunFiles, round_number: int) -> None:
        self._files, self._round = files, round_number
        self._known: dict[str, dict[tuple[str, int], Episode]] = {}

    def of(self, name: str, task: str, sample: int) -> Episode | None:
        """The episode, or None where there is none such."""
        if name not in self._known:
            paths = self._files.collection(self._round, name)
            if name == "expert":
                paths = [self._files.folder / "trajectories/experts.parquet"]
            episodes = (episode for path in paths for episode in read_episodes(path, ARRAYS))
            self._known[name] = {(episode.task_id, episode.sample): episode for episode in episodes}
        return self._known[name].get((task, sample))


def branch_check(files: RunFiles, phase: Phase, tasks: Tasks) -> Check:
    """One phase's branches."""
    counts: dict[str, int] = {"episodes": 0, "points": 0, "lost": 0}
    return judge(
        f"whose/{phase.name}",
        branch_problems(files, phase, tasks, counts),
        lambda: (
            f"{counts['episodes']} episodes from {counts['points']} points with the beginnings played there; "
            f"{counts['lost']} lost"
        ),
    )


def branch_problems(files: RunFiles, phase: Phase, tasks: Tasks, counts: dict[str, int]) -> Iterator[str]:
    """Every point of the recipe's has its samples, in order, by the phase's agent; nothing else is there."""
    options, found = phase.branching, round_of(files, phase)
    sources = Sources(files, phase.round)
    assert options is not None  # a phase that branches has them
    paths = files.collection(phase.round, phase.collection)
    yield from shard_problems(paths, f"{phase.collection} of round {phase.round}")
    blocks, words, recorded = expected_blocks(files, phase, found, tasks.of_phase(phase), paths)
    points = [point for block in blocks for point in block]
    counts["points"] = len(points)
    by_turn = {str(turn): count for turn, count in sorted(Counter(point[3] for point in points).items())}
    for name, wanted in {"points": len(points), "points_by_turn": by_turn, **recorded}.items():
        yield from differs(f"{phase.name}: {name}", files.recorded(phase.name, name), wanted)
    yield from differs(f"{phase.name}: shards", len(paths), len(blocks))
    sample: Counter[str] = Counter()
    for path, block in zip(paths, blocks, strict=False):
        expected: list[tuple[Place, int]] = []
        said: list[str | None] = []
        for point in block:
            said += [next(words)] * options.samples
            for _ in range(options.samples):
                expected.append((point, sample[point[0]]))
                sample[point[0]] += 1
        where = str(path.relative_to(files.folder))
        episodes = list(read_episodes(path, ARRAYS))
        yield from differs(f"{where}: episodes", len(episodes), len(expected))
        for row, (episode, wanted, word) in enumerate(zip(episodes, expected, said, strict=False)):
            at = f"{where}: row {row}: {episode.name}"
            yield from differs(f"{at}: agent", episode.agent, phase.agent)
            yield from differs(f"{at}: point and sample", (_place(episode), episode.sample), wanted)
            yield from episode_problems(at, episode)
            yield from beginning_problems(at, episode, sources)
            yield from length_problems(at, episode, options.turns)
            yield from given_problems(at, episode, word)
            counts["lost"] += episode.ending == "lost"
        counts["episodes"] += len(episodes)


def expected_blocks(
    files: RunFiles, phase: Phase, found: Round, tasks: Sequence[str], paths: Sequence[Path]
) -> tuple[list[list[Place]], Iterator[str | None], dict[str, Any]]:
    """The points of each block, what the agent is given to write at each, and what else is recorded."""
    options, size = phase.branching, files.config.explore.block_tasks
    assert options is not None
    nothing: Iterator[str | None] = repeat(None)
    if options.iterations > 1:
        if options.at == "promising_nodes":
            blocks, trees = search(phase, found, paths, tasks, size)
            return blocks, nothing, {"trees": trees}
        places = [[place for place, _ in _places(path)] for path in paths]
        return [own[:: options.samples] for own in places], nothing, {}
    if options.at in PROPOSED:
        given = sorted(PROPOSED[options.at](phase, found), key=lambda one: one[0][0])
        return _blocks([point for point, _ in given], size), iter([word for _, word in given]), {}
    if options.at in CHOSEN:
        points = CHOSEN[options.at](phase, found, set(tasks))
    else:
        points = list(dict.fromkeys(place for path in paths for place, _ in _places(path)))
    return _blocks(points, size), nothing, {}


def beginning_problems(where: str, episode: Episode, sources: Sources) -> Iterator[str]:
    """A branch begins with the turns and tokens of the episode that it names, up to its next turn."""
    if episode.branch is None:
        return
    other = sources.of(episode.branch["collection"], episode.task_id, episode.branch["sample"])
    if other is None:
        yield f"{where}: branch: found no such episode as {dict(episode.branch)}"
        return
    turns, tokens = episode.replayed_turns, episode.replayed_tokens
    if turns >= len(other.run_starts):
        yield f"{where}: branch: found turn {turns}, expected one of {len(other.run_starts)}"
        return
    yield from differs(f"{where}: branch: tokens", tokens, int(other.run_starts[turns]))
    if list(episode.turns[:turns]) != list(other.turns[:turns]) or episode.prompt != other.prompt:
        yield f"{where}: found other turns than those of {other.name} before turn {turns + 1}"
    for name in ("tokens", "agent_mask", "logps"):
        if not np.array_equal(getattr(episode, name)[:tokens], getattr(other, name)[:tokens]):
            yield f"{where}: {name}: found another beginning than that of {other.name}"
    if episode.ending == "lost" and (len(episode.turns) > turns or len(episode.tokens) > tokens):
        yield f"{where}: found turns of its own, expected none: its beginning was lost"


def length_problems(where: str, episode: Episode, most: int | None) -> Iterator[str]:
    """No branch has more turns of its own than the recipe lets it have."""
    own = len(episode.turns) - episode.replayed_turns
    if most is not None and own > most:
        yield f"{where}: found {own} turns of its own, expected at most {most}"


def given_problems(where: str, episode: Episode, word: str | None) -> Iterator[str]:
    """The first own turn is what somebody proposed, where somebody did."""
    own = episode.turns[episode.replayed_turns :]
    if word is not None and own:
        yield from differs(f"{where}: turn {episode.replayed_turns + 1}", own[0]["response"], word)


def expert_points(phase: Phase, found: Round, tasks: set[str]) -> list[Place]:
    """Before turns of the experts."""
    options = dict(phase.branching.options) if phase.branching else {}
    return [
        (task, "expert", side.episode.sample, turn)
        for task, side in sorted(found.expert_of.items())
        if task in tasks
        for turn in spaced(len(side.episode.run_ends), options.get("count"))
        if turn >= options.get("first", 0)
    ]


def failed_points(phase: Phase, found: Round, tasks: set[str]) -> list[Place]:
    """Before own turns of failures."""
    options = dict(phase.branching.options) if phase.branching else {}
    return _sorted(
        (side.episode.task_id, side.source, side.episode.sample, turn)
        for side in _sides(phase, found)
        if side.episode.failure
        for turn in spaced(len(side.episode.run_ends), options.get("count"))
        if turn >= max(options.get("first", 0), side.episode.replayed_turns)
    )


def end_points(phase: Phase, found: Round, tasks: set[str]) -> list[Place]:
    """Behind every turn of the experts, and behind the first own turn of branches, but for the last ones."""
    options = dict(phase.branching.options) if phase.branching else {}
    experts = [
        (task, "expert", side.episode.sample, turn)
        for task, side in sorted(found.expert_of.items())
        if task in tasks and options.get("experts", True)
        for turn in range(options.get("first", 0) + 1, len(side.episode.run_ends))
    ]
    branches = [
        (side.episode.task_id, side.source, side.episode.sample, side.episode.replayed_turns + 1)
        for side in _sides(phase, found)
        if options.get("first", 0) <= side.episode.replayed_turns < len(side.episode.run_ends) - 1
    ]
    return _sorted([*experts, *branches])


def expert_steps(phase: Phase, found: Round) -> list[tuple[Place, str]]:
    """Before turns of failures where the expert's turn of the same number was another one, with that turn."""
    steps = []
    failures = _named(_sides(phase, found))
    for place in failed_points(phase, found, set()):
        task, source, sample, turn = place
        expert = found.expert_of.get(task)
        if expert is None or turn >= len(expert.episode.turns):
            continue
        if not alike(failures[source, task, sample], expert, turn):
            steps.append((place, expert.episode.turns[turn]["response"]))
    return steps


def agent_steps(phase: Phase, found: Round) -> list[tuple[Place, str]]:
    """Before turns of failures where a branch of them took another step, with that step, each once."""
    assert phase.branching is not None
    played = found.played(phase.branching)
    failures = _named(side for sides in played for side in sides)
    steps: dict[tuple[Place, str], None] = {}
    for branch in _sides(phase, found):
        name, turn = left_by(branch), branch.episode.replayed_turns
        if name is None or name not in failures or not failures[name].episode.failure:
            continue
        own = branch.episode.turns[turn:]
        whole = len(own) > 1 or branch.episode.ending != "token_limit"
        if own and own[0]["action"] and whole and not alike(branch, failures[name], turn):
            steps[(name[1], name[0], name[2], turn), own[0]["response"]] = None
    return list(steps)


def first_points(phase: Phase, found: Round, tasks: set[str]) -> list[Place]:
    """The starts of tasks that were played."""
    assert phase.branching is not None
    return Trees(named_sides(phase.branching.of, found.played(phase.branching))).points(
        phase.branching.options
    )


def _named(sides: Iterable[Side]) -> dict[tuple[str, str, int], Side]:
    """Sides by collection, task and sample."""
    return {(side.source, side.episode.task_id, side.episode.sample): side for side in sides}


PROPOSED = {"expert_proposals": expert_steps, "agent_proposals": agent_steps}
CHOSEN = {
    "expert_turns": expert_points,
    "failed_turns": failed_points,
    "turn_ends": end_points,
    "promising_nodes": first_points,
}


def spaced(turns: int, count: int | None) -> Sequence[int]:
    """All turns; or `count` of them, equally far apart, from one such distance on; or the first ones."""
    if count is None:
        return range(turns)
    apart = turns // (count + 1)
    return [apart * n for n in range(1, count + 1)] if apart else list(range(1, turns))[:count]


def _sides(phase: Phase, found: Round) -> Iterator[Side]:
    assert phase.branching is not None
    for sides in found.played(phase.branching):
        yield from once_each(sides)


def _sorted(points: Iterable[Place]) -> list[Place]:
    """By task, and as they come within one."""
    return sorted(points, key=lambda point: point[0])


def _place(episode: Episode) -> Place | None:
    branch = episode.branch
    if branch is None:
        return None
    return episode.task_id, branch["collection"], branch["sample"], branch["turns"]


def _places(path: Path) -> list[tuple[Place, int]]:
    return [(place, e.sample) for e in read_episodes(path) if (place := _place(e)) is not None]


def _blocks(points: Sequence[Place], size: int) -> list[list[Place]]:
    """All points of so many tasks at a time."""
    tasks = [list(own) for _, own in groupby(points, key=lambda point: point[0])]
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    return [[point for own in part for point in own] for part in parts] or [[]]
