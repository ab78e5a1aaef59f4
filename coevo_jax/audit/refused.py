"""Pairs that compare two tasks, and were therefore refused, derived again.

A task is several where the record of an earlier exploration of the round says so: it was played again, and
went otherwise. Two trajectories of it are of two tasks where their first observations differ, or the same
actions from the start on were answered otherwise. An answer that is missing at a side's end says nothing.
This holds in environments that promise the same observations for the same actions; earlier versions refused
nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.sides import Pair, Side


def of_one_task(
    files: RunFiles, phase: Phase, kinds: Mapping[str, Sequence[Pair]]
) -> tuple[list[list[Pair]], dict[str, int]]:
    """The pairs of every kind that are left, and how many of each kind were refused."""
    if not files.record("prepare").get("deterministic", False):
        return [list(pairs) for pairs in kinds.values()], {}
    begins = f"round-{phase.round:02d}/"
    before = list(files.records)[: list(files.records).index(phase.name)]
    several = {
        task
        for name in before
        if name.startswith(begins)
        for task in files.record(name).get("contradicted", ())
    }
    left: list[list[Pair]] = []
    refused: Counter[str] = Counter()
    for kind, pairs in kinds.items():
        fine = [
            pair for pair in pairs if pair.chosen.episode.task_id not in several and not _contradict(pair)
        ]
        refused[kind] += len(pairs) - len(fine)
        left.append(fine)
    return left, {kind: count for kind, count in refused.items() if count}


def _contradict(pair: Pair) -> bool:
    one, other = pair.chosen, pair.rejected
    if one.mark == other.mark and one.episode.prompt != other.episode.prompt:
        return True
    turns, others = _turns(one), _turns(other)
    shorter = min(len(turns), len(others))
    for place in range(shorter):
        (action, told), (same, heard) = turns[place], others[place]
        if action != same:
            return False
        if told != heard and not (place == shorter - 1 and (not told or not heard)):
            return True
    return False


def _turns(side: Side) -> list[tuple[str, str]]:
    """Action and answer of every turn that the side has left."""
    turns = side.episode.turns
    left = len(turns) if side.length >= len(side.episode.tokens) else side.turns
    return [(turn["action"], turn["observation"]) for turn in turns[:left]]
