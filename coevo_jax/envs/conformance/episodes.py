"""Checks of episodes as they should go: observations, rewards, endings, repetition, experts."""

import math
import pickle
from dataclasses import replace
from typing import Any

from coevo_jax.envs.conformance.probe import EnvRaised, NotApplicable, Played, Probe, Violation, shorten
from coevo_jax.envs.env import (
    Env,
    Restores,
    StepResult,
    Task,
    TellsErrors,
    can_restore,
    parse_response,
    says_invalid,
)
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration


def first_observation(probe: Probe) -> str:
    """`reset` gives a non-empty text; for a deterministic environment the same one every time."""
    env, other = probe.open(), probe.open()
    for task in probe.sample():
        found: Any = probe.reset(env, task)
        if not isinstance(found, str) or not found.strip():
            raise Violation(
                f"reset of task {task.id}: found {shorten(found)}, expected a text that states the task"
            )
        if not probe.deterministic:
            continue
        for place, again in (
            ("another instance", probe.reset(other, task)),
            ("the same instance again", probe.reset(env, task)),
        ):
            if again != found:
                raise Violation(
                    f"reset of task {task.id}, {place}: found {shorten(again)}, expected {shorten(found)} "
                    "as before (deterministic is True)"
                )
    return f"{len(probe.sample())} tasks"


def step_result(probe: Probe) -> str:
    """`step` answers with a `StepResult`: a text, whether the episode is over, and a number."""
    env = probe.open()
    for task in probe.sample():
        probe.reset(env, task)
        for action in probe.solution(task):
            result: Any = probe.step(env, task, action)
            where = f"step({shorten(action)}) of task {task.id}"
            if not isinstance(result, StepResult):
                raise Violation(f"{where}: found {shorten(result)}, expected a StepResult")
            for name, kind in (("observation", str), ("done", bool)):
                if not isinstance(getattr(result, name), kind):
                    found = shorten(getattr(result, name))
                    raise Violation(f"{where}: {name}: found {found}, expected a {kind.__name__}")
            if not _is_number(result.reward):
                raise Violation(f"{where}: reward: found {shorten(result.reward)}, expected a number")
            if result.done:
                break
    return probe.counts()


def rewards(probe: Probe) -> str:
    """Every episode earns a reward in [0, 1], however it is played: by experts, at random or with malice."""
    env = probe.open()
    for task in probe.sample():
        for actions in (probe.solution(task), probe.random_actions(task)):
            env, played = probe.try_play(env, task, actions)
            _check_end(played)
        for instance, played in probe.play_hostile(env, task):
            env = instance
            _check_end(played)
    return probe.counts()


def reward_at_limit(probe: Probe) -> str:
    """`reward_at_limit` is a number in [0, 1] after the reset and after every turn."""
    env = probe.open()
    for task in probe.sample():
        for actions in (probe.solution(task), probe.random_actions(task, malformed=False)):
            probe.reset(env, task)
            _check_limit(probe, env, task, "the reset")
            for action in actions:
                try:
                    if probe.step(env, task, action).done:
                        break
                except EnvRaised:  # the check `endings` tells
                    env = probe.open()
                    break
                _check_limit(probe, env, task, f"action {shorten(action)}")
    return probe.counts()


def endings(probe: Probe) -> str:
    """An episode goes on, without an exception, until it is over or `max_turns` are played."""
    env = probe.open()
    ended = 0
    for task in probe.sample():
        limit = probe.max_turns(env, task)
        played = probe.play(env, task, probe.random_actions(task, malformed=False, turns=limit))
        ended += played.done
        lasting = played.actions[:-1] if played.done else played.actions
        probe.play(env, task, (lasting * limit)[:limit])
    return f"{probe.counts()}, {ended} ended by themselves"


def same_actions(probe: Probe) -> str:
    """The same actions give the same reward, and in a deterministic environment the same observations."""
    env, other = probe.open(), probe.open()
    for task in probe.sample():
        for actions in (probe.solution(task), probe.random_actions(task)):
            env, found = probe.try_play(env, task, actions)
            other, again = probe.try_play(other, task, actions)
            if found is not None and again is not None:
                probe.compare(found, again, "played again in another instance")
    return probe.counts()


def same_task(probe: Probe) -> str:
    """A task is the same task at every reset: actions that mean something there are answered alike."""
    env, other = probe.open(), probe.open()
    for task in probe.sample():
        actions = probe.meant_actions(task, probe.reset(env, task))
        env, found = probe.try_play(env, task, actions)
        for place in ("another instance", "the same instance"):
            env, other = (env, other) if place == "the same instance" else (other, env)
            env, again = probe.try_play(env, task, actions)
            if found is not None and again is not None:
                when = f"reset again in {place}, is another task"
                if probe.deterministic and found.prompt != again.prompt:
                    raise Violation(
                        f"task {task.id}, {when}: first observation: found {shorten(again.prompt)}, expected "
                        f"{shorten(found.prompt)}"
                    )
                probe.compare(found, again, when)
    return probe.counts()


def restored_states(probe: Probe) -> str:
    """A kept state, restored in this or another instance, goes on as the episode did that it was kept in."""
    env, other = probe.open(), probe.open()
    if not (isinstance(env, Restores) and isinstance(other, Restores) and can_restore(env)):
        raise NotApplicable("the environment keeps no states (snapshot, restore)")
    kept = 0
    for task in probe.sample():
        for actions in (probe.solution(task), probe.random_actions(task)):
            whole = probe.play(env, task, actions)
            for turn in sorted({0, len(whole.actions) // 2, len(whole.actions) - 1}):
                if turn < 0:
                    continue
                probe.play(env, task, whole.actions[:turn])
                state = probe.call(f"snapshot of task {task.id} after turn {turn}", env.snapshot)
                if state is None:
                    raise Violation(
                        f"snapshot of task {task.id} after turn {turn}: found None, expected a state"
                    )
                state = pickle.loads(pickle.dumps(state))
                for place, one in (("another instance", other), ("the same instance", env)):
                    found = _go_on(probe, one, state, whole, turn)
                    probe.compare(whole, found, f"restored after turn {turn} in {place}")
                kept += 1
    return f"{kept} states, {probe.counts()}"


def _go_on(probe: Probe, env: Any, state: Any, whole: Played, turn: int) -> Played:
    """The episode with its turns from `turn` on played from a restored state."""
    task, results = whole.task, list(whole.results[:turn])
    probe.call(f"restore of task {task.id} after turn {turn}", lambda: env.restore(task, state))
    for action in whole.actions[turn:]:
        results.append(probe.step(env, task, action))
        if results[-1].done:
            break
    reward = results[-1].reward if results and results[-1].done else probe.limit_reward(env, task)
    return replace(whole, actions=whole.actions[: len(results)], results=tuple(results), reward=reward)


def experts(probe: Probe) -> str:
    """An expert's actions, played, end the episode within `max_turns` with the reward it records."""
    env = probe.open()
    solved = found = 0
    for task in probe.sample():
        demonstration = probe.call(f"expert of task {task.id}", lambda task=task: env.expert(task))
        if demonstration is None:
            continue
        found += 1
        _check_demonstration(task, demonstration, probe.max_turns(env, task))
        _check_replay(probe, env, task, demonstration)
        solved += demonstration.reward >= SOLVED_REWARD
    if not found:
        raise NotApplicable(f"no expert for any of the {len(probe.sample())} tasks played")
    return f"{solved} of {len(probe.sample())} tasks solved by their expert"


def errors(probe: Probe) -> str:
    """Which answers are errors, `is_error` says (if there is one), True or False; a solved end is none."""
    env, asked, asked_of, found = probe.open(), 0, probe.open(), 0
    is_error = asked_of.is_error if isinstance(asked_of, TellsErrors) else says_invalid
    for task in probe.sample():
        for actions in (probe.solution(task), probe.random_actions(task)):
            env, played = probe.try_play(env, task, actions)
            for result in () if played is None else played.results:
                observation = result.observation
                words = f"is_error({shorten(observation)})"
                told: Any = probe.call(words, lambda observation=observation: is_error(observation))
                if not isinstance(told, bool):
                    raise Violation(f"{words}: found {shorten(told)}, expected True or False")
                if told and result.done and result.reward >= SOLVED_REWARD:
                    raise Violation(f"{words}: found True of the answer that solved task {task.id}")
                asked, found = asked + 1, found + told
    return f"{found} of {asked} answers" + ("" if isinstance(asked_of, TellsErrors) else ", by their wording")


def _check_demonstration(task: Task, found: Any, limit: int) -> None:
    where = f"expert of task {task.id}"
    if not isinstance(found, Demonstration):
        raise Violation(f"{where}: found {shorten(found)}, expected a Demonstration or None")
    if found.task_id != task.id:
        raise Violation(f"{where}: task_id: found {found.task_id!r}")
    if not 1 <= len(found.turns) <= limit:
        raise Violation(f"{where}: found {len(found.turns)} turns, expected 1 to {limit} (max_turns)")
    if not _in_range(found.reward):
        raise Violation(f"{where}: found reward {shorten(found.reward)}, expected a number from 0 to 1")
    for number, turn in enumerate(found.turns, 1):
        parsed = parse_response(turn.response)
        if parsed is None or parsed[1] != turn.action.strip():
            raise Violation(
                f"{where}: turn {number}: the response {shorten(turn.response)} reads as "
                f"{shorten(parsed and parsed[1])}, expected its action {shorten(turn.action)}"
            )


def _check_replay(probe: Probe, env: Env, task: Task, expert: Demonstration) -> None:
    where = f"expert of task {task.id}"
    played = probe.play(env, task, [turn.action for turn in expert.turns])
    if not played.done or len(played.results) < len(expert.turns):
        ended = f"turn {len(played.results)}" if played.done else "no turn"
        raise Violation(f"{where}: {ended} ended the episode, expected the last one ({len(expert.turns)})")
    if abs(played.reward - expert.reward) > 1e-6:
        raise Violation(f"{where}: replayed to reward {played.reward:g}, recorded is {expert.reward:g}")
    if not probe.deterministic:
        return
    if played.prompt != expert.prompt:
        raise Violation(f"{where}: prompt: found {shorten(expert.prompt)}, expected {shorten(played.prompt)}")
    for number, (turn, result) in enumerate(zip(expert.turns, played.results, strict=True), 1):
        if turn.observation != result.observation:
            raise Violation(
                f"{where}: turn {number}, action {shorten(turn.action)}: recorded is the observation "
                f"{shorten(turn.observation)}, played it is {shorten(result.observation)}"
            )


def _check_end(played: Played | None) -> None:
    if played is not None and played.done and not _in_range(played.reward):
        raise Violation(
            f"task {played.task.id}, action {shorten(played.actions[-1])} ended the episode with reward "
            f"{shorten(played.reward)}, expected a number from 0 to 1"
        )


def _check_limit(probe: Probe, env: Env, task: Task, after: str) -> None:
    found: Any = probe.limit_reward(env, task)
    if not _in_range(found):
        raise Violation(
            f"reward_at_limit of task {task.id} after {after}: found {shorten(found)}, expected "
            "a number from 0 to 1"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and 0.0 <= value <= 1.0
