"""An agent's episodes over several engines, each in a thread of its own, are those of one engine."""

import threading
from dataclasses import replace

import jax
import pytest

from coevo_jax.envs.pool import EnvPool
from coevo_jax.rollout import EpisodeSet, play_together
from coevo_jax.sampling.engine import Sampling
from coevo_jax.sampling.shapes import cpu_lanes
from tests.rollout.test_modes import assert_same_episodes, casts, exactly
from tests.rollout.test_play import CHAT, LENGTH, PARAMS
from tests.scripted_env import ScriptedEnv, SlowEnv, make_engine, make_tasks, random_params

SAMPLING = Sampling(root=jax.random.key(0), temperature=1.0)


@pytest.mark.parametrize(
    ("slots", "lanes"), [(1, 1), (8, 1), (16, 1), (31, 1), (32, 2), (33, 1), (64, 4), (100, 5)]
)
def test_a_lane_has_at_least_sixteen_slots_and_lanes_are_equal(slots, lanes):
    assert cpu_lanes(slots) == lanes


def one_cast(engine, tasks=7, samples=3):
    return [
        EpisodeSet(
            agent="target", weights=engine.load(PARAMS), tasks=make_tasks(tasks), samples=samples, phase=4
        )
    ]


def play(engine, cast, make_env=SlowEnv, **options):
    with EnvPool(make_env, workers=2, step_timeout=10) as pool:
        return play_together(engine, pool, CHAT, cast, sampling=SAMPLING, **options)


@pytest.mark.parametrize("joining", ["at_once", "next_block", "as_ready"])
@pytest.mark.parametrize("lanes", [2, 3])
def test_lanes_play_what_one_engine_plays(lanes, joining):
    whole = make_engine(slots=6, max_tokens=LENGTH, joining=joining)
    engine = make_engine(slots=6, max_tokens=LENGTH, joining=joining, lanes=lanes)
    [(expected, _)], [(found, stats)] = play(whole, one_cast(whole)), play(engine, one_cast(engine))
    assert_same_episodes(found, expected)
    assert stats.episodes == 21 and stats.turns == sum(len(t.turns) for t in found)
    assert stats.prefix_hits == 21 - lanes  # every lane reads one prompt from its start
    values = stats.values()
    assert 0 < values["device_busy_share"] <= 1.01 and 0 <= values["env_wait_share"] <= 1


@pytest.mark.parametrize(("joining", "threads"), [("at_once", 2), ("next_block", 2), ("as_ready", 1)])
def test_lanes_play_in_threads_of_their_own_where_order_allows(joining, threads):
    engine = make_engine(slots=6, max_tokens=LENGTH, joining=joining, lanes=2)
    seen, calls = set(), engine._programs.prefill

    def prefill(*arguments):
        seen.add(threading.current_thread())
        return calls(*arguments)

    engine._programs = engine._programs._replace(prefill=prefill)
    play(engine, one_cast(engine))
    assert len(seen) == threads
    assert (threading.main_thread() in seen) == (threads == 1)


def test_two_agents_with_lanes_play_what_they_play_alone_and_again_bit_by_bit():
    engine = make_engine(slots=6, max_tokens=LENGTH, lanes=2)
    both = casts(target=engine.load(PARAMS), failure=engine.load(random_params(1)))
    together = play(engine, both)
    programs = engine.compilations()
    again, alone = play(engine, both), [play(engine, [one])[0] for one in both]
    assert engine.compilations() == programs
    for (found, _), (repeated, _), (expected, _) in zip(together, again, alone, strict=True):
        assert exactly(found) == exactly(repeated)
        assert_same_episodes(found, expected)


def test_fewer_tasks_than_lanes_leave_engines_idle():
    engine = make_engine(slots=6, max_tokens=LENGTH, lanes=3)
    [(found, _)] = play(engine, one_cast(engine, tasks=1))
    assert len(found) == 3
    [(none, stats)] = play(engine, [replace(one_cast(engine)[0], tasks=[])])
    assert none == [] and stats.episodes == 0


def test_what_a_lane_raises_ends_the_others_and_reaches_the_caller():
    engine = make_engine(slots=6, max_tokens=LENGTH, lanes=2)
    engine.prefill = lambda *_: (_ for _ in ()).throw(MemoryError("no room"))
    with pytest.raises(MemoryError, match="no room"):
        play(engine, one_cast(engine))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_what_is_raised_between_blocks_ends_all_lanes():
    class Stop(Exception):
        pass

    looks = []

    def look():
        looks.append(threading.current_thread())
        if len(looks) == 2:
            raise Stop

    engine = make_engine(slots=6, max_tokens=LENGTH, lanes=2)
    with pytest.raises(Stop):
        play(engine, one_cast(engine, tasks=40), between_blocks=look)
    assert set(looks) == {threading.main_thread()}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    [(found, _)], [(expected, _)] = play(engine, one_cast(engine)), play(engine, one_cast(engine))
    assert exactly(found) == exactly(expected)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_lanes_share_what_an_environment_can_play_at_a_time(most):
    playing, highest, lock = [0], [0], threading.Lock()

    class Counted(ScriptedEnv):
        def __init__(self):
            super().__init__()
            with lock:
                playing[0] += 1
                highest[0] = max(highest[0], playing[0])

        def close(self):
            with lock:
                playing[0] -= 1

    engine = make_engine(slots=6, max_tokens=LENGTH, lanes=2)
    [(expected, _)] = play(engine, one_cast(engine))
    with EnvPool(Counted, workers=2, step_timeout=10, most=most) as pool:
        [(found, _)] = play_together(engine, pool, CHAT, one_cast(engine), sampling=SAMPLING)
    assert highest[0] == (most if most < 2 else most // 2 * 2)
    assert_same_episodes(found, expected)
