"""Play a run's trajectories again and say what was the same."""

import argparse
import json
from dataclasses import asdict
from itertools import takewhile
from typing import Any

from coevo_jax.commands.codes import FAILURE
from coevo_jax.stored.replay import Choice, Replayed, Replaying, open_replay, replay_all

SHOWN = 60  # characters of a text, from a little before it differs
BEFORE = 20


def replay(args: argparse.Namespace) -> int:
    """Print what differs as it is found, or all as JSON; returns the command's exit code."""
    choice = Choice(
        tasks=frozenset(args.tasks),
        rounds=frozenset(args.rounds),
        agents=frozenset(args.agents),
        kinds=frozenset(args.kinds),
        most=args.episodes,
    )
    replaying = open_replay(args.run, choice, processes=args.processes)
    found: list[Replayed] = []
    for one in replay_all(replaying):
        found.append(one)
        if not args.json and (args.tasks or not one.same):
            print(line(one), flush=True)
    if args.json:
        print(json.dumps([_plain(one) for one in found], indent=1))
    else:
        print(summary(replaying, found))
    return 0 if all(one.same for one in found) else FAILURE


def line(one: Replayed) -> str:
    """What became of a trajectory, for the terminal."""
    trajectory, name = one.stored.trajectory, one.stored.name
    if one.fault is not None:
        return f"BROKE    {name}: {one.fault}"
    if one.difference is None:
        return f"same     {name}: {len(trajectory.turns)} turns, reward {trajectory.reward:.3f}"
    difference = one.difference
    turn = "" if difference.turn is None else f"turn {difference.turn}: "
    expected, found = shown(difference.expected, difference.found)
    return f"DIFFERS  {name}: {turn}{difference.what}: expected {expected}, found {found}"


def shown(expected: str, found: str) -> tuple[str, str]:
    """Two texts around the first character in which they differ."""
    pairs = zip(expected, found, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = max(0, common - BEFORE)

    def part(text: str) -> str:
        before, after = "..." if start else "", "..." if start + SHOWN < len(text) else ""
        return f"{before}{text[start : start + SHOWN]!r}{after}"

    return part(expected), part(found)


def summary(replaying: Replaying, found: list[Replayed]) -> str:
    """The last line."""
    faults = sum(one.fault is not None for one in found)
    differ = sum(one.difference is not None for one in found)
    where = "processes" if replaying.processes else "threads"
    words = (
        f"{len(found)} of {replaying.stored} stored trajectories played again in {where}: "
        f"{len(found) - faults - differ} the same, {differ} differ, {faults} broke"
    )
    if differ and not replaying.deterministic:
        words += f"; {replaying.environment} says of itself that it is not deterministic"
    return words


def _plain(one: Replayed) -> dict[str, Any]:
    stored = one.stored
    return {
        "where": stored.where,
        "kind": stored.kind,
        "round": stored.round,
        "agent": stored.trajectory.agent,
        "task": stored.trajectory.task_id,
        "sample": stored.trajectory.sample,
        "same": one.same,
        "difference": one.difference and asdict(one.difference),
        "fault": one.fault,
    }
