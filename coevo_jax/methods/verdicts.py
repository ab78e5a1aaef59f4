"""Questions whether an action was good, and what was answered."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from coevo_jax.methods.branches import episodes_by_name
from coevo_jax.methods.material import Material
from coevo_jax.methods.pairs_of_paths import ALPHA, BETA, Alpha, bad_paths, shared_turns
from coevo_jax.methods.questions import Question
from coevo_jax.methods.ranges import Gap
from coevo_jax.trajectory import Turn

VERDICTS = "Good, Bad or Uncertain"
ASKED = f"Was the last action a good step towards the solution of the task? Answer with one word: {VERDICTS}."

Seen = tuple[str, tuple[tuple[str, str], ...]]  # of a task: actions with their answers, the last one's too
_LABEL = re.compile(r"\b(good|bad|uncertain)\b", re.IGNORECASE)


def good_or_bad(
    material: Material,
    *,
    alpha: Alpha = ALPHA,
    beta: Gap = BETA,
    instruction: Annotated[str, Field(min_length=1)] = ASKED,
) -> Iterator[Question]:
    """Whether each action of the bad paths was good: what Agent-R's actor finds the transition point by.

    Agent-R (arXiv 2501.11425, its adaptive transition point). The actor reads the task, the path up to an
    action and the answer to it, and labels the action. Asked are the actions of episodes beside which a
    better one was played (as `revisions` pairs them), from the first turn on that a better one did not take.
    The paper asks in order and stops at the first Bad; here all are asked at once, and the first one counts.
    What was done and seen alike in several episodes is asked about once (inferred).

    Args:
      alpha, beta: as in `revisions`.
      instruction: what the question ends with (inferred, as is the wording of all of it).
    """
    asked: set[Seen] = set()
    for bad in bad_paths(material, alpha, beta):
        one = bad.path
        for turn in range(min(shared_turns(one, good) for good in bad.better), len(one.turns)):
            seen = seen_by(one.task_id, one.turns[: turn + 1])
            if seen not in asked:
                asked.add(seen)
                yield Question(_text(one.prompt, seen, instruction), one, turn)


def seen_by(task_id: str, turns: Sequence[Turn]) -> Seen:
    """What a judge of the last of some turns sees: actions and answers, without the thoughts before them.

    Where no action was found, what was written stands in its place.
    """
    return task_id, tuple((turn.action or turn.response, turn.observation) for turn in turns)


def _text(prompt: str, seen: Seen, instruction: str) -> str:
    """The wording: the task, the turns before, the action that is judged with its answer."""
    *before, (action, answer) = seen[1]
    lines = [line for said, told in before for line in (f"Action: {said}", told)]
    return "\n".join([prompt, *lines, "", f"Last action: {action}", f"Answer: {answer}", "", instruction])


def found_bad(material: Material) -> Mapping[Seen, bool]:
    """Of what was asked, whether the action was found bad."""
    known = episodes_by_name(material)
    verdicts: dict[Seen, bool] = {}
    for played in material.played:
        for answer in played:
            about = answer.about
            one = None if about is None else known.get((about.collection, answer.task_id, about.sample))
            if about is not None and one is not None and answer.turns:
                seen = seen_by(one.task_id, one.turns[: about.turn + 1])
                verdicts[seen] = verdict_of(answer.turns[0].response) == "bad"
    return verdicts


def verdict_of(text: str) -> str:
    """The first of the words good, bad and uncertain in an answer; uncertain where none of them is there."""
    found = _LABEL.search(text)
    return "uncertain" if found is None else found[1].lower()
