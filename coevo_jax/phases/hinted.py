"""Suggestions to an agent that plays: made of the experts of its tasks, and counted when it has played."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from coevo_jax.envs.env import offer_test
from coevo_jax.methods.corrections import same_actions
from coevo_jax.methods.distortion import Suggestion, suggestions
from coevo_jax.methods.hints import NO_HINTS, Hints
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Trajectory

Suggested = Callable[[str, int], tuple[Suggestion, ...]]
"""The suggestions of a task's sample, one for each turn of its expert; none where there is no expert."""


def suggested(run: Run, world: World, phase: Phase) -> Suggested:
    """What a phase that plays with hints suggests: a function of the config and the experts alone."""
    options = phase.hints

    def of(task_id: str, sample: int) -> tuple[Suggestion, ...]:
        expert = world.experts.get(task_id)
        if options is None or expert is None:
            return ()
        return suggestions(
            expert,
            share=options.share,
            operations=options.operations,
            seed=run.config.seed,
            phase=phase.name,
            sample=sample,
            offered=offer_test(world.env),
        )

    return of


def hints_of(run: Run, world: World, phase: Phase) -> Callable[[str, int], Hints]:
    """The hints of a phase's episodes, by task and sample; none in a phase that plays without."""
    options, found = phase.hints, suggested(run, world, phase)

    def of(task_id: str, sample: int) -> Hints:
        made = found(task_id, sample)
        if options is None or not made:
            return NO_HINTS
        expert = world.experts[task_id]
        told = (expert.prompt, *(turn.observation for turn in expert.turns[:-1]))
        return Hints(
            actions=tuple(one.action for one in made),
            told=told if options.while_same else None,
            wording=options.wording,
        )

    return of


def hint_counts(
    trajectories: Iterable[Trajectory], experts: Mapping[str, Trajectory], found: Suggested
) -> dict[str, Any]:
    """What was suggested in a collection, and what its agent did then.

    Of distorted suggestions, `corrected` are those at which it did what the expert did at the turn of the
    same number, `followed` those at which it did what was suggested; of the others, `agreed` are those at
    which it did the expert's action. `as_expert` are successes with the very actions of the expert.
    """
    names = ("episodes", "without", "suggested", "distorted", "corrected", "followed", "agreed")
    counts = dict.fromkeys((*names, "successes", "as_expert"), 0)
    operations: Counter[str] = Counter()
    for one in trajectories:
        made = found(one.task_id, one.sample)
        counts["episodes" if made else "without"] += 1
        if not made:
            continue
        expert = experts[one.task_id]
        counts["successes"] += one.success
        counts["as_expert"] += one.success and same_actions(one, expert)
        for turn, (action, suggestion) in enumerate(zip(one.hints, made, strict=False)):
            if not action:
                break
            did = one.turns[turn].action
            right = did == expert.turns[turn].action
            counts["suggested"] += 1
            if not suggestion.operation:
                counts["agreed"] += right
                continue
            operations[suggestion.operation] += 1
            counts["distorted"] += 1
            counts["corrected"] += right
            counts["followed"] += did == suggestion.action
    return counts | {"by_operation": {name: operations[name] for name in sorted(operations)}}


def hint_words(counts: Mapping[str, Any]) -> str:
    """The same for people."""
    plain = counts["suggested"] - counts["distorted"]
    words = f"{counts['distorted']} distorted of {counts['suggested']} suggestions, {counts['corrected']} of"
    words += f" them corrected, {counts['followed']} followed; {counts['agreed']} of the other {plain} kept"
    return words + (f", {counts['without']} episodes without an expert" if counts["without"] else "")
