"""Checks of episodes as they should not go: malformed actions, calls out of turn, what is left behind."""

from typing import Any

from coevo_jax.envs.conformance.actions import MALFORMED
from coevo_jax.envs.conformance.probe import EnvRaised, Probe, Violation, shorten
from coevo_jax.envs.env import StepResult, says_invalid

MAX_ANSWER = 20_000  # characters; an agent's whole context is not much longer


def malformed_actions(probe: Probe) -> str:
    """Any text is answered by an observation ("Invalid action..." or a normal one), never by an exception."""
    env, refused = probe.open(), 0
    task = probe.sample()[0]
    for what, action in _hostile(probe).items():
        probe.reset(env, task)
        try:
            result: Any = probe.step(env, task, action)
        except EnvRaised as error:
            raise Violation(f"action {what}: {error}") from error
        if not isinstance(result, StepResult) or not isinstance(result.observation, str):
            raise Violation(
                f"action {what} of task {task.id}: found {shorten(result)}, expected a StepResult"
            )
        refused += says_invalid(result.observation)
    return f"{probe.turns} actions, {refused} of them invalid"


def answer_length(probe: Probe) -> str:
    """No answer grows with the action: at most 20,000 characters, also to an action of 100,000."""
    env, longest = probe.open(), 0
    task = probe.sample()[0]
    words = {action: what for what, action in _hostile(probe).items()}
    for _, played in probe.play_row(env, task, tuple(words)):
        for action, result in zip(played.actions, played.results, strict=True) if played else ():
            longest = max(longest, len(result.observation))
            if longest > MAX_ANSWER:
                raise Violation(
                    f"task {task.id}, action {words[action]}: the answer has {longest} characters, "
                    f"expected at most {MAX_ANSWER}"
                )
    return f"longest answer {longest} characters"


def reset_in_mid_episode(probe: Probe) -> str:
    """A reset in the middle of an episode starts afresh: nothing of the broken-off one remains."""
    env = probe.open()
    for task in probe.sample():
        expected = probe.reference(task).played
        for other in {probe.sample()[0].id: probe.sample()[0], task.id: task}.values():
            broken_off = probe.solution(other)[: max(1, len(probe.solution(other)) // 2)]
            env, _ = probe.try_play(env, other, broken_off)
            found = probe.play(env, task, expected.actions)
            probe.compare(expected, found, f"after an episode of {other.id} was broken off")
    return probe.counts()


def next_episode_unharmed(probe: Probe) -> str:
    """After an episode of hostile actions, which may try to write, the next one goes as if alone."""
    env = probe.open()
    for task in probe.sample():
        expected = probe.reference(task).played
        for instance, _ in probe.play_hostile(env, task):
            env = instance
        found = probe.play(env, task, expected.actions)
        probe.compare(expected, found, "after episodes of hostile actions")
    return probe.counts()


def step_outside_episode(probe: Probe) -> str:
    """Before the first reset and after the end, `step` raises or answers, and the next episode works."""
    task = probe.sample()[0]
    expected = probe.reference(task).played
    raised = 0
    for place in ("before the first reset", "after the end of an episode"):
        env = probe.open()
        if place.startswith("after"):
            probe.play(env, task, expected.actions)
        for action in ("look", expected.actions[-1]):
            try:
                result: Any = probe.step(env, task, action)
            except EnvRaised:
                raised += 1
                continue
            where = f"step({shorten(action)}) {place}"
            if not isinstance(result, StepResult):
                raise Violation(f"{where}: found {shorten(result)}, expected an exception or a StepResult")
            if place.startswith("before") and result.done and result.reward > 0:
                raise Violation(f"{where}: found reward {result.reward:g} for an episode that never began")
        found = probe.play(env, task, expected.actions)
        probe.compare(expected, found, f"after a step {place}")
    return f"{raised} of 4 such steps raised"


def _hostile(probe: Probe) -> dict[str, str]:
    """Malformed actions by what is wrong with them, and those that would write."""
    task = probe.sample()[0]
    writing = [action for action in probe.hostile_actions(task) if action not in MALFORMED.values()]
    return {**MALFORMED, **{action: action for action in writing}}
