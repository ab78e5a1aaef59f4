"""Branches: episodes that begin in the middle of others, with a tiny random model and scripted answers."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from coevo_jax.config.recipe import BranchOptions
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import StepResult
from coevo_jax.envs.pool import EnvPool
from coevo_jax.methods.points import Point
from coevo_jax.methods.turns import turn_starts
from coevo_jax.phases.branch import branch_points, point_blocks
from coevo_jax.rollout import BranchSet, play, play_together
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import Ending
from tests.scripted_env import CharChat, ScriptedEnv, make_engine, make_tasks, random_params

PARAMS = random_params()
CHAT = CharChat()
ENGINE = make_engine(max_tokens=160)
TASKS = {task.id: task for task in make_tasks(4)}
ONCE = BranchOptions.model_validate({"agent": "target", "into": "tails", "at": "failed_turns"})


@dataclass(eq=False)
class KeptEnv(ScriptedEnv):
    """The same with states that can be kept; it counts the turns that it plays, of all instances."""

    played = 0

    def step(self, action: str) -> StepResult:
        KeptEnv.played += 1
        return super().step(action)

    def snapshot(self):
        return self.turn, self.random.bit_generator.state

    def restore(self, task, state):
        self.turn, words = state
        self.random = np.random.default_rng()
        self.random.bit_generator.state = words


@dataclass(eq=False)
class DriftingEnv(ScriptedEnv):
    """Answers otherwise from its second instance on: what was played once does not come back."""

    made = 0
    begins_otherwise: bool = False

    def __post_init__(self) -> None:
        DriftingEnv.made += 1
        self.other = DriftingEnv.made > 1

    def _answer(self) -> str:
        answer = super()._answer()
        return f"O{answer}" if self.other and self.turn == 2 else answer


@dataclass(eq=False)
class FailsOnceEnv(KeptEnv):
    """Breaks in the first replay, and never again."""

    broken = False

    def step(self, action: str) -> StepResult:
        if self.turn == 1 and not FailsOnceEnv.broken:
            FailsOnceEnv.broken = True
            raise RuntimeError("broken")
        return super().step(action)


def parents(make_env=ScriptedEnv, samples=2, tasks=4):
    with EnvPool(make_env, workers=2, step_timeout=10.0) as pool:
        played, _ = play(
            ENGINE,
            PARAMS,
            pool,
            CHAT,
            make_tasks(tasks),
            agent="target",
            samples=samples,
            temperature=1.0,
            seed=0,
            phase=0,
        )
    return played


def deep(found, turns=4):
    """Those of the episodes that have so many turns."""
    kept = [one for one in found if len(one.turns) >= turns]
    assert kept
    return kept


def branch(points, make_env=ScriptedEnv, samples=1, turns=None, phase=0, engine=ENGINE):
    cast = BranchSet(
        agent="target",
        weights=engine.load(PARAMS),
        points=points,
        samples=samples,
        turns=turns,
        phase=phase,
    )
    with EnvPool(make_env, workers=2, step_timeout=10.0) as pool:
        sampling = Sampling(root=jax.random.key(0), temperature=1.0)
        [played] = play_together(engine, pool, CHAT, [cast], sampling=sampling)
    return played


def points_of(found, options=ONCE):
    return branch_points(found, TASKS, CHAT, options, "round-01/branch_tails")


def text(trajectory):
    return trajectory.tokens.tolist(), trajectory.agent_mask.tolist(), trajectory.turns, trajectory.ending


def test_a_branch_under_the_same_keys_is_the_episode_itself_from_every_turn():
    """Keys name task, sample and turn: so what follows a replayed beginning is what followed it before."""
    found = deep(parents(samples=1))
    for turn in range(4):
        again, stats = branch(points_of([Point(one, turn) for one in found]))
        for one, other in zip(found, again, strict=True):
            assert text(one) == text(other)
            np.testing.assert_allclose(one.logps, other.logps, rtol=0, atol=1e-5)
            assert other.branch is not None
            assert (other.branch.collection, other.branch.sample) == ("target", one.sample)
            assert (other.branch.turns, other.branch.tokens) == (turn, turn_starts(one)[turn])
            assert other.reward == one.reward
        own = sum(int(one.agent_mask[turn_starts(one)[turn] :].sum()) for one in found)
        assert stats.agent_tokens == own == sum(one.written_tokens for one in again)
        assert stats.turns == sum(len(one.turns) - turn for one in found)


def test_kept_states_give_what_replaying_gives_and_the_turns_are_played_once():
    found = [Point(one, 3) for one in deep(parents(samples=1))]
    options = ONCE.model_copy(update={"samples": 5})
    replayed, plain = branch(points_of(found, options), samples=5, phase=7)
    KeptEnv.played = 0
    kept, stats = branch(points_of(found, options), KeptEnv, samples=5, phase=7)
    assert [text(one) for one in kept] == [text(one) for one in replayed]
    own = sum(sum(bool(turn.action) for turn in one.turns[3:]) for one in kept)
    assert KeptEnv.played == len(found) * 3 + own
    assert stats.prefill_tokens == plain.prefill_tokens
    # The beginning of a point is computed once for all of its samples.
    beginnings = sum(int(turn_starts(one.trajectory)[3]) for one in found)
    assert stats.prefix_tokens >= 4 * (beginnings - len(found))
    assert len({one.tokens.tobytes() for one in kept}) > len(found)


def test_a_beginning_that_does_not_come_back_is_lost():
    DriftingEnv.made = 0
    [one] = deep(parents(DriftingEnv, samples=1, tasks=1))
    found, stats = branch(points_of([Point(one, turn) for turn in range(4)]), DriftingEnv)
    assert [other.ending is Ending.LOST for other in found] == [False, False, True, True]
    assert stats.lost == 2 and stats.faults == 2 and stats.endings["lost"] == 2
    for other in found[2:]:
        assert other.reward == 0 and not other.failure and not other.success and other.written_tokens == 0
        assert other.turns == one.turns[: other.branch.turns]


def test_who_waits_for_a_state_replays_it_when_the_first_one_breaks():
    [one] = deep(parents(samples=1, tasks=1))
    FailsOnceEnv.broken = False
    options = ONCE.model_copy(update={"samples": 3})
    found, stats = branch(points_of([Point(one, 3)], options), FailsOnceEnv, samples=3)
    assert [other.ending for other in found].count(Ending.FAULT) == 1
    assert stats.faults == 1 and sum(other.finished for other in found) == 2


def test_a_branch_may_have_so_many_turns_of_its_own():
    [one] = deep(parents(samples=1, tasks=1))
    found, _ = branch(points_of([Point(one, turn) for turn in range(4)]), turns=1)
    assert [len(other.turns) for other in found] == [1, 2, 3, 4]
    assert [other.ending for other in found] == [*[Ending.TURN_LIMIT] * 3, Ending.SOLVED]


def test_a_given_response_is_written_in_the_agents_place():
    [one] = deep(parents(samples=1, tasks=1))
    found, _ = branch(points_of([Point(one, 1, "zzz"), Point(one, 1)]))
    given, own = found
    start = turn_starts(given)[1]
    assert given.tokens[start : start + 4].tolist() == CHAT.response_ids("zzz")
    assert given.turns[1].response == "Action: zzz." and own.turns[1].response != given.turns[1].response
    assert given.agent_mask[start : start + 4].all() and (given.logps[start : start + 4] < 0).all()
    assert len(given.turns) > 2


@pytest.mark.parametrize("turn", [-1, 4, 9])
def test_a_point_outside_of_its_episode_is_refused(turn):
    [one] = deep(parents(samples=1, tasks=1))
    with pytest.raises(
        ConfigError, match=f"found a point before turn {turn} of target/task/0/0, expected one"
    ):
        points_of([Point(one, turn)])


def test_a_point_of_another_rounds_task_is_refused():
    [one] = deep(parents(samples=1, tasks=1))
    with pytest.raises(ConfigError, match="is of no task that the round explores"):
        branch_points([Point(one, 0)], {}, CHAT, ONCE, "branch")


def test_blocks_hold_all_points_of_some_tasks():
    found = [Point(one, turn) for one in parents(samples=2) for turn in (0, 1)]
    options = ONCE.model_copy(update={"samples": 3})
    points = points_of(found, options)
    blocks = point_blocks(points, options, 3)
    assert [len(block.points) for block in blocks] == [12, 4]
    numbers = [(point.task.id, point.first_sample) for point in points]
    assert numbers == [(f"task/{task}", first) for task in range(4) for first in (0, 3, 6, 9)]
    assert point_blocks([], options, 3)[0].points == []
