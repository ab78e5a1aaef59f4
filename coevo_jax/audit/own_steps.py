"""What is made of an agent's own steps at the states of experts, derived again.

A branch that leaves an expert before its turn t has its own step in turn t, if it wrote a token there:

    expert_step_over    the expert up to and with turn t over the branch up to and with it, both counted from
                        t on; none where their actions (or texts) are the same
    next_observations   the branch up to the answer to turn t, of which that answer alone is trained
    reflections         the expert before turn t, then one turn that says an answer's reason and the expert's
                        action; that turn alone is trained
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.rendering import Rendering
from coevo_jax.audit.sides import Imitated, Pair, Side, by_task, cut

ACTION = "Action:"


Collections = Sequence[Sequence[Side]]
Experts = Mapping[str, Side]  # by task, read with their texts, as the collections are


@dataclass(frozen=True, kw_only=True)
class Step:
    """A turn of a branch where its expert has another."""

    expert: Side
    branch: Side
    turn: int

    def text(self, side: Side, what: str) -> str:
        """What the side says or does in this turn, without white space around it."""
        return side.episode.turns[self.turn][what].strip()

    def alike(self, what: str) -> bool:
        return self.text(self.expert, what) == self.text(self.branch, what)


def steps(collections: Collections, experts: Experts) -> Iterator[Step]:
    """The own steps of all branches that leave experts."""
    for sides in collections:
        for task, branches in by_task(sides).items():
            expert = experts.get(task)
            for side in branches:
                left = side.episode.branch
                if expert is None or left is None or left["collection"] != "expert":
                    continue
                turn = left["turns"]
                if turn < len(side.episode.run_ends) and turn < len(expert.episode.turns):
                    yield Step(expert=expert, branch=side, turn=turn)


def step_pairs(
    kind: str, options: Mapping[str, Any], collections: Collections, experts: Experts
) -> list[Pair]:
    """The pairs of experts' steps over agents' own."""
    return [
        Pair(
            kind=kind,
            chosen=cut(step.expert, step.turn + 1),
            rejected=cut(step.branch, step.turn + 1),
            chosen_from=step.turn,
            rejected_from=step.turn,
        )
        for step in steps(collections, experts)
        if not step.alike(options.get("same", "action"))
    ]


def foretold(
    options: Mapping[str, Any], collections: Collections, experts: Experts, rendering: Rendering
) -> list[Imitated]:
    """The answers to own steps that are no expert's, unless `same` is null; none that says nothing."""
    same = options.get("same", "action")
    return [
        Imitated(side=_with_answer(step, rendering))
        for step in steps(collections, experts)
        if step.text(step.branch, "observation") and (same is None or not step.alike(same))
    ]


def _with_answer(step: Step, rendering: Rendering) -> Side:
    episode = step.branch.episode
    words = episode.tokens[: episode.run_ends[step.turn]].tolist()
    answer = rendering.answer(episode.turns[step.turn]["observation"])
    if answer is None:
        raise NotCheckable(f"{episode.name}: an answer holds text like a special token")
    given = words if words[-1] == rendering.end_id else [*words, rendering.end_id]
    return _side(step.branch.source, episode, [*given, *answer], [False] * len(given) + [True] * len(answer))


def reasoned(
    options: Mapping[str, Any], collections: Collections, experts: Experts, rendering: Rendering
) -> list[Imitated]:
    """The experts' actions behind the reasons that were given for them."""
    made = []
    endings = ("answered", "token_limit") if options.get("cut_off", False) else ("answered",)
    for sides in collections:
        for side in sorted(sides, key=lambda side: (side.episode.task_id, side.episode.sample)):
            answer, expert = side.episode, experts.get(side.episode.task_id)
            about = answer.about
            if expert is None or about is None or answer.ending not in endings or not answer.turns:
                continue
            reason = answer.turns[0]["response"].split(ACTION)[0].strip().removeprefix("Thought:").strip()
            if about["collection"] == "expert" and reason:
                thought = _with_reason(side, expert.episode, about["turn"], reason, rendering)
                made.append(Imitated(side=thought, turns=(0.0,) * about["turn"] + (1.0,)))
    return made


def _with_reason(side: Side, expert: Episode, turn: int, reason: str, rendering: Rendering) -> Side:
    said = rendering.spoken(f"Thought: {reason}\n{ACTION} {expert.turns[turn]['action']}")
    if said is None:
        raise NotCheckable(f"{side.episode.name}: a reason holds text like a special token")
    start = int(expert.run_starts[turn])
    tokens = [*expert.tokens[:start].tolist(), *said]
    mask = [*expert.agent_mask[:start].tolist(), *[True] * len(said)]
    return _side(side.source, side.episode, tokens, mask)


def _side(source: str, episode: Episode, tokens: Sequence[int], mask: Sequence[bool]) -> Side:
    """A side of made tokens, under the name of an episode."""
    made = replace(episode, tokens=np.array(tokens, np.int32), agent_mask=np.array(mask, bool))
    return Side(source=source, episode=made, length=len(tokens))
