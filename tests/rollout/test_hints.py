"""Episodes with suggestions: what stands in the tokens, what is recorded, and that nothing else changes."""

from typing import Any

import jax
import pytest

from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.envs.pool import EnvPool
from coevo_jax.methods.hints import NO_HINTS, Hints
from coevo_jax.rollout import EpisodeSet, play_together
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import Ending
from tests.scripted_env import CharChat, ScriptedEnv, make_engine, make_tasks, random_params

PARAMS = random_params()
CHAT: Any = CharChat()
ENGINE = make_engine(slots=2, max_tokens=160)
WORDING = "{text}|{action}"


def actions_of(task_id, sample):
    return (f"b{task_id[-1]}{sample}", f"c{task_id[-1]}{sample}")


def hinting(task_id, sample):
    return Hints(actions=actions_of(task_id, sample), wording=WORDING)


SAID = [CHAT.response_ids(text) for text in ("b", "bc", "cd", "d")]
SCRIPT = {task.id: SAID for task in make_tasks(3)}


def played(hints, *, tasks=2, samples=2, first=0, make_env: Any = ScriptedEnv, engine=ENGINE, script=None):
    own = make_tasks(3)[-tasks:]
    cast = EpisodeSet(
        agent="a",
        weights=engine.load(PARAMS),
        tasks=own,
        samples=samples,
        first_sample=first,
        phase=3,
        hints=hints,
    )
    sampling = Sampling(root=jax.random.key(0), temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    with EnvPool(make_env, workers=1, step_timeout=5.0) as pool:
        [(found, _)] = play_together(engine, pool, CHAT, [cast], sampling=sampling, script=script)
    return found


def test_suggestions_stand_in_the_tokens_turn_by_turn_and_in_the_record_alone():
    for one in played(hinting, script=SCRIPT):
        first, second = actions_of(one.task_id, one.sample)
        answers = [turn.observation for turn in one.turns]
        tokens = CHAT.prompt_ids("xyz", f"{one.prompt}|{first}") + SAID[0]
        tokens += CHAT.observation_ids(f"{answers[0]}|{second}") + SAID[1]
        tokens += CHAT.observation_ids(answers[1]) + SAID[2] + CHAT.observation_ids(answers[2]) + SAID[3]
        assert one.ending is Ending.SOLVED and one.tokens.tolist() == tokens
        assert one.agent_mask.sum() == sum(map(len, SAID))
        assert one.hints == (first, second, "", "")
        assert not any(first in text for text in (one.prompt, *answers))


def test_without_suggestions_an_episode_is_what_it_was():
    plain, none = played(lambda task_id, sample: NO_HINTS), played(lambda task_id, sample: Hints())
    for one, other in zip(plain, none, strict=True):
        assert one.hints == other.hints == ()
        assert one.tokens.tolist() == other.tokens.tolist()
    hints = played(hinting)
    assert any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(plain, hints, strict=True))


def test_an_episode_with_suggestions_does_not_depend_on_its_neighbours():
    """A process that plays a share of the tasks, or some of the samples, plays the same episodes."""
    whole = {(one.task_id, one.sample): one for one in played(hinting, tasks=3, samples=3)}
    part = [*played(hinting, tasks=1, samples=1, first=2), *played(hinting, tasks=2, samples=1, first=1)]
    for one in part:
        other = whole[one.task_id, one.sample]
        assert (one.hints, one.tokens.tolist()) == (other.hints, other.tokens.tolist())


def test_suggestions_end_where_the_agent_is_told_something_else():
    plain = {one.task_id: one for one in played(lambda task_id, sample: NO_HINTS, samples=1, script=SCRIPT)}

    def while_same(task_id, sample):
        one = plain[task_id]
        told = (one.prompt, one.turns[0].observation, "another answer", one.turns[2].observation)
        return Hints(actions=("b", "c", "d", "e"), told=told, wording=WORDING)

    for one in played(while_same, samples=1, script=SCRIPT):
        assert one.hints == ("b", "c", "", "")


def test_an_episode_that_breaks_or_has_no_room_records_what_was_told():
    for one in played(hinting, make_env=lambda: ScriptedEnv(fail=frozenset({1})), script=SCRIPT):
        assert one.ending is Ending.FAULT and one.hints == actions_of(one.task_id, one.sample)[:1]
    for one in played(hinting, make_env=lambda: ScriptedEnv(fail=frozenset({0}))):
        assert one.ending is Ending.FAULT and one.hints == ()
    long = Hints(actions=("b", "c" * 200), wording=WORDING)
    for one in played(lambda task_id, sample: long, script=SCRIPT):
        assert one.ending is Ending.TOKEN_LIMIT and one.hints == ("b",) and len(one.turns) == 1


@pytest.mark.parametrize("hinted", [True, False])
def test_suggestions_come_back_from_their_file(hinted, tmp_path):
    found = played(hinting if hinted else lambda task_id, sample: NO_HINTS)
    write_trajectories(tmp_path / "some.parquet", found)
    read = read_trajectories([tmp_path / "some.parquet"])
    assert [one.hints for one in read] == [one.hints for one in found]
    assert [bool(one.hints) for one in read] == [hinted] * 4


def test_a_shard_of_some_episodes_with_suggestions_has_the_others_without(tmp_path):
    found = played(lambda task_id, sample: hinting(task_id, sample) if sample else NO_HINTS)
    write_trajectories(tmp_path / "some.parquet", found)
    read = read_trajectories([tmp_path / "some.parquet"])
    assert [bool(one.hints) for one in read] == [False, True, False, True]
