"""Prompt marks: text beside the task that says which grade of outcome follows.

A mark is a text in which `{task}` stands for the task: "[Right] {task}" is a prefix, "{task} It is right." a
suffix. The agent learns under the mark of what came out, and is asked for the best (NAT, arXiv 2402.11651).
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain, groupby, pairwise
from typing import Annotated

from pydantic import Field

from coevo_jax.methods.material import Imitation, Material, by_task
from coevo_jax.trajectory import Trajectory

TASK = "{task}"
Share = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def marked(task: str, mark: str) -> str:
    """The task's text under a mark; the text itself under the mark ""."""
    before, found, after = mark.partition(TASK)
    return before + task + after if found else task


def unmarked(prompt: str, mark: str) -> str:
    """The task's text, out of a prompt that `marked` made of it.

    Raises:
      ValueError: the prompt is not under the mark.
    """
    before, found, after = mark.partition(TASK)
    whole = prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before + after)
    if found and not whole:
        raise ValueError(f"found a prompt that is not under the mark {mark!r}: {prompt!r}")
    return prompt[len(before) : len(prompt) - len(after)] if found else prompt


def wrong_mark(mark: str) -> str:
    """Why a text is no mark, whatever the chat template; "" where it is one."""
    if mark.count(TASK) != 1:
        return f"found {mark!r}, expected {TASK} once, where the task's text stands"
    if not mark.replace(TASK, "").strip():
        return f"found {mark!r}, expected some text beside {TASK}"
    if mark != mark.strip():
        return f"found {mark!r}, expected no white space at its ends, which chat templates take off"
    return ""


def wrong_grades(marks: Sequence[str], bounds: Sequence[float]) -> Iterator[str]:
    """Every fault of grades: their marks, the best first, and the bounds between their rewards."""
    yield from (f"marks: {why}" for why in map(wrong_mark, marks) if why)
    if len(set(marks)) < len(marks):
        yield f"marks: found {list(marks)}, expected a mark of its own for every grade"
    if len(marks) < 2 or len(bounds) != len(marks) - 1:
        yield f"bounds: found {len(bounds)} for {len(marks)} marks, expected two marks or more, and one less"
    falls = all(one > other for one, other in pairwise(bounds))
    if not falls or not all(0 <= bound <= 1 for bound in bounds):
        yield f"bounds: found {list(bounds)}, expected falling numbers in [0, 1]"


def grade_of(reward: float, bounds: Sequence[float]) -> int:
    """The grade of a reward, 0 for the best: the first whose bound it reaches; a bound of 0 is exceeded."""
    reached = (reward >= bound if bound > 0 else reward > 0 for bound in bounds)
    return next((grade for grade, reaches in enumerate(reached) if reaches), len(bounds))


def graded(
    material: Material,
    *,
    marks: tuple[str, ...] = (
        "{task} What follows is right.",
        "{task} What follows is wrong.",
    ),
    bounds: tuple[float, ...] = (1.0,),
    failures_per_success: Share | None = 1.0,
    draw_seed: int = 42,
    drop_unparsable: bool = True,
    most_repeats: Count | None = 2,
) -> Iterator[Imitation]:
    """Trajectories of all rewards, each under the mark of its grade (NAT, arXiv 2402.11651).

    Successes and failures are imitated alike, as in its code. All successes are kept; of the failures so many
    as the ratio allows, drawn by hash: the smallest SHA-256 of "seed/collection/task/sample" are kept.

    Args:
      marks: one for each grade, the best first; their wording is ours. The paper has two grades in
        mathematics and four in question answering.
      bounds: the least reward of each grade but the last; a bound of 0 is to be exceeded. 1.0 alone sets
        success apart; 1, 0.5 and 0 for four grades are inferred (the paper's F1 has 1, 0.4 and 0).
      failures_per_success: failures for each success, over all tasks (inferred; the paper has 1 to 2); null
        keeps all.
      draw_seed: of which failures are kept; 42 is the paper's code's.
      drop_unparsable: leave out failures with a turn that no action could be read from (inferred).
      most_repeats: leave out failures that repeat an action more often than this in a row (inferred); null
        keeps them.
    """
    every = [one for group in by_task(chain(*material.played)).values() for one in group]
    able = [
        one
        for one in every
        if one.success or not ((drop_unparsable and is_unparsable(one)) or loops(one, most_repeats))
    ]
    failures = [one for one in able if not one.success]
    if failures_per_success is not None:
        count = int(failures_per_success * (len(able) - len(failures)))
        failures = sorted(failures, key=lambda one: _lot(draw_seed, one))[:count]
    kept = {id(one) for one in failures}
    for one in able:
        if one.success or id(one) in kept:
            yield Imitation(one, mark=marks[grade_of(one.reward, bounds)])


def is_unparsable(trajectory: Trajectory) -> bool:
    """Whether a turn of the agent had no action that could be read."""
    return any(not turn.action for turn in trajectory.turns)


def loops(trajectory: Trajectory, most_repeats: int | None) -> bool:
    """Whether the agent took an action more often than `most_repeats` times in a row; null never loops."""
    runs = (len(list(run)) for _, run in groupby(turn.action for turn in trajectory.turns))
    return most_repeats is not None and max(runs, default=0) > most_repeats


def _lot(seed: int, one: Trajectory) -> str:
    name = f"{seed}/{one.collection or one.agent}/{one.task_id}/{one.sample}"
    return sha256(name.encode()).hexdigest()
